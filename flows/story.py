"""What a run says of itself, from its start to its report: lines of its log."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from barycenter.fusion.encoders.fingerprint import installed_version
from barycenter.infra.logs import say
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.words import counted
from barycenter.tasks.data.targets import inspect_target
from barycenter.tasks.observability.artifacts import show_dashboard
from barycenter.tasks.observability.events import nothing_new, run_started, stage_done
from barycenter.tasks.pipeline import Left
from barycenter.tasks.planning.plan import listing_line, notes
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.workers import THIS_PROCESS, open_cluster

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


def begin(run: Run) -> None:
    """Says what is run, on what, and what it is to make."""
    run_started(run)
    job = run.job
    log.info(
        "run %s (job %s) of %s into %s; barycenter %s",
        job.name, job.fingerprint()[:12], job.corpus.path, run.storage.uri(), installed_version("barycenter"),
    )  # fmt: skip
    flags = [name for name in ("recheck", "retry_bad", "refit", "adopt") if getattr(run, name)]
    flags += [f"the corpus as of {run.as_of}"] if run.as_of is not None else []
    log.info("plan: %s%s", _plan(run), f"; with {', '.join(flags)}" if flags else "")
    target = inspect_target(run).said() if job.train is not None else None
    for line in [*filter(None, [listing_line(run), target]), *notes(run)]:
        log.info("%s", line)


@contextmanager
def workers_for(run: Run, left: Left) -> Iterator[Cluster]:
    """The workers for what a run has left, for the length of the block: this process where that is work for none."""
    if line := left.said():
        say(log, line)
    if left.needs_workers(run):
        with workers(run) as cluster:
            yield cluster
    else:
        yield THIS_PROCESS


@contextmanager
def workers(run: Run) -> Iterator[Cluster]:
    """The workers of a run, for the length of the block; says where a cluster's can be watched."""
    with open_cluster(run.job.ray) as cluster:
        if run.job.ray.address != "none":
            from barycenter.infra.ray.private import dashboard_url  # imports Ray

            if url := dashboard_url():
                log.info("Ray's dashboard: %s", url)
                show_dashboard(run, url)
        yield cluster


def end(run: Run, report: dict[str, Any]) -> None:
    """Says what a run has come to: whether there is anything new, and where its report is."""
    look_for_news(run, report["version"], report["lineage"]["number"])
    log.info("report: %s", run.storage.uri("report/report.html"))


def look_for_news(run: Run, version: str, number: int) -> None:
    """Says so where a run has committed nothing."""
    if number <= run.after:
        nothing_new(version, number)


def chapter(name: str, function: Callable[P, R]) -> Callable[P, R]:
    """A stage that emits what it did, and says so where there was nothing to do; else its progress says it.

    Args:
        name: Of the stage; its second argument, an input, is put for ``{}``.
        function: The stage.
    """

    @wraps(function)
    def stage(*args: P.args, **kwargs: P.kwargs) -> R:
        result = function(*args, **kwargs)
        figures = result[-1] if isinstance(result, tuple) else result
        if isinstance(figures, dict) and "speed" in figures:  # the report, which has those of every stage
            figures = figures["speed"][name]
        if isinstance(figures, dict) and figures.get("rows") == 0:
            log.info("%s: nothing to do, it was done before", name.format(*args[1:]))
        if isinstance(figures, dict):
            stage_done(name.format(*args[1:]), figures)
        return result

    return stage


def _plan(run: Run) -> str:
    job = run.job
    encoders = {name: spec.encoder or "ready vectors" for name, spec in job.inputs.items()}
    files = counted(len(run.corpus.sources), "file")
    parts = [
        f"{counted(run.rows, 'row')} in {counted(len(run.shards), 'shard')} of {files}",
        ", ".join(f"{name} by {encoders[name]} ({width} values)" for name, width in run.widths.items()),
        f"alignment {job.alignment.method} to {job.alignment.dim}, average {job.average.method}",
        *([f"head {job.train.head} on {job.train.target}"] if job.train is not None else []),
    ]
    return "; ".join(parts)
