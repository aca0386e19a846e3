"""The command line: `barycenter run JOB.yaml` and its companions."""

import atexit
import io
import os
import sys
from contextlib import suppress

from barycenter.flows.commands import cluster, heads, jobs, neighbors, outputs
from barycenter.flows.console import app

__all__ = ["app", "cluster", "heads", "jobs", "main", "neighbors", "outputs"]


def main() -> None:
    """Entry point of the command; names of files that are no text print as what they are made of."""
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
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(status if isinstance(status, int) else int(status is not None))


if __name__ == "__main__":
    main()
