import os
import signal
import subprocess
import sys

from barycenter.infra.versions.processes import describe_process, process_id, process_lives


def test_a_process_is_known_by_boot_container_number_and_start():
    own = process_id()
    place, number, start = own.rsplit("/", 2)
    assert process_lives(own)
    assert process_lives(f"{place}/{number}/{int(start) + 1}") is False
    assert process_lives(f"another-boot/pid:[1]/{number}/{start}") is None
    assert process_lives("") is None
    assert str(os.getpid()) in describe_process()


def test_a_process_that_ended_does_not_live_even_before_it_is_waited_for():
    code = "from barycenter.infra.versions.processes import process_id; print(process_id(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    own = process.stdout.readline().decode().strip()
    assert process_lives(own)
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert process_lives(own) is False
    process.wait()
    assert process_lives(own) is False


def test_a_process_of_another_user_lives_if_it_began_when_it_did(monkeypatch):
    def refused(number, signal):
        raise PermissionError

    own = process_id()
    place, start = own.rsplit("/", 1)
    monkeypatch.setattr(os, "kill", refused)
    assert process_lives(own)
    assert process_lives(f"{place}/{int(start) + 1}") is False


def test_a_stopped_process_may_or_may_not_live():
    code = "from barycenter.infra.versions.processes import process_id; print(process_id(), flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    own = process.stdout.readline().decode().strip()
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert process_lives(own) is None
    process.kill()
    process.wait()


def test_what_names_no_process_is_not_known():
    place = process_id().rsplit("/", 2)[0]
    assert process_lives(f"{place}/abc/1") is None
