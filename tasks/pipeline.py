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
from barycenter.tasks.align.stage import fit_alignment
from barycenter.tasks.data.alignment_files import FittedAlignment
from barycenter.tasks.embed.side_by_side import side_by_side
from barycenter.tasks.embed.stage import embed_input
from barycenter.tasks.fuse.stage import fuse_features
from barycenter.tasks.heads.stage import train_head
from barycenter.tasks.join.stage import join_tables
from barycenter.tasks.report.stage import write_report
from barycenter.tasks.run.context import Run

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
