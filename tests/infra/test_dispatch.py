import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import ray

from fusion.errors import JobError, RunError
from infra._hunt import MOST_PROBES, Hunt
from infra.cluster import WorkerPlan
from infra.dispatch import Quarantined, Work, dispatch

ONE, TWO = WorkerPlan(1, 1), WorkerPlan(2, 1)


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
    def __init__(self, folder):
        (Path(folder) / f"load-{os.getpid()}").touch()

    def run(self, payload):
        time.sleep(0.02)
        return os.getpid()


class Poisoned:
    """Dies of, or raises at, certain rows."""

    def __init__(self, rows, deed):
        self.rows, self.deed = set(rows), deed

    def run(self, payload):
        number, skip = payload
        self.probe(payload, tuple(row for row in range(number) if row not in skip))
        return number - len(skip)

    def probe(self, payload, rows):
        if self.rows & set(rows):
            self.deed()


class Heavy:
    """Fails on more than eight rows at once, whichever they are."""

    def run(self, payload):
        self.probe(payload, range(payload[0]))

    def probe(self, payload, rows):
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


def without_rows(work, rows):
    number, skip = work.payload
    return Work(work.id, (number, skip + rows), work.rows)


def run(numbers, worker, *args, plan=TWO, rows=1, **options):
    done = []
    work = (Work(f"shard-{number}", number, rows) for number in numbers)
    quarantined = dispatch(
        work, worker=worker, args=args, plan=plan, name="test", on_done=lambda w, v: done.append(v), **options
    )
    return done, quarantined


def no_actor_is_left():
    from ray.util.state import list_actors  # noqa: F401 - needs the dashboard; the process table will do

    names = [" ".join(process.info["cmdline"] or []) for process in psutil.process_iter(["cmdline"])]
    return not any("ray::Host" in name for name in names)


def test_every_unit_is_done_once(ray_session):
    done, quarantined = run(range(200), Echo)
    assert sorted(done) == list(range(200))
    assert quarantined == []


def test_no_work_starts_no_worker(ray_session):
    assert run([], Unloadable, ValueError()) == ([], [])


def test_each_worker_loads_once_and_no_more_start_than_there_is_work(ray_session, tmp_path):
    pids, _ = run(range(30), Loading, str(tmp_path))
    assert len(list(tmp_path.iterdir())) == 2
    assert len(pids) == 30
    (tmp_path / "one").mkdir()
    run([1], Loading, str(tmp_path / "one"))
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

    dispatch(source(), worker=Echo, plan=TWO, name="test", on_done=on_done)
    assert len(done) == 40
    assert max(most) <= 8


@pytest.mark.parametrize("deed", [crash, kill, fault, bug])
def test_nothing_is_lost_when_workers_die_or_fail_in_passing(ray_session, tmp_path, deed):
    done, quarantined = run(range(12), Once, str(tmp_path), deed)
    assert sorted(done) == list(range(12))
    assert quarantined == []


def test_a_hung_worker_is_replaced(ray_session, tmp_path):
    done, quarantined = run(range(4), Once, str(tmp_path), hang, seconds_per_row=0.1, grace=1.5)
    assert sorted(done) == list(range(4))
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
    dispatch(work, worker=Loading, args=(str(tmp_path),), plan=TWO, name="test", on_done=on_done)
    assert sorted(done) == list(range(20))
    assert len(list(tmp_path.iterdir())) == 3


@pytest.mark.parametrize(("deed", "words"), [(crash, "its process died"), (bug, "ValueError: a row it cannot take in")])
def test_a_poisoned_row_is_found_and_the_rest_is_done(ray_session, deed, words):
    seen, done = [], []
    work = [Work("good", (4, ()), 4), Work("bad", (16, ()), 16)]
    quarantined = dispatch(
        work,
        worker=Poisoned,
        args=((5,), deed),
        plan=TWO,
        name="test",
        on_done=lambda w, value: done.append((w.id, value)),
        on_quarantine=seen.append,
        without_rows=without_rows,
        attempts=2,
    )
    assert sorted(done) == [("bad", 15), ("good", 4)]
    assert [(each.id, each.rows) for each in quarantined] == [("bad", (5,))]
    assert words in quarantined[0].detail
    assert seen == quarantined


