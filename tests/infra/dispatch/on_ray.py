"""Dispatch on Ray actors, with limits of a test's own."""

from barycenter.infra.dispatch.retry import Limits
from barycenter.infra.dispatch.scheduler import Scheduler
from barycenter.infra.ray.executor import RayExecutor


def dispatch(work, *, worker, args=(), allocation, name="test", on_done, without_rows=None, first=(), **limits):
    executor = RayExecutor(worker, args, allocation, name)
    return Scheduler(work, executor, on_done, without_rows, first, Limits(**limits)).run()
