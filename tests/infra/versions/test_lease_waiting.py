"""Who finds an output held: whom it waits for, and when it takes over."""

import os
import pickle
import signal
import subprocess
import sys

import pytest

from barycenter.fusion.errors import BusyError, RunError
from barycenter.infra.clock import use_clock
from barycenter.infra.storage import Storage
from barycenter.infra.versions import lease as leases
from barycenter.infra.versions.lease import (
    COLLECTOR_PATIENCE,
    RENEWALS,
    TERM_SECONDS,
    acquire,
    hold,
    newest_term,
    observe_holder,
    wait_while_deleting,
)
from tests.infra.simulation import SimulatedClock


def test_a_holder_without_a_new_term_is_given_up_after_the_time_of_one(tmp_path, clock, caplog):
    storage = Storage(str(tmp_path))
    first = acquire(storage, "run a")
    second = acquire(storage, "run b")
    assert TERM_SECONDS <= clock.now < TERM_SECONDS + 1
    assert "taken over from run a" in caplog.text
    assert (second.previous, second.unfenced) == (first.number, True)
    before = storage.list("lease")
    first.renew()
    first.release()
    assert storage.list("lease") == before
    with pytest.raises(RunError, match="too slow to renew"):
        first.check()
    second.check()


def test_a_holder_that_renews_is_waited_for(tmp_path, clock, caplog):
    storage = Storage(str(tmp_path))
    first, real = acquire(storage, "run a"), clock.sleep

    def sleep(seconds):
        real(seconds)
        if clock.now > 10 * TERM_SECONDS:
            first.release()
        elif clock.now % (TERM_SECONDS / RENEWALS) < seconds:
            first.renew()

    clock.sleep = sleep
    second = acquire(storage, "run b")
    assert not second.unfenced
    assert 10 * TERM_SECONDS < clock.now < 11 * TERM_SECONDS
    said = [line for line in caplog.messages if line.startswith("waiting for")]
    assert "held by run a" in said[0]
    assert len(said) == 1 + 10, "at once and then every minute"


def test_a_holder_that_deletes_is_waited_for_longer(tmp_path, clock):
    storage = Storage(str(tmp_path))
    acquire(storage, "gc", deletes=True)
    assert acquire(storage, "run").unfenced
    assert clock.now >= COLLECTOR_PATIENCE * TERM_SECONDS


def test_that_a_holder_was_given_up_stays_known_until_there_is_a_fence(tmp_path, clock):
    storage = Storage(str(tmp_path))
    acquire(storage, "killed")
    second = acquire(storage, "run")
    second.renew()
    second.release()
    third = acquire(storage, "gc")
    assert second.unfenced
    assert third.unfenced
    third.renew(fenced=True)
    assert not third.unfenced
    third.release()
    assert not acquire(storage, "run").unfenced


@pytest.mark.parametrize("busy", ["skip", "fail"])
def test_who_does_not_wait_looks_only_until_the_holder_renews(tmp_path, clock, busy):
    storage = Storage(str(tmp_path))
    first, real = acquire(storage, "run a"), clock.sleep

    def sleep(seconds):
        real(seconds)
        if clock.now % (TERM_SECONDS / RENEWALS) < seconds:
            first.renew()

    clock.sleep = sleep
    with pytest.raises(BusyError, match="held by run a") as caught:
        acquire(storage, "run b", busy=busy)
    assert caught.value.skip == (busy == "skip")
    advice = "nothing was done" if busy == "skip" else "try again later, or wait for it (busy: wait)"
    assert str(caught.value).endswith(f"; {advice}")
    assert pickle.loads(pickle.dumps(caught.value)).skip == caught.value.skip  # noqa: S301 - our own
    assert clock.now < 2 * TERM_SECONDS / RENEWALS
    first.check()


@pytest.mark.parametrize("busy", ["skip", "fail"])
def test_who_does_not_wait_takes_over_from_a_holder_that_is_gone(tmp_path, clock, busy):
    storage = Storage(str(tmp_path))
    acquire(storage, "killed")
    assert acquire(storage, "run", busy=busy).unfenced


def test_a_living_process_of_this_machine_is_known_at_once(tmp_path):
    storage = Storage(str(tmp_path))
    acquire(storage, "run a")
    with use_clock(SimulatedClock()) as _, pytest.raises(BusyError):
        acquire(storage, "run b", busy="fail")


_HOLD = """
import sys, time
from barycenter.infra.storage import Storage
from barycenter.infra.versions.lease import acquire
acquire(Storage(sys.argv[1]), "run that is killed")
print("held", flush=True)
time.sleep(600)
"""


def test_a_killed_process_of_this_machine_is_given_up_at_once(tmp_path):
    storage = Storage(str(tmp_path))
    process = subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert process.stdout.readline() == b"held\n"
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and still a zombie
        clock = SimulatedClock()
        with use_clock(clock):
            assert acquire(storage, "next").unfenced
        assert clock.now < TERM_SECONDS
    finally:
        process.kill()
        process.wait()