def test_several_poisoned_rows_are_found(ray_session):
    rows = (0, 17, 18, 63)
    done = []
    quarantined = dispatch(
        [Work("bad", (64, ()), 64)],
        worker=Poisoned,
        args=(rows, bug),
        plan=ONE,
        name="test",
        on_done=lambda w, value: done.append(value),
        without_rows=without_rows,
    )
    assert done == [60]
    assert [each.rows for each in quarantined] == [rows]


def test_without_probe_the_unit_is_quarantined_whole(ray_session):
    done, quarantined = run([1, 2], Raising, ValueError("never"), attempts=2)
    assert done == []
    assert sorted(quarantined, key=lambda each: each.id) == [
        Quarantined("shard-1", 2, "ValueError: never"),
        Quarantined("shard-2", 2, "ValueError: never"),
    ]


def test_a_unit_that_only_fails_whole_is_quarantined_whole(ray_session):
    quarantined = dispatch(
        [Work("heavy", (16, ()), 16)],
        worker=Heavy,
        plan=ONE,
        name="test",
        on_done=lambda w, value: pytest.fail("done?"),
        without_rows=without_rows,
    )
    assert [(each.id, each.rows) for each in quarantined] == [("heavy", ())]


@pytest.mark.parametrize("error", [ValueError("weights do not fit\nat all"), RunError("weights do not fit at all")])
def test_a_worker_that_cannot_be_made_ends_the_run_in_one_line(ray_session, error):
    with pytest.raises(RunError, match="weights do not fit at all$"):
        run(range(5), Unloadable, error)


def test_a_wrong_job_file_found_by_a_worker_stays_one(ray_session):
    with pytest.raises(JobError, match="^inputs.image.weights: no$"):
        run(range(5), Unloadable, JobError("inputs.image.weights", "no"))
    with pytest.raises(JobError, match="^inputs.image.column: no$"):
        run(range(5), Raising, JobError("inputs.image.column", "no"))


@pytest.mark.parametrize(
    "error", [RunError("no space left on /x; free some and run again"), OSError(28, "no space left")]
)
def test_a_storage_fault_ends_the_run_and_blames_no_row(ray_session, error):
    with pytest.raises(RunError, match="no space left"):
        run(range(5), Raising, error)


def test_workers_that_keep_dying_end_the_run(ray_session):
    with pytest.raises(RunError, match="workers died 9 times in a row without finishing anything; last: its process"):
        dispatch(
            [Work(str(number), (4, ()), 4) for number in range(20)],
            worker=Poisoned,
            args=((0, 1, 2, 3), crash),
            plan=ONE,
            name="test",
            on_done=lambda w, value: None,
            attempts=3,
        )


def test_workers_that_die_loading_end_the_run(ray_session):
    class Dying:
        def __init__(self):
            os._exit(1)

        def run(self, payload):
            pass

    with pytest.raises(RunError, match="workers died"):
        run([1], Dying, plan=ONE, attempts=1)


def test_workers_that_cannot_be_placed_are_one_line(ray_session):
    with pytest.raises(RunError, match="no worker started within .* each needs 99 CPUs .* the cluster has 2"):
        run([1], Echo, plan=WorkerPlan(1, 99), start_timeout=1)


def test_an_error_in_the_driver_leaves_no_actor(ray_session, tmp_path):
    def fail(work, value):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dispatch([Work("a", 1, 1)] * 9, worker=Echo, plan=TWO, name="test", on_done=fail)
    assert wait_until(no_actor_is_left)


def test_threads_are_pinned_before_libraries_load(ray_session):
    (seen,), _ = run([1], Environment, plan=WorkerPlan(1, 2))
    assert seen == ("2", 2)
    (seen,), _ = run([1], Environment, plan=WorkerPlan(1, 1))
    assert seen == ("1", 1)


