"""The command line: `barycenter run JOB.yaml` and its companions."""

import io
import sys

from barycenter.flows.commands import cluster, heads, jobs, neighbors, outputs
from barycenter.flows.console import app

__all__ = ["app", "cluster", "heads", "jobs", "main", "neighbors", "outputs"]


def main() -> None:
    """Entry point of the command; names of files that are no text print as what they are made of."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    app()


if __name__ == "__main__":
    main()
