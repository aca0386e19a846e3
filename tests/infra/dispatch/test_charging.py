"""What a failure costs a unit, a worker and the run: attempts, time limits, searches, on a simulated clock."""

import itertools

import pytest

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.clock import use_clock
from barycenter.infra.dispatch.api import Quarantined, Work
from barycenter.infra.dispatch.executor import Failure, WorkerAllocation
from barycenter.infra.dispatch.retry import Limits, RetryPolicy
from barycenter.infra.dispatch.scheduler import Scheduler
from barycenter.infra.dispatch.units import Attempts
from tests.infra.dispatch.poisoned import Poisoned, without_rows
from tests.infra.dispatch.test_simulated import Scripted, units
from tests.infra.simulation import Crash, Hang, SimulatedClock, SimulatedExecutor


@pytest.fixture
def clock():
    clock = SimulatedClock()
    with use_clock(clock):
        yield clock


class Timed(SimulatedExecutor):
    """Calls take what ``seconds_of`` says for their payload; notes what each worker was handed beside what."""

    def __init__(self, make, workers, clock, seconds_of=lambda payload: 1.0, concurrency=1):
        super().__init__(make, workers, clock)
        self.seconds_of, self.concurrency, self.handed = seconds_of, concurrency, []
        self.trials = self.checks = 0

    def check_alive(self):
        self.checks += 1

    def submit(self, worker, method, *args):
        beside = [self._calls[call].args[0] for call in worker.handle.calls]
        self.handed.append((args[0], beside))
        self.trials += method == "try_rows"
        return self._queue(worker.handle, method, args, self.seconds_of(args[0]))


def scheduled(executor, work, **options):
    done = []
    quarantined = Scheduler(work, executor, lambda unit, _: done.append(unit.id), **options).run()
    assert sorted(executor.started) == sorted(set(executor.killed)), "every worker is ended"
    return done, quarantined


def test_what_waits_behind_a_crash_is_not_charged(clock):
    no = ValueError("in passing")
    executor = Timed(lambda: Scripted(deeds), 1, clock)
    deeds = {0: [Crash()] * 3, 1: [no, no], 2: [no, no]}
    done, quarantined = scheduled(executor, units(3))
    assert executor.handed[:2] == [(0, []), (1, [0])]
    assert sorted(done) == ["1", "2"]
    assert quarantined == [Quarantined("0", 3, "its process died")]


def test_of_several_at_work_in_a_worker_that_dies_each_is_tried_by_itself(clock):
    deeds = {0: [Crash()] * 9}
    executor = Timed(lambda: Scripted(deeds), 1, clock, concurrency=2)
    done, quarantined = scheduled(executor, units(3))
    assert executor.handed[:2] == [(0, []), (1, [0])]
    assert all(not beside for payload, beside in executor.handed[2:] if payload in (0, 1))
    assert not any(0 in beside or 1 in beside for _, beside in executor.handed[2:])
    assert (sorted(done), quarantined) == (["1", "2"], [Quarantined("0", 3, "its process died")])
    assert len(deeds[0]) == 9 - 4, "the crash beside the other is not charged"


def test_the_time_limit_follows_the_slowest_rate_seen(clock):
    deeds = {2: [Hang()]}
    executor = Timed(lambda: Scripted(deeds), 1, clock)
    work = [Work("slow", 0, 1), Work("fast", 1, 100), Work("hung", 2, 100)]
    done, _ = scheduled(executor, work, limits=Limits(in_flight=1))
    assert done == ["slow", "fast", "hung"]
    assert 5 + 2 + 1300 <= clock.now <= 5 + 2 + 1300 + 8


def test_the_time_limit_of_a_unit_begins_when_the_one_before_it_ends(clock):
    executor = Timed(lambda: Scripted({}), 1, clock, lambda payload: 305.0)
    done, quarantined = scheduled(executor, units(4))
    assert (done, quarantined, len(executor.started)) == (["0", "1", "2", "3"], [], 1)


