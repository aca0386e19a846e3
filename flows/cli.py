"""The command line: `barycenter run JOB.yaml` and its companions."""

import atexit
import io
import os
import sys
import threading

from barycenter.flows.commands import cluster, compare, deploy, heads, job_files, jobs, neighbors, outputs, status
from barycenter.flows.console import app

_LOST_OUTPUT = 120
"""As of a Python that cannot write what it printed."""

_WIDE = "200"
"""Columns of a table that goes into a file or a pipe."""

__all__ = [
    "app",
    "cluster",
    "compare",
    "deploy",
    "heads",
    "job_files",
    "jobs",
    "main",
    "neighbors",
    "outputs",
    "status",
]


def main() -> None:
    """Entry point of the command; names of files that are no text print as what they are made of.

    Tables that go into a file or a pipe are not cut to the width of a terminal that is not there.
    """
    if not sys.stdout.isatty():
        os.environ.setdefault("COLUMNS", _WIDE)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        app()
    except SystemExit as ended:
        status = ended.code
    else:
        status = None
    if isinstance(status, str):
        print(status, file=sys.stderr)
    # What the process holds goes with it: to take its modules apart one by one took two seconds of every command.
    threading._shutdown()  # type: ignore[attr-defined]  # what Python does first: Prefect sends its last events then
    atexit._run_exitfuncs()
    code = status if isinstance(status, int) else int(status is not None)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except BrokenPipeError:
            pass
        except (OSError, ValueError):
            code = code or _LOST_OUTPUT
    os._exit(code)


if __name__ == "__main__":
    main()
