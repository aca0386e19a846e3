"""A flow whose output another process holds: skipped where the job says so."""

import logging
from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from prefect.states import Completed

from barycenter.fusion.errors import BusyError

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def skips_when_busy(function: Callable[P, R]) -> Callable[P, R]:
    """Makes a flow's function end as completed, in a state named Skipped, where ``output.busy`` is ``skip``."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> Any:
        try:
            return function(*args, **kwargs)
        except BusyError as error:
            if not error.skip:
                raise
            log.warning("skipped: %s", error)
            return Completed(name="Skipped", message=str(error))

    return run
