import json
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.storage.remote import S3Store
from barycenter.infra.versions import lease as leases
from barycenter.infra.versions.lease import (
    COLLECTOR_PATIENCE,
    RENEWALS,
    TERM_SECONDS,
    acquire,
    hold,
    newest_term,
)


def numbers(storage):
    return [int(Path(path).stem) for path in storage.list("lease")]


def test_terms_are_numbered_and_only_the_newest_stays(storage, caplog):
    assert newest_term(storage) is None
    lease = acquire(storage, "run emoji")
    assert (lease.number, lease.previous, lease.unfenced) == (1, 0, False)
    lease.renew()
    lease.check()
    assert numbers(storage) == [2]
    assert lease.number == 2
    lease.release()
    assert newest_term(storage).released
    following = acquire(storage, "gc")
    assert "taken over" not in caplog.text
    assert (following.number, following.previous, following.unfenced) == (4, 3, False)
    with pytest.raises(RunError, match="was taken over by gc"):
        lease.check()


def test_times_are_those_that_docs_robustness_names():
    assert TERM_SECONDS == 60
    assert TERM_SECONDS / RENEWALS == 15
    assert TERM_SECONDS * COLLECTOR_PATIENCE == 600


def test_of_many_at_once_one_at_a_time_holds(storage):
    inside, most, order = [], [], threading.Lock()

    def work(number):
        with hold(storage, f"run {number}"):
            with order:
                inside.append(number)
                most.append(len(inside))
            with order:
                inside.remove(number)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(leases, "_POLL_SECONDS", 0.01)
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert most == [1] * 6
    assert newest_term(storage).released
    assert len(numbers(storage)) == 1


