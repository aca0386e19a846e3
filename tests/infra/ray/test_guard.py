"""A driver that is killed takes its Ray with it; one that ends leaves nothing to end."""

import os
import signal
import subprocess
import sys
import time

import pytest

from barycenter.infra.ray.guard import guarded, processes_of

DRIVER = """
import sys
from barycenter.infra.ray.connection import connect
from barycenter.infra.ray.private import session_folder
with connect("local", cpus=1):
    print(session_folder(), flush=True)
    sys.stdin.read()
"""
WELL_BELOW_RAYS_MINUTE = 30


def gone(folder):
    end = time.monotonic() + WELL_BELOW_RAYS_MINUTE
    while processes_of(folder) and time.monotonic() < end:
        time.sleep(0.2)
    return not processes_of(folder)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "ended"])
def test_nothing_of_a_drivers_ray_is_left(how):
    driver = subprocess.Popen([sys.executable, "-c", DRIVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    folder = driver.stdout.readline().strip()
    assert len(processes_of(folder)) >= 2
    if how == "killed":
        os.kill(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert gone(folder), processes_of(folder)


def test_a_ray_that_does_not_say_its_folder_is_not_guarded(monkeypatch):
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a process was started"))
    with guarded(None):
        pass


def test_only_processes_of_the_session_are_ended(tmp_path):
    session = tmp_path / "session_1"

    def waiting(title, file, *options):
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w") as log:
            words = [title, "-c", "import sys; sys.stdin.read()", *options]
            return subprocess.Popen(words, executable=sys.executable, stdin=subprocess.PIPE, stderr=log)

    agent = waiting("ray::DashboardAgent", session / "logs/agent.err")
    older_agent = waiting("python", tmp_path / "none", f"--log-dir={session}/logs")
    others = (
        waiting("ray::DashboardAgent", tmp_path / "session_12/logs/agent.err"),
        waiting("tail", session / "log", f"{session}/log"),
    )
    assert sorted(processes_of(str(session))) == sorted([agent.pid, older_agent.pid])
    guard = subprocess.Popen([sys.executable, "-m", "barycenter.infra.ray.guard", session], stdin=subprocess.PIPE)
    guard.communicate()
    assert (agent.wait(), older_agent.wait()) == (-signal.SIGKILL, -signal.SIGKILL)
    for other in others:
        assert other.poll() is None
        other.communicate()
