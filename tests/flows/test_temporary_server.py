"""A temporary Prefect server: of its own, quick to start again, gone when its run is."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

from barycenter.flows import server as flow_server
from barycenter.flows import temporary_server
from barycenter.flows.health import answers
from barycenter.flows.server import PrefectServer
from barycenter.flows.temporary_server import TemporaryServer
from barycenter.fusion.errors import RunError


@pytest.fixture
def nobody_here(monkeypatch, prefect_home):
    """No server is configured, none runs on this machine."""
    monkeypatch.setattr(flow_server, "LOCAL_API", "http://127.0.0.1:1/api")
    with temporary_settings({PREFECT_HOME: prefect_home}, restore_defaults={PREFECT_API_URL}):
        yield


def tables_of(database):
    return {name for (name,) in sqlite3.connect(database).execute("SELECT name FROM sqlite_master")}


@pytest.mark.slow
@pytest.mark.usefixtures("nobody_here")
def test_it_answers_with_a_database_of_its_own_and_leaves_nothing_but_an_empty_one(prefect_home):
    folders = []
    for _ in range(2):
        with PrefectServer() as server:
            server.check()
            server.wait()
            api = PREFECT_API_URL.value()
            assert answers(api, 5)
            folders.append(server._temporary._folder)
            assert "flow_run" in tables_of(folders[-1] / "prefect.db")
        assert not answers(api)
        assert not folders[-1].exists()
    (empty,) = (prefect_home / "barycenter").iterdir()
    assert "flow_run" in tables_of(empty)
    assert not (prefect_home / "prefect.db").exists(), "the database of the user's own servers is left alone"


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.usefixtures("nobody_here")
def test_a_damaged_empty_database_is_made_again(tmp_path):
    with temporary_settings({PREFECT_HOME: tmp_path}), PrefectServer() as server:
        server._temporary.stop()
    empty = server._temporary._empty
    empty.parent.mkdir(parents=True)
    empty.write_bytes(b"no database" * 1000)
    with temporary_settings({PREFECT_HOME: tmp_path}), PrefectServer() as server:
        server.wait()
    assert "flow_run" in tables_of(empty)


DRIVER = """
import sys
from pathlib import Path
from barycenter.flows.temporary_server import TemporaryServer
server = TemporaryServer(Path(sys.argv[1]), 120, {})
print(server._process.pid, server._folder, flush=True)
server.wait()
sys.stdin.read()
"""


@pytest.mark.slow
def test_it_ends_with_a_run_that_is_killed(prefect_home):
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(prefect_home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pid, folder = driver.stdout.readline().split()
    pid = int(pid)
    os.kill(driver.pid, signal.SIGKILL)
    driver.wait()
    end = time.monotonic() + 60
    while is_alive(pid):
        assert time.monotonic() < end, "the server outlived its run"
        time.sleep(0.05)
    assert not Path(folder).exists()


class Ended(SimpleNamespace):
    """A process that ended at once."""

    returncode = 3

    def poll(self):
        return self.returncode

    def kill(self):
        pass

    def communicate(self):
        pass


def test_one_that_does_not_start_is_tried_again_and_says_what_to_set(tmp_path, monkeypatch):
    started = []

    def popen(command, *, stderr, **_):
        started.append(command)
        stderr.write(b"a traceback\nand its reason\n")
        return Ended()

    monkeypatch.setattr(temporary_server.subprocess, "Popen", popen)
    server = TemporaryServer(tmp_path, 60, {})
    with pytest.raises(RunError, match=r"did not start: it ended with status 3: a traceback and its reason; .*=300"):
        server.wait()
    assert len(started) == 3
    server.stop()


def test_one_that_does_not_answer_in_time_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(temporary_server.subprocess, "Popen", lambda *_, **__: Ended(poll=lambda: None))
    server = TemporaryServer(tmp_path, 0.0, {})
    with pytest.raises(RunError, match="no answer within 0 s"):
        server.wait()
    folder = server._folder
    server.stop()
    assert not Path(folder).exists()