def test_failures_say_nothing_about_how_long_rows_take(clock):
    deeds = {0: [ValueError("quick")], 1: [Hang()]}
    executor = Timed(lambda: Scripted(deeds), 1, clock, lambda payload: 1e-3)
    scheduled(executor, [Work("failing", 0, 1000), Work("hung", 1, 1)], limits=Limits(in_flight=1))
    assert 310 <= clock.now <= 320


def test_rows_that_were_taken_over_say_nothing_about_how_long_rows_take(clock):
    class Encoding(Scripted):
        def run(self, payload):
            super().run(payload)
            return {"encoded": 0 if payload == 0 else 10}

    deeds = {2: [Hang()]}
    taken_over, encoded, hung = Work("taken over", 0, 1000), Work("encoded", 1, 100), Work("hung", 2, 100)
    executor = Timed(lambda: Encoding(deeds), 1, clock, lambda payload: 1e-3)
    scheduled(executor, [taken_over, hung], limits=Limits(in_flight=1))
    assert 1300 <= clock.now <= 1325
    deeds[2] = [Hang()]
    start = clock.now
    executor = Timed(lambda: Encoding(deeds), 1, clock, lambda payload: 1e-3 if payload != 1 else 2.0)
    scheduled(executor, [taken_over, encoded, hung], limits=Limits(in_flight=1))
    assert 2 + 900 <= clock.now - start <= 2 + 900 + 15


def test_a_unit_without_rows_may_take_as_long_as_a_start():
    limits = Limits(grace=1.0, slack=3.0, seconds_per_row=5.0, start=70.0)
    assert [limits.timeout(0), limits.timeout(2), limits.timeout(2, 1.0), limits.timeout(2, 9.0)] == [70, 11, 7, 11]


class PoisonedAndShaky(Poisoned):
    """Without its poisoned rows it fails a few times more."""

    def __init__(self, rows, more):
        super().__init__(rows, lambda: (_ for _ in ()).throw(ValueError("a row")))
        self.more = more

    def run(self, payload):
        count = super().run(payload)
        if self.more:
            self.more.pop()
            raise ValueError("in passing")
        return count


def test_a_unit_whose_rows_were_found_has_all_its_attempts_again(clock):
    def trials(more):
        worker = PoisonedAndShaky({5}, [1] * more)
        executor = Timed(lambda: worker, 1, clock)
        done, quarantined = scheduled(executor, [Work("bad", (8, ()), 8)], without_rows=without_rows)
        assert done == ["bad"]
        assert [each.rows for each in quarantined] == [(5,)]
        return executor.trials

    assert trials(0) == trials(2) > 0


def test_what_is_found_later_is_quarantined_beside_what_was_found_before(clock):
    class Changing(Poisoned):
        """Row 5 is poison at first, row 2 once that is gone."""

        def try_rows(self, payload, rows):
            self.rows = {2} if 5 in payload[1] else {5}
            return super().try_rows(payload, rows)

        def run(self, payload):
            self.rows = set() if {2, 5} <= set(payload[1]) else {2} if 5 in payload[1] else {5}
            return super().run(payload)

    def fail():
        raise ValueError("a row")

    executor = Timed(lambda: Changing(set(), fail), 1, clock)
    done, quarantined = scheduled(executor, [Work("bad", (8, ()), 8)], without_rows=without_rows)
    assert done == ["bad"]
    assert [(each.rows, each.id) for each in quarantined] == [((5,), "bad"), ((2,), "bad")]


class Whole:
    """Fails on all rows at once only, and counts."""

    def __init__(self, error):
        self.error, self.runs, self.trials = error, 0, 0

    def run(self, payload):
        self.runs += 1
        raise self.error

    def try_rows(self, payload, rows):
        self.trials += 1


