"""What Ray has no public interface for, each with why, and with what happens where a Ray has it no more."""

import logging
from importlib import import_module
from typing import Any

log = logging.getLogger(__name__)


def silence_worker_output() -> None:
    """Sends what Ray prints about its workers to the log.

    Ray reports dead workers on stdout, where only results belong, and has no switch for that: ``log_to_driver`` is for
    the workers' own lines. Without the private function such lines are printed.
    """
    try:
        worker: Any = import_module("ray._private.worker")
        worker.print_to_stdstream  # noqa: B018 - is it there?
    except (ImportError, AttributeError):
        log.debug("this Ray prints about its workers itself")
        return
    worker.print_to_stdstream = _log_instead_of_print


def _log_instead_of_print(data: dict[str, Any], ignore_prefix: bool) -> None:
    del ignore_prefix
    log.debug("%s: %s", data["pid"], " ".join(data["lines"]))
