"""A comparison in sentences: what moved, and whether that is more than noise."""

from collections.abc import Iterator, Mapping
from typing import Any

from barycenter.infra.words import counted
from barycenter.tasks.report.rendering.facts import COMPLETE, Scores, clean, count, section


def sentences(compared: Mapping[str, Any]) -> list[str]:
    """The answers first: settings, rows, the fused vector's score, predictions, vectors."""
    return [*_settings(compared), *_rows(compared), *_score(compared), *_predictions(compared), *_moved(compared)]


def points(metric: str, gap: Mapping[str, Any]) -> str:
    """A difference with its interval, and whether it is within noise."""
    scores = Scores(metric, (), (), {})
    unit = " points" if scores.is_share else ""
    shown = f"{scores.gap(gap['mean'])}{unit}"
    if gap.get("within_noise") is None:
        return shown
    ends = f"({scores.gap(gap['low'])} to {scores.gap(gap['high'])})"
    return f"{shown} {ends}{', within noise' if gap['within_noise'] else ''}"


def _settings(compared: Mapping[str, Any]) -> Iterator[str]:
    job = compared["job"]
    if job is not None:
        names = [clean(name, 60) for name in job]
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        yield f"the jobs differ in {counted(len(job), 'key')}: {shown}" if job else "the jobs do not differ"


def _rows(compared: Mapping[str, Any]) -> Iterator[str]:
    keys = compared["data"]["keys"]
    yield f"rows: {count(keys['kept'])} are in both, {count(keys['added'])} came, {count(keys['removed'])} went"


def _score(compared: Mapping[str, Any]) -> Iterator[str]:
    figures = compared["figures"] or {}
    entry = section(figures, "scores", "fused", COMPLETE)
    if not entry or entry["difference"] is None:
        return
    scores = Scores(figures["metric"], (), (), {})
    before, after = (scores.score(entry[side][0], unit=True) for side in ("before", "after"))
    change = points(figures["metric"], entry["difference"])
    paired = f", paired over {count(figures['paired'])} rows" if figures.get("paired") else ""
    yield f"the fused vector: {before}, then {after} {scores.metric_name} {figures['how']}: {change}{paired}"


def _predictions(compared: Mapping[str, Any]) -> Iterator[str]:
    found = compared["predictions"]
    if found is None:
        return
    n, changed = count(found["n"]), count(found["changed"])
    line = f"the heads: of {n} rows held out from both, {changed} are predicted differently"
    if "gained" in found:
        change = points("accuracy", found["difference"])
        line += f"; {count(found['gained'])} became right, {count(found['lost'])} wrong: {change}"
    yield line
    if found.get("relabeled"):
        yield f"of these {n} rows {count(found['relabeled'])} have another true value than before"


def _moved(compared: Mapping[str, Any]) -> Iterator[str]:
    moved = compared["moved"]
    if moved is None:
        return
    rows = f"{count(moved['sample'])} of the {count(moved['of'])} rows in both"
    if moved["by"] == "cosine":
        yield f"vectors of {rows}: {100 * moved['unmoved']:.1f} % have not moved; mean cosine {moved['mean']:.4f}"
    else:
        yield (
            f"nearest rows of {rows}: {100 * moved['overlap']:.1f} % of the {moved['nearest']} nearest are the same "
            f"(by chance {100 * moved['chance']:.1f} %)"
        )
