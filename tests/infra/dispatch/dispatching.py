"""Dispatch on Ray actors or in this process, with limits of a test's own."""

from barycenter.infra.dispatch.in_process import InProcessExecutor
from barycenter.infra.dispatch.retry import Limits
from barycenter.infra.dispatch.scheduler import Scheduler
from barycenter.infra.ray.executor import RayExecutor


def dispatch(work, *, worker, args=(), allocation, name="test", on_done, without_rows=None, first=(), **limits):
    executor = RayExecutor(worker, args, allocation, name)
    return Scheduler(work, executor, on_done, without_rows, first, Limits(**limits)).run()


def dispatch_here(work, *, worker, args=(), on_done, without_rows=None, first=(), **limits):
    """For what the scheduler makes of a worker's answers, wherever they come from."""
    executor = InProcessExecutor(worker, args, 1)
    return Scheduler(work, executor, on_done, without_rows, first, Limits(**limits)).run()
