"""Workers as Ray actors, without the scheduler."""

import logging
import os
import warnings
from pathlib import Path

import ray

from barycenter.infra.dispatch.executor import Done, Failure, Lost, WorkerAllocation
from barycenter.infra.logs import bound
from barycenter.infra.ray.executor import RayExecutor


class SortingWorker:
    def run(self, payload):
        if payload == "die":
            os._exit(1)
        return sorted(payload)

    def log(self):
        logging.getLogger("barycenter.fusion.encoders").info("a model of %d parts", 3)
        logging.getLogger("library").info("of no interest")
        with bound(shard="s1"):
            for number in range(9):
                logging.getLogger("library").warning("slow\nrow %d", number)
                warnings.warn(f"tag {number} is odd", stacklevel=1)

    def shown(self):
        return Path("/proc/self/cmdline").read_text(), ray.get_runtime_context().get_actor_name()


def outcome(executor, call):
    assert executor.wait([call], 60) == [call]
    return executor.outcome(call)


def test_calls_end_in_a_value_a_failure_or_the_loss_of_the_worker(ray_session):
    executor = RayExecutor(SortingWorker, (), WorkerAllocation(1, 1), "job-sort")
    worker = executor.start()
    assert outcome(executor, worker.loading) == Done(ray.get_runtime_context().get_node_id())
    assert outcome(executor, executor.submit(worker, "run", "cab")) == Done(["a", "b", "c"])
    failure = outcome(executor, executor.submit(worker, "run", 3))
    assert isinstance(failure, Failure)
    assert failure.line.startswith("TypeError: ")
    title, name = outcome(executor, executor.submit(worker, "shown")).value
    assert title.startswith("ray::SortingWorker"), "Ray's tools show what an actor does"
    assert name == worker.name
    assert name.startswith("job-sort-")
    lost = outcome(executor, executor.submit(worker, "run", "die"))
    assert isinstance(lost, Lost)
    assert "its process died" in lost.why
    executor.kill(worker)
    executor.check_alive()
    assert executor.shortage().startswith("each needs 1 CPUs and 0 GPUs, the cluster has 2 and 0")


def test_what_a_worker_logs_is_logged_by_the_driver(ray_session, caplog):
    executor = RayExecutor(SortingWorker, (), WorkerAllocation(1, 1), "job-log")
    worker = executor.start()
    with caplog.at_level(logging.INFO):
        outcome(executor, worker.loading)
        assert outcome(executor, executor.submit(worker, "log")) == Done(None)
    by = f" (worker {worker.name})"
    lines = [record for record in caplog.records if worker.name in record.message]
    warned = [record for record in lines if record.name == "py.warnings"]
    assert len(warned) == 5
    assert "UserWarning: tag 0 is odd" in warned[0].message
    ours, *others, more = [record for record in lines if record not in warned]
    assert (ours.levelname, ours.message) == ("INFO", "a model of 3 parts" + by)
    assert [record.message for record in others] == [f"slow row {number}{by}" for number in range(5)], "a few of a kind"
    assert {(record.name, record.levelname, record.shard) for record in others} == {("library", "WARNING", "s1")}
    assert more.message.startswith(f"worker {worker.name} logged 8 lines more")
    executor.kill(worker)
