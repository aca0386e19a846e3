"""Work over the workers of an executor, owned by the driver: retry, replace, find the poison, quarantine."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from barycenter.fusion.errors import RunError
from barycenter.infra.dispatch.executor import Executor
from barycenter.infra.dispatch.pool import LostWorker
from barycenter.infra.dispatch.scheduler import Scheduler
from barycenter.infra.dispatch.shares import Share
from barycenter.infra.dispatch.units import Quarantined, Work

__all__ = ["Quarantined", "Work", "dispatch", "run_all"]


def dispatch(
    work: Iterable[Work],
    executor: Executor,
    *,
    on_done: Callable[[Work, Any], None],
    without_rows: Callable[[Work, tuple[int, ...]], Work] | None = None,
    first: Sequence[Work] = (),
    share: Share | None = None,
    on_lost: Callable[[LostWorker], None] | None = None,
    on_running: Callable[[int], None] | None = None,
) -> list[Quarantined]:
    """Runs every unit of work at least once to its end, or finds what in it cannot be done.

    A worker may die after it committed a unit and before it said so; the unit is then run again, so its results must
    be idempotent. ``on_done`` is called once for each unit.

    This is the only owner of retries: workers and their calls have none of the executor's own. A worker that dies
    (crash, kill) or exceeds its time is replaced; the unit it was at is charged an attempt and goes back to the queue,
    what waited behind it goes back free; where it was at several, each is tried by itself. Where its machine was lost,
    or had no memory left for several workers, nothing is charged, up to ten times. When the attempts are used up:

    * a storage or system fault (``RunError``, ``OSError``) ends the run: it says nothing against the rows;
    * anything else is held against the rows. With ``without_rows`` the guilty rows are found by bisection and
      quarantined, and the unit is done without them; otherwise the unit is quarantined whole.

    An exception from the worker's ``__init__`` ends the run at once. However the function ends, its workers are
    killed; workers that find the queue empty are released before.

    Args:
        work: Units of work, consumed as workers become free; nothing is kept of what is done.
        executor: Runs the workers.
        on_done: Called in the driver with each unit done (without its poisoned rows, if it had any) and what the
            worker's ``run`` returned, in order of completion.
        without_rows: A unit of work without some of its rows, numbered as in the original unit. The worker class then
            has ``try_rows``.
        first: Units of which one is done before ``work`` is asked for its first and before other workers start: the
            next is tried where the one before fails for good; only the last is then quarantined.
        share: The dispatch's part of the workers, where others run beside it.
        on_lost: Called with each worker that was lost.
        on_running: Called with the number of workers that have started, whenever it has changed.

    Returns:
        What was quarantined.

    Raises:
        RunError: A worker cannot be made, workers keep dying, storage fails, no worker starts.
        JobError: A worker found the job file wrong.
        StoppedError: The share's others ended.
    """
    return Scheduler(
        work, executor, on_done, without_rows, first, share=share, on_lost=on_lost, on_running=on_running
    ).run()


def run_all(work: Iterable[Work], executor: Executor, what: str, on_done: Callable[[Work, Any], None]) -> None:
    """Runs units of work that must all succeed; as :func:`dispatch`, but one that is given up ends the run.

    ``what`` names a unit in the message, before its id, such as ``block``.

    Raises:
        RunError: A unit failed as often as it may; the others were done before.
        JobError: A worker found the job file wrong.
    """
    failed = dispatch(work, executor, on_done=on_done)
    if failed:
        raise RunError(f"{what} {failed[0].id} failed {failed[0].attempts} times: {failed[0].detail}; run again")
