import threading
from contextlib import ExitStack

import pytest

from barycenter.infra.storage import Storage
from barycenter.infra.storage import remote as _remote
from barycenter.infra.storage import spool as _spool
from barycenter.infra.storage.spool import Spool


@pytest.fixture
def budget(monkeypatch):
    monkeypatch.setattr(_spool, "BUDGET", 1000)
    assert _spool.held() == 0
    yield 1000
    assert _spool.held() == 0


def test_files_together_hold_no_more_than_the_budget(budget):
    with ExitStack() as stack:
        spools = [stack.enter_context(Spool(400)) for _ in range(12)]
        for step in range(10):
            for number, spool in enumerate(spools):
                spool.write(bytes([number]) * 50)
                assert _spool.held() <= budget, step
        for number, spool in enumerate(spools):
            spool.seek(0)
            assert spool.read() == bytes([number]) * 500


def test_one_file_holds_no_more_than_its_own_share(budget):
    with Spool(400) as spool:
        spool.write(b"x" * 300)
        assert _spool.held() == 300
        spool.write(b"x" * 300)
        assert _spool.held() == 0


def test_an_error_gives_the_memory_back(budget):
    def fail():
        with Spool(400) as spool:
            spool.write(b"x" * 300)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()


def test_threads_share_the_budget(budget):
    def work():
        for _ in range(50):
            with Spool(400) as spool:
                for _ in range(5):
                    spool.write(b"x" * 90)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_files_beyond_the_budget_arrive_whole(budget, monkeypatch):
    monkeypatch.setattr(_remote, "_PART", 400)
    storage = Storage("memory://spooled")
    with ExitStack() as stack:
        streams = [stack.enter_context(storage.writing(f"{number}.bin")) for number in range(6)]
        for number, stream in enumerate(streams):
            stream.write(bytes([number]) * 350)
        assert _spool.held() <= budget
    assert [storage.read(f"{number}.bin") for number in range(6)] == [bytes([number]) * 350 for number in range(6)]
