import os
import signal
import time
from pathlib import Path

import pytest
import ray

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.dispatch.api import Quarantined, Work
from barycenter.infra.dispatch.executor import WorkerAllocation
from tests.infra.dispatch.dispatching import dispatch, dispatch_here
from tests.infra.dispatch.poisoned import Poisoned, without_rows

ONE, TWO = WorkerAllocation(1, 1), WorkerAllocation(2, 1)


class Echo:
    def run(self, payload):
        return payload


class Once:
    """Does something terrible the first time it meets a payload; ``folder`` remembers."""

    def __init__(self, folder, deed):
        self.folder, self.deed = Path(folder), deed

    def run(self, payload):
        mark = self.folder / str(payload)
        if payload % 3 == 0 and not mark.exists():
            mark.touch()
            self.deed()
        return payload


class Loading:
    """Works once ``workers`` of its kind are there."""

    def __init__(self, folder, workers):
        self.folder, self.workers = Path(folder), workers
        (self.folder / f"load-{os.getpid()}").touch()

    def run(self, payload):
        assert wait_until(lambda: len(list(self.folder.glob("load-*"))) >= self.workers)
        return os.getpid()


class Heavy:
    """Fails on more than eight rows at once, whichever they are."""

    def run(self, payload):
        self.try_rows(payload, range(payload[0]))

    def try_rows(self, payload, rows):
        if len(rows) > 8:
            raise MemoryError


class Unloadable:
    def __init__(self, error):
        raise error

    def run(self, payload):
        pass


class Raising:
    def __init__(self, error):
        self.error = error

    def run(self, payload):
        raise self.error


class Environment:
    def run(self, payload):
        import torch

        return os.environ["OMP_NUM_THREADS"], torch.get_num_threads()


def crash():
    os._exit(1)


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def hang():
    time.sleep(600)


def fault():
    raise ConnectionResetError("the wire")


def bug():
    raise ValueError("a row it cannot take\nin two lines")


def run(numbers, worker, *args, allocation=TWO, **options):
    done = []
    work = (Work(f"shard-{number}", number, 1) for number in numbers)
    quarantined = dispatch(
        work, worker=worker, args=args, allocation=allocation, on_done=lambda w, v: done.append(v), **options
    )
    return done, quarantined


def run_here(numbers, worker, *args, **options):
    done = []
    work = (Work(f"shard-{number}", number, 1) for number in numbers)
    quarantined = dispatch_here(work, worker=worker, args=args, on_done=lambda w, v: done.append(v), **options)
    return done, quarantined


def wait_until(condition, seconds=600.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


def no_actor_is_left():
    return ray.util.list_named_actors() == []


def test_every_unit_is_done_once(ray_session):
    done, quarantined = run(range(200), Echo)
    assert sorted(done) == list(range(200))
    assert quarantined == []


def test_no_work_starts_no_worker():
    assert run_here([], Unloadable, ValueError()) == ([], [])


def test_each_worker_loads_once_and_no_more_start_than_there_is_work(ray_session, tmp_path):
    pids, _ = run(range(30), Loading, str(tmp_path), 2)
    assert len(list(tmp_path.iterdir())) == 2
    assert len(pids) == 30
    (tmp_path / "one").mkdir()
    run([1], Loading, str(tmp_path / "one"), 1)
    assert len(list((tmp_path / "one").iterdir())) == 1


def test_work_is_pulled_as_it_is_needed(ray_session):
    pulled, most = [], []

    def source():
        for number in range(40):
            pulled.append(number)
            yield Work(str(number), number, 1)

    done = []

    def on_done(work, value):
        done.append(value)
        most.append(len(pulled) - len(done))

    dispatch(source(), worker=Echo, allocation=TWO, name="test", on_done=on_done)
    assert len(done) == 40
    assert max(most) <= 8


@pytest.mark.parametrize("deed", [kill, fault, bug])
def test_nothing_is_lost_when_workers_die_or_fail_in_passing(ray_session, tmp_path, deed):
    done, quarantined = run(range(6), Once, str(tmp_path), deed)
    assert sorted(done) == list(range(6))
    assert quarantined == []


def test_a_hung_worker_is_replaced(ray_session, tmp_path):
    done, quarantined = run([0, 1], Once, str(tmp_path), hang, seconds_per_row=0.1, grace=1.0, allocation=ONE)
    assert sorted(done) == [0, 1]
    assert quarantined == []


def test_an_actor_killed_from_outside_is_replaced(ray_session, tmp_path):
    killed = []

    def on_done(work, pid):
        if not killed:
            killed.append(pid)
            os.kill(pid, signal.SIGKILL)
        done.append(work.payload)

    done = []
    work = [Work(str(number), number, 1) for number in range(20)]
    dispatch(work, worker=Loading, args=(str(tmp_path), 1), allocation=ONE, name="test", on_done=on_done)
    assert sorted(done) == list(range(20))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("deed", "words"),
    [pytest.param(crash, "its process died", marks=pytest.mark.slow), (bug, "ValueError: a row it cannot take in")],
)
def test_a_poisoned_row_is_found_and_the_rest_is_done(ray_session, deed, words):
    done = []
    work = [Work("good", (4, ()), 4), Work("bad", (8, ()), 8)]
    quarantined = dispatch(
        work,
        worker=Poisoned,
        args=((5,), deed),
        allocation=ONE,
        name="test",
        on_done=lambda w, value: done.append((w.id, value)),
        without_rows=without_rows,
        attempts=1,
    )
    assert sorted(done) == [("bad", 7), ("good", 4)]
    assert [(each.id, each.rows) for each in quarantined] == [("bad", (5,))]
    assert words in quarantined[0].detail