def test_a_lease_is_renewed_while_it_is_held_and_released_even_if_the_work_fails(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    monkeypatch.setattr(leases, "TERM_SECONDS", 0.04)
    renewed = threading.Event()
    real = leases.Lease.renew

    def renew(self, **kwargs):
        real(self, **kwargs)
        if self.number > 3:
            renewed.set()

    monkeypatch.setattr(leases.Lease, "renew", renew)

    def work():
        with hold(storage, "run"):
            assert renewed.wait(30)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        work()
    assert newest_term(storage).released


def test_a_renewal_that_fails_is_tried_again(tmp_path, monkeypatch, caplog):
    storage = Storage(str(tmp_path))
    monkeypatch.setattr(leases, "TERM_SECONDS", 0.04)
    tries, renewed = [], threading.Event()

    def renew(self, **kwargs):
        tries.append(True)
        if len(tries) < 3:
            raise RunError("the server is away")
        renewed.set()

    monkeypatch.setattr(leases.Lease, "renew", renew)
    with hold(storage, "run"):
        assert renewed.wait(30)
    assert "could not be renewed: the server is away" in caplog.text


def test_a_number_that_became_free_gives_no_lease(tmp_path, clock, monkeypatch):
    """One that finds a term old makes the next one late, after others took it, renewed and took its file away."""
    storage = Storage(str(tmp_path))
    acquire(storage, "killed")
    clock.now = 1000.0
    real, others = Storage.create, []

    def late(self, path, data):
        if not others and json.loads(data)["purpose"] == "late":
            others.append(acquire(storage, "other"))
            for _ in range(3):
                others[0].renew()
            others[0].release()
            others.append(acquire(storage, "third"))
            assert not storage.exists(path)
        return real(self, path, data)

    monkeypatch.setattr(Storage, "create", late)
    got = acquire(storage, "late")
    assert others[1].number < got.number
    assert newest_term(storage).purpose == "late"
    assert got.unfenced


def test_a_term_of_a_later_release_is_read_by_what_is_known_of_it(tmp_path):
    storage = Storage(str(tmp_path))
    acquire(storage, "run").release()
    (path,) = storage.list("lease")
    storage.write(path, json.dumps(json.loads(storage.read(path)) | {"later": 1}).encode())
    assert newest_term(storage).released


def test_what_a_term_does_not_say_is_not_so():
    term = leases.Term.from_json(3, b'{"number": 3, "holder": "a", "who": "b", "purpose": "c", "since": "d"}')
    assert (term.number, term.process, term.deletes, term.released, term.unfenced) == (3, "", False, False, False)
    assert term.described() == "c (b, since d)"


def test_the_newest_of_several_terms_counts(tmp_path):
    """As after a kill between the making of a term and the removal of those before it."""
    storage = Storage(str(tmp_path))
    lease = acquire(storage, "killed")
    (first,) = storage.list("lease")
    content = storage.read(first)
    lease.renew()
    lease.release()
    storage.write(first, content)
    newest = newest_term(storage)
    assert (newest.number, newest.released) == (3, True)


def test_a_term_that_goes_while_it_is_read_is_looked_for_again_after_a_moment(tmp_path, clock, monkeypatch):
    storage, real, late = Storage(str(tmp_path)), Storage.read, [True]
    lease = acquire(storage, "run")

    def renewed_meanwhile(self, path):
        if late:
            late.clear()
            lease.renew()
        return real(self, path)

    monkeypatch.setattr(Storage, "read", renewed_meanwhile)
    assert newest_term(storage).number == 2
    assert 0 < clock.now < 1


def test_names_that_are_no_terms_are_passed_over(tmp_path):
    storage = Storage(str(tmp_path))
    storage.write("lease/07.json", b"{}")
    storage.write("lease/notes.txt", b"")
    assert newest_term(storage) is None


def test_a_lost_lease_is_said_once(tmp_path, clock, caplog):
    storage = Storage(str(tmp_path))
    lost = acquire(storage, "run a")
    acquire(storage, "run b")
    caplog.clear()
    lost.renew()
    assert ["the lease is lost" in line for line in caplog.messages] == [True]
    lost.renew()
    assert len(caplog.messages) == 1


def test_a_lease_whose_folder_was_deleted_is_lost(tmp_path, clock, caplog):
    storage = Storage(str(tmp_path))
    lease = acquire(storage, "run")
    storage.remove(storage.list("lease"))
    with pytest.raises(RunError, match="renew its lease, which was deleted; what is done stays done"):
        lease.check()
    lease.renew()
    lease.release()
    assert storage.list("lease") == []
    assert "the lease is lost" in caplog.text


def test_a_term_that_is_deleted_as_soon_as_it_is_made_gives_no_lease(tmp_path, clock, monkeypatch):
    storage, real, deleted = Storage(str(tmp_path)), Storage.create, []

    def create(self, path, data):
        made = real(self, path, data)
        if not deleted:
            deleted.append(path)
            self.remove([path])
        return made

    monkeypatch.setattr(Storage, "create", create)
    acquire(storage, "run").check()
    assert deleted == storage.list("lease")


def test_a_holder_renews_several_times_before_it_could_be_given_up(tmp_path, monkeypatch):
    waits, waited_often = [], threading.Event()

    class Ended(threading.Event):
        def wait(self, timeout=None):
            waits.append(timeout)
            if len(waits) < 4:
                return False
            waited_often.set()
            return super().wait()

    names = SimpleNamespace(Event=Ended, Thread=threading.Thread, Lock=threading.Lock)
    monkeypatch.setattr(leases, "threading", names)
    with hold(Storage(str(tmp_path)), "run") as lease:
        assert waited_often.wait(30)
        assert lease.number == 4
    assert sum(waits) <= TERM_SECONDS


def test_the_thread_that_renews_keeps_no_process_from_ending_and_ends_with_the_block(tmp_path):
    before = threading.enumerate()
    with hold(Storage(str(tmp_path)), "run"):
        (thread,) = (each for each in threading.enumerate() if each.name == "lease" and each not in before)
        assert thread.daemon
    thread.join(10)
    assert not thread.is_alive()


def test_a_remote_server_that_makes_a_file_only_once_is_fine(tmp_path, monkeypatch):
    storage = Storage(str(tmp_path))
    monkeypatch.setattr(Storage, "is_local", False)
    acquire(storage, "run").check()
    assert numbers(storage) == [1]


def test_a_remote_server_that_makes_a_file_although_there_is_one_is_refused(tmp_path, monkeypatch):
    def create(self, path, data):
        self.write(path, data)
        return True

    storage = Storage(str(tmp_path))
    monkeypatch.setattr(Storage, "is_local", False)
    monkeypatch.setattr(Storage, "create", create)
    with pytest.raises(RunError, match="ignores conditional writes"):
        acquire(storage, "run")
    assert storage.list() == []


def test_who_is_overtaken_at_once_does_not_blame_the_server(tmp_path, monkeypatch):
    """The file of its term is gone when it looks whether the server would make it again."""
    storage, real, others = Storage(str(tmp_path)), Storage.create, []
    monkeypatch.setattr(leases, "TERM_SECONDS", 0.0)

    def create(self, path, data):
        if not data:
            monkeypatch.undo()
            monkeypatch.setattr(leases, "TERM_SECONDS", 0.0)
            others.append(acquire(storage, "other"))
        return real(self, path, data)

    monkeypatch.setattr(Storage, "is_local", False)
    monkeypatch.setattr(Storage, "create", create)
    lease = acquire(storage, "run")
    with pytest.raises(RunError, match="taken over by other"):
        lease.check()
    others[0].check()
    assert numbers(storage) == [others[0].number]


def test_a_server_that_ignores_conditional_writes_is_refused(s3_bucket, s3_server, monkeypatch):
    storage = Storage(f"s3://{s3_bucket}/out", s3_server)
    monkeypatch.setattr(S3Store, "_create", S3Store._put)
    with pytest.raises(RunError, match="ignores conditional writes"):
        acquire(storage, "run emoji")
    assert storage.list() == []