def wait_until(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return False


SIGNALLED = """
import os, sys, time
from pathlib import Path
from infra.cluster import WorkerPlan, connect
from infra.dispatch import Work, dispatch

class Sleeper:
    def run(self, folder):
        Path(folder, str(os.getpid())).touch()
        time.sleep(600)

with connect(sys.argv[1]):
    dispatch([Work(str(n), sys.argv[2], 1) for n in range(4)], worker=Sleeper, plan=WorkerPlan(2, 1), name="sleep",
             on_done=lambda work, value: None)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_driver(ray_session, tmp_path, number):
    address = ray.get_runtime_context().gcs_address
    driver = subprocess.Popen([sys.executable, "-c", SIGNALLED, address, str(tmp_path)], stderr=subprocess.PIPE)
    try:
        assert wait_until(lambda: len(list(tmp_path.iterdir())) == 2, 60)
        pids = [int(path.name) for path in tmp_path.iterdir()]
        driver.send_signal(number)
        assert driver.wait(15) != 0
        assert wait_until(lambda: not any(psutil.pid_exists(pid) for pid in pids))
    finally:
        driver.kill()
        driver.communicate()


GPUS = """
import json, os, sys, time
from pathlib import Path
import ray
from infra.cluster import connect
from infra.dispatch import Work, dispatch

class Model:
    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / str(os.getpid())).write_text(os.environ["CUDA_VISIBLE_DEVICES"])
    def run(self, payload):
        while len(list(self.folder.iterdir())) < 4:
            time.sleep(0.05)
        return os.getpid(), os.environ["CUDA_VISIBLE_DEVICES"], ray.get_gpu_ids()

with connect("local", cpus=2, gpus=2) as cluster:
    plan = cluster.split(gpus=0.5)
    done = []
    dispatch([Work(str(n), None, 1) for n in range(24)], worker=Model, args=(sys.argv[1],), plan=plan, name="gpu",
             on_done=lambda work, value: done.append(value))
    print(json.dumps([plan.workers, plan.threads, done]))
"""


@pytest.mark.slow
def test_four_workers_share_two_gpus(tmp_path):
    import json

    script = [sys.executable, "-c", GPUS, str(tmp_path)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    workers, threads, results = json.loads(done.stdout)
    assert (workers, threads, len(results)) == (4, 1, 24)
    loaded = {int(path.name): path.read_text() for path in tmp_path.iterdir()}
    assert sorted(loaded.values()) == ["0", "0", "1", "1"]
    for pid, visible, ids in results:
        assert loaded[pid] == visible == str(ids[0])


NODES = """
import json, os, sys, time
from pathlib import Path
import ray
from ray.cluster_utils import Cluster
from infra.cluster import connect
from infra.dispatch import Work, dispatch

class Slow:
    def run(self, payload):
        time.sleep(0.3)
        return ray.get_runtime_context().get_node_id()

nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
second = nodes.add_node(num_cpus=1)
nodes.wait_for_nodes()
done, where = [], []
def on_done(work, node):
    done.append(work.payload)
    where.append(node)
    if second.node_id in where and second in nodes.worker_nodes:
        nodes.remove_node(second, allow_graceful=False)
with connect(nodes.address) as cluster:
    plan = cluster.split(threads=1)
    quarantined = dispatch([Work(str(n), n, 1) for n in range(20)], worker=Slow, plan=plan, name="nodes",
                           on_done=on_done)
    print(json.dumps([plan.workers, sorted(done), len(set(where)), len(quarantined)]))
nodes.shutdown()
"""


@pytest.mark.slow
def test_a_lost_node_loses_no_work():
    import json

    done = subprocess.run([sys.executable, "-c", NODES], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [2, list(range(20)), 2, 0]


def hunt(number, guilty):
    search, probes = Hunt.over(range(number)), 0
    while rows := search.next_probe():
        probes += 1
        search.told(rows, failed=bool(set(rows) & set(guilty)))
    return search, probes


def test_bisection_finds_few_rows_with_few_probes():
    search, probes = hunt(4096, [1234])
    assert search.guilty == [1234]
    assert probes <= 2 * 12 + 2
    search, _ = hunt(1, [0])
    assert search.guilty == [0]
    search, probes = hunt(4096, [])
    assert (search.guilty, probes) == ([], 2)


def test_bisection_gives_up_when_all_rows_are_guilty():
    search, probes = hunt(4096, range(4096))
    assert search.gave_up
    assert probes == MOST_PROBES


def test_a_row_that_failed_once_is_not_guilty():
    search, failed = Hunt.over(range(8)), set()
    while rows := search.next_probe():
        unlucky = 3 in rows and (len(rows) > 1 or 3 not in failed)
        if rows == (3,):
            failed.add(3)
        search.told(rows, unlucky)
    assert search.guilty == []