def test_several_poisoned_rows_are_found():
    rows = (0, 17, 18, 63)
    done = []
    quarantined = dispatch_here(
        [Work("bad", (64, ()), 64)],
        worker=Poisoned,
        args=(rows, bug),
        on_done=lambda w, value: done.append(value),
        without_rows=without_rows,
    )
    assert done == [60]
    assert [each.rows for each in quarantined] == [rows]


def test_without_a_search_the_unit_is_quarantined_whole():
    done, quarantined = run_here([1, 2], Raising, ValueError("never"), attempts=2)
    assert done == []
    assert sorted(quarantined, key=lambda each: each.id) == [
        Quarantined("shard-1", 2, "ValueError: never"),
        Quarantined("shard-2", 2, "ValueError: never"),
    ]


def test_a_unit_that_only_fails_whole_is_quarantined_whole():
    quarantined = dispatch_here(
        [Work("heavy", (16, ()), 16)],
        worker=Heavy,
        on_done=lambda w, value: pytest.fail("done?"),
        without_rows=without_rows,
    )
    assert [(each.id, each.rows) for each in quarantined] == [("heavy", ())]


@pytest.mark.parametrize("error", [ValueError("weights do not fit\nat all"), RunError("weights do not fit at all")])
def test_a_worker_that_cannot_be_made_ends_the_run_in_one_line(ray_session, error):
    with pytest.raises(RunError, match=r"weights do not fit at all$"):
        run(range(5), Unloadable, error)


def test_a_wrong_job_file_found_by_a_worker_stays_one(ray_session):
    with pytest.raises(JobError, match=r"^inputs\.image\.weights: no$"):
        run(range(5), Unloadable, JobError("inputs.image.weights", "no"))
    with pytest.raises(JobError, match=r"^inputs\.image\.column: no$"):
        run(range(5), Raising, JobError("inputs.image.column", "no"))


@pytest.mark.parametrize("error", [RunError("no space left on /x"), OSError(28, "no space left")])
def test_a_storage_fault_ends_the_run_and_blames_no_row(error):
    with pytest.raises(RunError, match="no space left"):
        run_here(range(5), Raising, error)


def test_workers_that_keep_dying_end_the_run(ray_session):
    with pytest.raises(RunError, match="workers died 3 times in a row without finishing anything; last: its process"):
        run([(4, ())] * 9, Poisoned, (0, 1, 2, 3), crash, allocation=ONE, attempts=1)


def test_workers_that_die_loading_end_the_run(ray_session):
    class Dying:
        def __init__(self):
            os._exit(1)

        def run(self, payload):
            pass

    with pytest.raises(RunError, match="workers died"):
        run([1], Dying, allocation=ONE, attempts=1)


def test_workers_that_cannot_be_placed_are_one_line(ray_session):
    with pytest.raises(RunError, match=r"no worker started within .* each needs 99 CPUs .* the cluster has 2"):
        run([1], Echo, allocation=WorkerAllocation(1, 99), start=1)


def test_an_error_in_the_driver_leaves_no_actor(ray_session, tmp_path):
    def fail(work, value):
        assert [name for name in ray.util.list_named_actors() if name.startswith("test-")]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dispatch([Work("a", 1, 1)] * 9, worker=Echo, allocation=TWO, name="test", on_done=fail)
    assert wait_until(no_actor_is_left)


def test_threads_are_pinned_before_libraries_load(ray_session):
    (seen,), _ = run([1], Environment, allocation=WorkerAllocation(1, 2))
    assert seen == ("2", 2)
    (seen,), _ = run([1], Environment, allocation=WorkerAllocation(1, 1))
    assert seen == ("1", 1)


def test_the_second_of_the_first_units_is_tried_where_the_first_fails_and_the_last_is_quarantined():
    def dispatched(first):
        done = []
        quarantined = dispatch_here(
            [Work("rest", (2, ()), 2)], worker=Poisoned, args=((5,), bug),
            on_done=lambda w, value: done.append(w.id), attempts=1, first=first,
        )  # fmt: skip
        return done, [each.id for each in quarantined]

    bad, good = Work("bad", (8, ()), 0), Work("good", (4, ()), 0)
    assert dispatched([bad, good, bad]) == (["good", "rest"], [])
    assert dispatched([bad, bad]) == ([], ["bad"])


class Unreadable:
    """Fails whichever the rows: the shard cannot be read; counts the trials."""

    def __init__(self, folder):
        self.folder = Path(folder)

    def run(self, payload):
        raise MemoryError

    def try_rows(self, payload, rows):
        (self.folder / f"trial-{time.monotonic_ns()}").touch()
        raise MemoryError


def test_a_shard_that_fails_whichever_the_rows_is_given_up_after_five_trials(tmp_path):
    quarantined = dispatch_here(
        [Work("whole", (4096, ()), 4096)], worker=Unreadable, args=(str(tmp_path),),
        on_done=lambda w, value: pytest.fail("done?"), without_rows=without_rows, attempts=1,
    )  # fmt: skip
    assert [(each.id, each.rows) for each in quarantined] == [("whole", ())]
    assert len(list(tmp_path.iterdir())) == 5
