"""The command line: `barycenter run JOB.yaml` and its companions."""

from flows.commands import cluster, heads, jobs, neighbors, outputs
from flows.console import app

__all__ = ["app", "cluster", "heads", "jobs", "main", "neighbors", "outputs"]


def main() -> None:
    """Entry point of the command."""
    app()


if __name__ == "__main__":
    main()