def test_a_killed_process_that_deletes_on_a_remote_storage_is_waited_for(tmp_path, monkeypatch):
    """What it sent last may still come."""
    monkeypatch.setattr(Storage, "is_local", False)
    monkeypatch.setattr(leases, "process_lives", lambda process: False)
    for deletes, patience in ((False, 0), (True, COLLECTOR_PATIENCE * TERM_SECONDS)):
        storage, clock = Storage(str(tmp_path / str(deletes))), SimulatedClock()
        with use_clock(clock):
            acquire(storage, "killed", deletes=deletes)
            begin = clock.now
            acquire(storage, "next")
        assert patience <= clock.now - begin < patience + TERM_SECONDS


def test_a_killed_process_that_deletes_on_a_disk_is_given_up_at_once(tmp_path, clock, monkeypatch):
    """Nothing of what it did can still come."""
    storage = Storage(str(tmp_path))
    acquire(storage, "gc", deletes=True)
    monkeypatch.setattr(leases, "process_lives", lambda process: False)
    assert acquire(storage, "run").unfenced
    assert clock.now == 0


@pytest.mark.parametrize("deletes", [True, False])
def test_an_output_stays_held_where_a_deletion_may_still_come(tmp_path, monkeypatch, deletes, caplog):
    storage, unanswered = Storage(str(tmp_path)), [1]
    monkeypatch.setattr(Storage, "unanswered_deletions", property(lambda _: unanswered[0]))
    with hold(storage, "before", deletes=True):
        pass
    assert newest_term(storage).released, "what was sent before it was held"
    with hold(storage, "gc", deletes=deletes):
        unanswered[0] += 1
    assert newest_term(storage).released != deletes
    assert ("whoever is next here waits for 10 minutes" in caplog.text) == deletes


def test_only_a_holder_that_deletes_is_waited_for(tmp_path, clock):
    storage = Storage(str(tmp_path))
    wait_while_deleting(storage)
    acquire(storage, "run").release()
    wait_while_deleting(storage)
    assert clock.now == 0
    collector, real = acquire(storage, "gc", deletes=True), clock.sleep

    def sleep(seconds):
        real(seconds)
        collector.renew()
        if clock.now > 5:
            collector.release()

    clock.sleep = sleep
    wait_while_deleting(storage)
    assert 5 < clock.now < 10
    with hold(storage, "run"):
        before = clock.now
        wait_while_deleting(storage)
        assert clock.now == before
    acquire(storage, "gc", deletes=True)
    clock.sleep = real
    wait_while_deleting(storage)
    assert clock.now >= COLLECTOR_PATIENCE * TERM_SECONDS


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"number": 1}', b"not JSON"])
def test_a_lease_that_cannot_be_read_is_waited_out_like_one_that_is_not_renewed(tmp_path, clock, caplog, content):
    storage = Storage(str(tmp_path))
    acquire(storage, "before").release()
    storage.write("lease/7.json", content)
    lease = acquire(storage, "run")
    assert "held by a lease that cannot be read (unknown, since an unknown time)" in caplog.text
    assert clock.now >= TERM_SECONDS
    assert (lease.previous, lease.unfenced) == (7, True)


def test_who_waits_takes_the_output_within_a_second_of_its_release(tmp_path, clock):
    storage = Storage(str(tmp_path))
    first, real, released_at = acquire(storage, "run a"), clock.sleep, 2.5

    def sleep(seconds):
        if clock.now <= released_at < clock.now + seconds:
            first.release()
        real(seconds)

    clock.sleep = sleep
    acquire(storage, "run b")
    assert clock.now <= released_at + 1


class TestObserveHolder:
    def test_nobody_holds_it(self, storage):
        assert observe_holder(storage) == (None, None)
        acquire(storage, "run emoji").release()
        term, alive = observe_holder(storage, watch=True)
        assert term.released
        assert alive is None

    def test_a_process_of_this_machine_is_looked_at(self, storage, monkeypatch):
        lease = acquire(storage, "run emoji")
        assert observe_holder(storage) == (newest_term(storage), True)
        monkeypatch.setattr(leases, "process_lives", lambda process: False)
        assert observe_holder(storage, watch=True) == (newest_term(storage), False)
        assert lease.number == 1

    def test_another_machines_is_known_by_its_next_term(self, tmp_path, clock):
        storage = Storage(str(tmp_path))
        lease = acquire(storage, "run emoji")
        assert observe_holder(storage) == (newest_term(storage), None)
        clock.sleep = lambda seconds: (setattr(clock, "now", clock.now + seconds), lease.renew())
        assert observe_holder(storage, watch=True) == (newest_term(storage), True)
        clock.sleep = lambda seconds: lease.release()
        term, alive = observe_holder(storage, watch=True)
        assert term.released
        assert alive is None

    def test_without_one_it_counts_as_gone_after_the_time_of_a_term(self, tmp_path, clock):
        storage = Storage(str(tmp_path))
        acquire(storage, "run emoji")
        before = clock.now
        assert observe_holder(storage, watch=True) == (newest_term(storage), False)
        assert clock.now - before == TERM_SECONDS
