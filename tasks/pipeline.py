"""A whole job, stage after stage: plain functions here, Prefect tasks in the flows.

In a notebook or a test, without Ray and without Prefect:

    report = run_job(prepare(load_job("job.yaml")), THIS_PROCESS)
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from barycenter.fusion.dataset.schema import Manifest
from barycenter.infra.memory import give_back_memory
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.versions.commit import awaits_promotion, shown_version
from barycenter.infra.versions.manifests import newest_manifest
from barycenter.tasks.align.stage import fit_alignment, found_fit
from barycenter.tasks.data.alignment_files import FittedAlignment
from barycenter.tasks.embed.side_by_side import side_by_side
from barycenter.tasks.embed.stage import embed_input, pending_shards
from barycenter.tasks.fuse.stage import fuse_features, version_is_whole
from barycenter.tasks.heads.stage import train_head, trained
from barycenter.tasks.join.stage import join_tables
from barycenter.tasks.report.stage import is_reported, write_report
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import head_folder, version_id

Figures = dict[str, Any]
"""Rows, seconds and rates of a stage, as report.json has them."""


@dataclass(frozen=True)
class Stages:
    """The work of each stage, as functions to call."""

    join: Callable[..., Figures] = join_tables
    embed: Callable[..., Figures] = embed_input
    align: Callable[..., tuple[FittedAlignment, Figures]] = fit_alignment
    fuse: Callable[..., tuple[Manifest, Figures]] = fuse_features
    train: Callable[..., tuple[dict[str, Any], Figures]] = train_head
    report: Callable[..., dict[str, Any]] = write_report

    def embed_inputs(self, run: Run, cluster: Cluster) -> Figures:
        """Joins the inputs' own tables to the corpus and embeds what is missing; figures by stage."""
        figures = {"join": self.join(run, cluster)} if run.join is not None else {}
        return figures | side_by_side(run, cluster, self.embed)

    def fuse_inputs(self, run: Run, cluster: Cluster) -> tuple[FittedAlignment, Manifest, Figures]:
        """Fits the alignment if it is not fitted, writes the fused features and commits them.

        Returns:
            The alignment, the manifest, and figures by stage.
        """
        fitted, aligning = self.align(run, cluster)
        give_back_memory()
        manifest, fusing = self.fuse(run, cluster, fitted, *fitted.average)
        return fitted, manifest, {"align": aligning, "fuse": fusing}


PLAIN = Stages()
"""The functions themselves."""


def run_job(run: Run, cluster: Cluster, stages: Stages = PLAIN) -> dict[str, Any]:
    """Embeds every input, aligns the spaces, writes fused features, trains the head and reports.

    The output is held all the while. The cluster is one of Ray, or :data:`barycenter.tasks.run.workers.THIS_PROCESS`.

    Returns:
        The report, as in report/report.json.
    """
    with run.held() as lease:
        figures = stages.embed_inputs(run, cluster)
        fitted, manifest, further = stages.fuse_inputs(run, cluster)
        figures |= further
        head = None
        lease.check()
        if run.job.train is not None:
            head, figures["train"] = stages.train(run, manifest, cluster)
            give_back_memory()
        lease.check()
        return stages.report(run, fitted, manifest, figures, head)


@dataclass(frozen=True)
class Left:
    """What a run has yet to do, looked at before any worker is started.

    Attributes:
        version: The newest version, if its features are those that the run would write; else None.
        stages: Those of ``train`` and ``report`` that are left of it, and ``promotion``.
        shown: The number of the version that readers see; None where they see none.
    """

    version: Manifest | None
    stages: tuple[str, ...] = ()
    shown: int | None = None

    @property
    def nothing(self) -> bool:
        """Whether the newest version has all that the run would make."""
        return self.version is not None and not self.stages

    def needs_workers(self, run: Run) -> bool:
        """Whether what is left is work for a cluster: a linear head and the report are made in this process."""
        network = run.job.train is not None and run.job.train.head != "linear"
        return self.version is None or ("train" in self.stages and network)

    def said(self) -> str | None:
        """A line for whoever waits; None where the features are yet to be made."""
        if self.version is None:
            return None
        named = f"version {self.version.number} of {self.version.committed}"
        if self.stages:
            return f"{named} has the features; left: {', '.join(self.stages)}"
        line = f"nothing to do: {named} has it all"
        if self.shown == self.version.number:
            return line
        others = "no version" if self.shown is None else f"version {self.shown}"
        return f"{line}; readers see {others}, `barycenter promote` changes that"


def look_at(run: Run) -> Left:
    """Compares what a run would make with the newest version of its output, by their identities; writes nothing.

    A borrowed alignment and tables that are not joined yet are not looked at: the stages find what is there.
    """
    job, newest = run.job, newest_manifest(run.storage)
    unseen = run.unjoined or job.alignment.from_ is not None
    if newest is None or unseen or newest.shards != tuple(shard.id for shard in run.shards):
        return Left(None)
    fit = found_fit(run)
    if fit is None or version_id(run, fit["alignment_id"], fit["average"], fit["weights"]) != newest.version:
        return Left(None)
    if any(pending_shards(run, name) for name in run.inputs) or not version_is_whole(run.storage, newest):
        return Left(None)
    head = None if job.train is None else head_folder(newest.version, job.train, job.seed)
    is_trained = head is None or trained(run.storage, head) is not None
    done = {
        "promotion": not awaits_promotion(run.storage, newest, job.output.promote),
        "train": is_trained,
        "report": is_trained and is_reported(run, newest, newest.alignment),
    }
    left = tuple(stage for stage, is_done in done.items() if not is_done)
    return Left(newest, left, shown_version(run.storage))
