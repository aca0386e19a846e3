"""Whether a version scores less than an earlier one: what a user of its features wants to hear before training."""

import shlex
from dataclasses import replace
from typing import Any

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import last_promoted, shown_version
from barycenter.infra.versions.manifests import read_manifest, versions
from barycenter.infra.words import counted
from barycenter.tasks.report.comparison.scores import compared_figures
from barycenter.tasks.report.comparison.sides import Side
from barycenter.tasks.report.comparison.summary import points
from barycenter.tasks.report.rendering.facts import COMPLETE, Scores, section


def decline(storage: Storage, manifest: Manifest, report: dict[str, Any]) -> list[str]:
    """A sentence where the fused vector scores less than in an earlier version, on the same rows and not by chance.

    Compared is the version that somebody promoted last, as in a rollback, then the version before this one.

    Args:
        storage: The output.
        manifest: Of the version that the report is on.
        report: With its scored rows written.
    """
    earlier = [number for number in versions(storage) if number < manifest.number]
    try:
        promoted = last_promoted(storage)
        for number in dict.fromkeys([*([promoted] if promoted in earlier else []), *earlier[-1:]]):
            before = Side.of(storage, read_manifest(storage, number))
            after = replace(before, name=f"{storage.root}@{manifest.number}", manifest=manifest, report=report)
            if (lost := _lost(before, after)) is not None:
                return [f"{lost}; {_advice(storage, number, manifest.number)}"]
    except RunError as error:
        return [f"whether the fused vector scores less than in the version before is not known: {error}"]
    return []


def _lost(before: Side, after: Side) -> str | None:
    figures = compared_figures(before, after, []) or {}
    gap = section(figures, "scores", "fused", COMPLETE).get("difference")
    if not figures.get("paired") or gap is None or gap["high"] is None or gap["high"] >= 0:
        return None
    metric = Scores(figures["metric"], (), (), {}).metric_name
    rows = counted(figures["paired"], "row")
    change = points(figures["metric"], gap)
    return f"the fused vector has less {metric} than in version {before.manifest.number}: {change} on the same {rows}"


def _advice(storage: Storage, before: int, after: int) -> str:
    root = storage.root
    sides = " ".join(shlex.quote(f"{root}@{number}") for number in (before, after))
    advice = f"`barycenter compare {sides}` has both side by side"
    if shown_version(storage) == after:
        return f"{advice}, `barycenter rollback {shlex.quote(root)} {before}` shows readers that version again"
    return f"{advice}; readers do not see this one"
