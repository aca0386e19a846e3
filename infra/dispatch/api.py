"""Work over Ray actors, owned by the driver: requeue, replace, find the poison, quarantine."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from barycenter.infra.dispatch.scheduler import Driver
from barycenter.infra.dispatch.units import Limits, Quarantined, Work, Worker
from barycenter.infra.ray.connection import WorkerPlan

__all__ = ["Quarantined", "Work", "Worker", "dispatch"]


def dispatch(
    work: Iterable[Work],
    *,
    worker: type[Worker],
    args: tuple[Any, ...] = (),
    plan: WorkerPlan,
    name: str,
    on_done: Callable[[Work, Any], None],
    on_quarantine: Callable[[Quarantined], None] | None = None,
    without_rows: Callable[[Work, tuple[int, ...]], Work] | None = None,
    attempts: int = 3,
    seconds_per_row: float | None = 10.0,
    grace: float = 300.0,
    max_in_flight: int = 2,
    start_timeout: float = 1800.0,
    first: Sequence[Work] = (),
) -> list[Quarantined]:
    """Runs every unit of work once, come what may, on actors of one worker class.

    This is the only owner of retries: actors and their tasks have none of Ray's own. A worker that dies (crash, out of
    memory, node lost) or exceeds its time is replaced; the unit it was at is charged an attempt and goes back to the
    queue, what waited behind it goes back free; where it was at several, each is tried by itself. When the attempts
    are used up:

    * a storage or system fault (``RunError``, ``OSError``) ends the run: it says nothing against the rows;
    * anything else is held against the rows. If the worker class has ``probe`` and ``without_rows`` is given, the
      guilty rows are found by bisection and quarantined, and the unit is done without them; otherwise the unit is
      quarantined whole.

    An exception from the worker's ``__init__`` ends the run at once. However the function ends, its actors are
    killed; actors that find the queue empty are released before.

    Args:
        work: Units of work, consumed as workers become free; nothing is kept of what is done.
        worker: A plain class (see :class:`Worker`), sent by pickle.
        args: What it is constructed with.
        plan: How many actors, and what each reserves.
        name: Prefix of the actors' names, such as the run's.
        on_done: Called in the driver with each unit done (without its poisoned rows, if it had any) and what ``run``
            returned, in order of completion.
        on_quarantine: Called in the driver with each quarantine as it happens.
        without_rows: A unit of work without some of its rows, numbered as in the original unit.
        attempts: Tries of each unit.
        seconds_per_row: Time limit for each row until units were done, then 30 times the slowest rate seen, if that
            is less; None for no limit.
        grace: Seconds added to a unit's time limit.
        max_in_flight: Units handed to an actor at a time.
        start_timeout: Seconds until at least one worker must have started.
        first: Units of which one is done before ``work`` is asked for its first and before other workers start: the
            next is tried where the one before fails for good; only the last is then quarantined.

    Returns:
        What was quarantined.

    Raises:
        RunError: A worker cannot be made, workers keep dying, storage fails, no worker starts.
        JobError: A worker found the job file wrong.
    """
    limits = Limits(attempts, max(1, max_in_flight), seconds_per_row, grace, start=start_timeout)
    driver = Driver(
        work=iter(work),
        worker=worker,
        args=args,
        plan=plan,
        name=name,
        limits=limits,
        on_done=on_done,
        on_quarantine=on_quarantine or (lambda _: None),
        without_rows=without_rows if hasattr(worker, "probe") else None,
        first=first,
    )
    return driver.run()