@pytest.mark.parametrize(("searches", "runs", "trials"), [(1, 3 + 1, 2), (3, 3 + 1 + 1 + 1, 6)])
def test_a_unit_that_fails_only_whole_is_searched_so_often_and_given_up(clock, searches, runs, trials):
    worker = Whole(ValueError("all"))
    executor = Timed(lambda: worker, 1, clock)
    limits = Limits(searches=searches)
    done, quarantined = scheduled(executor, [Work("heavy", (8, ()), 8)], without_rows=without_rows, limits=limits)
    assert (done, quarantined) == ([], [Quarantined("heavy", runs, "ValueError: all")])
    assert (worker.runs, worker.trials) == (runs, trials)
    assert Limits().searches == 3


def test_a_unit_without_rows_is_not_searched(clock):
    worker = Whole(ValueError("all"))
    executor = Timed(lambda: worker, 1, clock)
    _, quarantined = scheduled(executor, [Work("empty", (0, ()), 0)], without_rows=without_rows)
    assert quarantined == [Quarantined("empty", 3, "ValueError: all")]
    assert worker.trials == 0


def test_storage_that_fails_in_a_trial_is_not_held_against_its_rows(clock):
    class Unlucky(PoisonedAndShaky):
        def try_rows(self, payload, rows):
            if executor.trials in (1, 3):
                raise ConnectionResetError("the wire")
            return super().try_rows(payload, rows)

    worker = Unlucky({5}, [])
    executor = Timed(lambda: worker, 1, clock)
    done, quarantined = scheduled(executor, [Work("bad", (8, ()), 8)], without_rows=without_rows)
    assert (done, [each.rows for each in quarantined]) == (["bad"], [(5,)])


@pytest.mark.parametrize("error", [RunError("full disk"), OSError(28, "full disk"), TimeoutError("full disk")])
def test_a_storage_fault_is_tried_again_and_ends_the_run_at_the_last_attempt(clock, error):
    done, _ = scheduled(Timed(lambda: Scripted({1: [error] * 2}), 1, clock), units(3))
    assert sorted(done) == ["0", "1", "2"]
    executor = Timed(lambda: Scripted({1: [error] * 3}), 1, clock)
    with pytest.raises(RunError, match="full disk"):
        scheduled(executor, units(3))
    assert sorted(executor.started) == sorted(set(executor.killed))


def test_only_what_is_needed_is_asked_for_and_started(clock):
    pulled, outstanding = [], []

    def source():
        for unit in units(40):
            pulled.append(unit)
            yield unit

    def on_done(unit, value):
        outstanding.append(len(pulled) - len(outstanding))

    executor = Timed(lambda: Scripted({}), 3, clock)
    assert Scheduler(source(), executor, on_done).run() == []
    assert max(outstanding) == 2 + 3 + 6, "at work, waiting behind these, in the queue"
    assert len(executor.started) == 3
    executor = Timed(lambda: Scripted({}), 3, clock)
    scheduled(executor, units(2))
    assert len(executor.started) == 2
    executor = Timed(lambda: Scripted({}), 3, clock)
    assert scheduled(executor, []) == ([], [])
    assert executor.started == []


def test_workers_that_find_nothing_left_are_ended_before_the_last_unit_is_done(clock):
    executor, ended = Timed(lambda: Scripted({}), 4, clock, lambda payload: 100.0 if payload == 0 else 1.0), []
    limits = Limits(in_flight=1)
    Scheduler(units(6), executor, lambda unit, _: ended.append((unit.id, len(executor.killed))), limits=limits).run()
    assert ended[-1] == ("0", 3)


def test_a_worker_that_died_is_replaced_while_others_work(clock):
    deeds = {1: [Crash()]}
    executor = Timed(lambda: Scripted(deeds), 2, clock, lambda payload: 200.0 if payload == 0 else 1.0)
    assert scheduled(executor, units(2)) == (["1", "0"], [])
    assert len(executor.started) == 3


