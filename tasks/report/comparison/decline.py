"""Whether a version scores less than the one before it: what a user of its features wants to hear before training."""

from dataclasses import replace
from typing import Any

from barycenter.fusion.dataset.schema import Manifest
from barycenter.infra.storage import Storage
from barycenter.infra.versions.manifests import read_manifest, versions
from barycenter.infra.words import counted
from barycenter.tasks.report.comparison.scores import compared_figures
from barycenter.tasks.report.comparison.sides import Side
from barycenter.tasks.report.comparison.summary import points
from barycenter.tasks.report.rendering.facts import COMPLETE, section


def decline(storage: Storage, manifest: Manifest, report: dict[str, Any]) -> list[str]:
    """A sentence where the fused vector scores less than in the version before, on the same rows and not by chance.

    Args:
        storage: The output.
        manifest: Of the version that the report is on.
        report: With its scored rows written.
    """
    earlier = [number for number in versions(storage) if number < manifest.number]
    if not earlier:
        return []
    before = Side.of(storage, read_manifest(storage, max(earlier)))
    after = replace(before, name=f"{storage.root}@{manifest.number}", manifest=manifest, report=report)
    figures = compared_figures(before, after, []) or {}
    gap = section(figures, "scores", "fused", COMPLETE).get("difference")
    if not figures.get("paired") or gap is None or gap["high"] is None or gap["high"] >= 0:
        return []
    rows = counted(figures["paired"], "row")
    return [
        f"the fused vector scores less than in version {before.manifest.number}: "
        f"{points(figures['metric'], gap)} on the same {rows}; `barycenter compare {before.name} {after.name}` says "
        f"what changed, `barycenter rollback {storage.root} {before.manifest.number}` shows readers that version again"
    ]
