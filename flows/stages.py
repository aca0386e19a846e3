"""Each stage of the job as a Prefect flow of its own; each refuses to start where the stage before it is not done."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Unpack

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

import barycenter.flows.environment  # noqa: F401  (before Prefect and Ray)
from barycenter.flows import story
from barycenter.flows.ending import reported
from barycenter.flows.parameters import DEMO, JobParameter, job_of, run_name
from barycenter.flows.story import chapter
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.job.fields import Date
from barycenter.infra.logs import bound
from barycenter.infra.versions.manifests import newest_manifest
from barycenter.infra.words import counted
from barycenter.tasks.align.stage import fit_alignment
from barycenter.tasks.data.alignment_files import FittedAlignment, load_alignment
from barycenter.tasks.embed.stage import embed_input, pending_shards
from barycenter.tasks.fuse.stage import fuse_features
from barycenter.tasks.heads.stage import train_head
from barycenter.tasks.join.stage import join_tables
from barycenter.tasks.pipeline import Stages
from barycenter.tasks.planning.plan import held
from barycenter.tasks.report.stage import write_report
from barycenter.tasks.run.context import Flags, Run

_uncached = partial(task, cache_policy=NO_CACHE)

TASKS = Stages(
    join=_uncached(chapter("join", join_tables), name="join"),
    embed=_uncached(chapter("embed {}", embed_input), name="embed", task_run_name="embed {name}"),
    align=_uncached(chapter("align", fit_alignment), name="align"),
    fuse=_uncached(chapter("fuse", fuse_features), name="fuse"),
    train=_uncached(chapter("train", train_head), name="train"),
    report=_uncached(chapter("report", write_report), name="report"),
)
"""The stages as Prefect tasks."""


@flow(name="barycenter-embed", flow_run_name=run_name("embed"))
@reported
def embed(
    job: JobParameter = DEMO,
    recheck: bool = False,
    retry_bad: bool = False,
    adopt: bool = False,
    as_of: Date | None = None,
) -> dict[str, Any]:
    """Embeds what is missing of every input.

    Args:
        job: The job, the path of a job file, or `demo`.
        recheck: Embed again what refers to pictures that changed.
        retry_bad: Embed again the shards that held bad inputs.
        adopt: Embed anew, under a new id, where other versions of the libraries give other vectors.
        as_of: Take the corpus as it was that day: its dated partitions up to it.
    """
    flags: Flags = {"recheck": recheck, "retry_bad": retry_bad, "adopt": adopt, "as_of": as_of}
    with _held(job, **flags) as run, story.workers(run) as cluster:
        return TASKS.embed_inputs(run, cluster)


@flow(name="barycenter-align", flow_run_name=run_name("align"))
@reported
def align(job: JobParameter = DEMO, refit: bool = False, as_of: Date | None = None) -> dict[str, Any]:
    """Fits the alignment on finished embeddings.

    Args:
        job: The job, the path of a job file, or `demo`.
        refit: Fit the alignment again although a committed one has the same settings.
        as_of: Take the corpus as it was that day: its dated partitions up to it.
    """
    with _held(job, refit=refit, as_of=as_of) as run:
        _check_embedded(run)
        with story.workers(run) as cluster:
            fitted, _ = TASKS.align(run, cluster)
    return fitted.summary


@flow(name="barycenter-fuse", flow_run_name=run_name("fuse"))
@reported
def fuse(job: JobParameter = DEMO, as_of: Date | None = None) -> dict[str, Any]:
    """Writes and commits fused features from finished embeddings, fitting the alignment if it is not fitted.

    Args:
        job: The job, the path of a job file, or `demo`.
        as_of: Take the corpus as it was that day: its dated partitions up to it.
    """
    with _held(job, as_of=as_of) as run:
        _check_embedded(run)
        with story.workers(run) as cluster:
            _, manifest, _ = TASKS.fuse_inputs(run, cluster)
        story.look_for_news(run, manifest.version, manifest.number)
    return {"number": manifest.number, "version": manifest.version, "rows": manifest.rows}


@flow(name="barycenter-train", flow_run_name=run_name("train"))
@reported
def train(job: JobParameter = DEMO, as_of: Date | None = None) -> dict[str, Any]:
    """Trains the head on the newest committed features.

    Args:
        job: The job, the path of a job file, or `demo`.
        as_of: Take the corpus as it was that day: its dated partitions up to it.
    """
    with _held(job, as_of=as_of) as run:
        metrics, _ = TASKS.train(run, _committed(run))
    return metrics


@flow(name="barycenter-report", flow_run_name=run_name("report"))
@reported
def report(job: JobParameter = DEMO, as_of: Date | None = None) -> dict[str, Any]:
    """Writes the report of the newest committed features again.

    Args:
        job: The job, the path of a job file, or `demo`.
        as_of: Take the corpus as it was that day: its dated partitions up to it.
    """
    with _held(job, as_of=as_of) as run:
        _check_embedded(run)
        manifest = _committed(run)
        alignment = load_alignment(run.storage, manifest.alignment_id)
        fitted = FittedAlignment(alignment, manifest.alignment_id, manifest.alignment)
        head = TASKS.train(run, manifest)[0] if run.job.train is not None else None
        written = TASKS.report(run, fitted, manifest, {}, head)
        story.end(run, written)
    return written


@contextmanager
def _held(job: JobParameter, **flags: Unpack[Flags]) -> Iterator[Run]:
    asked = job_of(job)
    with bound(run=asked.name), held(asked, **flags) as run:
        story.begin(run)
        yield run


def _check_embedded(run: Run) -> None:
    if run.unjoined:
        raise RunError("the inputs' own tables are not joined to the corpus; run `barycenter embed` first")
    for name in run.inputs:
        if left := len(pending_shards(run, name)):
            raise RunError(f"{counted(left, 'shard')} of input {name} left to embed; run `barycenter embed` first")


def _committed(run: Run) -> Manifest:
    newest = newest_manifest(run.storage)
    if newest is None:
        raise RunError(f"{run.job.output.path} holds no committed features; run `barycenter fuse` first")
    if run.as_of is not None and set(newest.shards) != {shard.id for shard in run.shards}:
        which = f"version {newest.version} of {run.job.output.path}"
        raise RunError(
            f"{which} holds other rows than the corpus as of {run.as_of}; run `barycenter fuse` as of it first"
        )
    return newest