def test_the_executor_is_looked_after_every_few_seconds_while_no_worker_works(clock):
    executor = Timed(lambda: Scripted({}), 1, clock, lambda payload: 100.0)
    executor._load_seconds = 30.0
    scheduled(executor, units(1))
    assert 9 <= executor.checks <= 11


def test_units_wait_behind_others_only_while_there_are_plenty(clock):
    executor = Timed(lambda: Scripted({}), 2, clock)
    scheduled(executor, units(9))
    assert any(beside for _, beside in executor.handed)
    assert executor.handed[-1][1] == []
    assert max(len(beside) for _, beside in executor.handed) == 1


def test_of_the_first_units_one_is_done_before_all_others_start(clock):
    for deeds, expected, given_up in (
        ({}, ["a", "0", "1"], []),
        ({"a": [ValueError("no")] * 3}, ["b", "0", "1"], []),
        ({"a": [ValueError("no")] * 3, "b": [ValueError("no")] * 3}, ["0", "1"], ["b"]),
    ):
        executor = Timed(lambda deeds=deeds: Scripted(deeds), 2, clock)
        first = [Work("a", "a", 0), Work("b", "b", 0)]
        done, quarantined = scheduled(executor, units(2), first=first)
        if given_up:
            assert (done, [each.id for each in quarantined]) == ([], given_up)
        else:
            assert (done, quarantined) == (expected, [])
            handed = [payload for payload, _ in executor.handed]
            assert handed.index(0) == handed.index(expected[0]) + 1


def test_losses_are_counted_in_a_row_and_more_workers_may_be_lost():
    for workers, most in ((1, 9), (3, 9), (4, 12), (10, 30)):
        policy = RetryPolicy(attempts=3, workers=workers)
        for _ in range(most - 1):
            policy.lost("gone")
        policy.succeeded()
        for _ in range(most - 1):
            policy.lost("gone")
        with pytest.raises(
            RunError, match=rf"^workers died {most} times in a row .* last: out of memory; remove the cause"
        ):
            policy.lost("out of memory")
    with pytest.raises(RunError, match="3 times"):
        list(map(RetryPolicy(attempts=1, workers=1).lost, itertools.repeat("gone", 3)))


def test_attempts_are_counted_and_a_last_one_can_be_left():
    policy, unit = RetryPolicy(attempts=3, workers=1), Attempts(Work("a", None, 1), 1)
    assert [policy.again(unit, None) for _ in range(3)] == [True, True, False]
    policy.once_more(unit)
    assert unit.failures == 2
    assert not policy.again(unit, None)
    full = Failure("disk full", environment=True)
    with pytest.raises(RunError, match=r"^disk full$"):
        policy.again(unit, full)
    assert not policy.again(unit, Failure("a row", environment=False))


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        (JobError("inputs.a", "wrong"), Failure("wrong", True, "inputs.a")),
        (RunError("storage"), Failure("storage", True)),
        (ConnectionResetError("cut"), Failure("ConnectionResetError: cut", True)),
        (OSError(28, "full"), Failure("OSError: [Errno 28] full", True)),
        (OSError("odd"), Failure("OSError: odd", False)),
        (ValueError("two\n  lines"), Failure("ValueError: two lines", False)),
        (MemoryError(), Failure("MemoryError", False)),
        (ValueError("x" * 600), Failure("ValueError: " + "x" * 500, False)),
    ],
)
def test_an_exception_is_the_surroundings_or_the_rows(error, failure):
    assert Failure.of(error) == failure


def test_a_failure_ends_the_run_as_the_error_that_it_was():
    assert isinstance(Failure("line", True, "key").error(), JobError)
    assert type(Failure("line", True).error()) is RunError


def test_a_worker_reserves_a_cpu_a_thread_unless_less_is_said():
    assert (WorkerAllocation(2, 3).cpus, WorkerAllocation(2, 3, cpus_per_worker=0.5).cpus) == (3, 0.5)
