"""A comparison on a terminal: the answers as sentences, then a table for each part that differs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.text import Text

from barycenter.tasks.report.comparison.summary import points, sentences
from barycenter.tasks.report.rendering.facts import COMPLETE, Scores, arrow, clean, count, section
from barycenter.tasks.report.rendering.mistake_tables import label_text
from barycenter.tasks.report.rendering.sheet import Sheet
from barycenter.tasks.report.rendering.tables import rich_table

_VALUE, _SOURCES = 120, 10


def comparison_table(compared: Mapping[str, Any]) -> Group:
    """Everything that :func:`barycenter.tasks.report.comparison.compare.compare` found."""
    names = [
        f"{side}: {clean(compared[side]['name'], 200)}, {compared[side]['version']}" for side in ("before", "after")
    ]
    parts: list[RenderableType] = [Text(name) for name in names]
    parts += [Text(""), *(Text(f"- {line}") for line in sentences(compared)), Text("")]
    parts += [rich_table(sheet) for sheet in _sheets(compared) if sheet.rows]
    parts += [Text(line) for line in _sources(section(compared, "data", "sources"))]
    parts += [Text(f"note: {clean(note)}", style="yellow") for note in compared["notes"]]
    return Group(*parts)


def _sheets(compared: Mapping[str, Any]) -> Iterator[Sheet]:
    data = compared["data"]
    for title, pairs in (
        ("What differs in the job", compared["job"] or {}),
        ("Encoders that differ", compared["encoders"]),
        ("What differs in the alignment", compared["alignment"]),
    ):
        rows = [(clean(name, 40), _value(before), _value(after)) for name, (before, after) in pairs.items()]
        yield Sheet(title, ("", "before", "after"), rows, frozenset({0, 1, 2}))
    counted = [(name, pair) for name, pair in data["rows"].items()]
    counted += [(f"without {clean(name, 40)}", pair) for name, pair in data["missing"].items()]
    counted += [(f"bad: {clean(name, 40).replace('_', ' ')}", pair) for name, pair in data["bad"].items()]
    yield Sheet("Rows", ("", "before", "after"), [(name, count(one), count(other)) for name, (one, other) in counted])
    yield _keys(data["keys"])
    yield _scores(compared["figures"] or {})
    yield _retrieval(section(compared, "figures", "retrieval"))
    yield _predictions(compared["predictions"] or {})
    yield _moved(compared["moved"] or {})


def _keys(keys: Mapping[str, Any]) -> Sheet:
    rows = []
    for what in ("added", "removed"):
        named = [clean(key, 40) for key in keys["examples"][what]]
        if named:
            rows.append((what, count(keys[what]), ", ".join(named) + (", ..." if keys[what] > len(named) else "")))
    return Sheet("Keys", ("", "rows", "such as"), rows, frozenset({0, 2}))


def _scores(figures: Mapping[str, Any]) -> Sheet:
    """Every candidate with all inputs, and the fused vector with each one missing."""
    if "metric" not in figures:
        return Sheet("", (), [])
    scores = Scores(figures["metric"], (), (), {})
    rows = [
        (
            name if condition == COMPLETE else f"{name}, {condition}",
            _with_interval(scores, entry["before"]),
            _with_interval(scores, entry["after"]),
            "–" if entry["difference"] is None else points(figures["metric"], entry["difference"]),
        )
        for name, by in figures["scores"].items()
        for condition, entry in by.items()
        if condition == COMPLETE or name == "fused"
    ]
    n = " and ".join(count(each) for each in dict.fromkeys(figures["n"]))
    paired = figures.get("paired")
    pairs = f"paired over {count(paired)} rows" if paired else "as if on different rows, so rather wide"
    title = f"Scores on {n} rows, {figures['how']}; differences {pairs}"
    return Sheet(
        title, (f"{scores.metric_name}{scores.unit}", "before", "after", "difference"), rows, frozenset({0, 3})
    )


def _with_interval(scores: Scores, triple: Sequence[float | None] | None) -> str:
    if triple is None:
        return "–"
    value, low, high = triple
    shown = scores.score(value)
    return shown if low is None or high is None else f"{shown} ({scores.score(low)}–{scores.score(high)})"


def _retrieval(pairs: Mapping[str, Any]) -> Sheet:
    rows = [
        (
            arrow(name),
            f"{100 * entry['before']:.1f}",
            f"{100 * entry['after']:.1f}",
            points("accuracy", entry["difference"]),
        )
        for name, entry in pairs.items()
    ]
    title = "Retrieval; differences as if on different rows, so rather wide"
    return Sheet(title, ("found among ten, %", "before", "after", "difference"), rows, frozenset({0, 3}))


def _predictions(found: Mapping[str, Any]) -> Sheet:
    rows = [
        (clean(row["key"], 40), *(label_text(row[name]) for name in ("target", "before", "after")))
        for row in found.get("rows", [])
    ]
    title = "Predictions that changed, first those that are wrong now"
    if found and "gained" not in found:
        title = "Predictions that changed most"
    return Sheet(title, ("key", "true", "before", "after"), rows, frozenset({0, 1, 2, 3}))


def _moved(moved: Mapping[str, Any]) -> Sheet:
    by_cosine = moved.get("by") == "cosine"
    last = "cosine" if by_cosine else f"of {moved.get('nearest')} nearest the same"
    rows = [
        (clean(row["key"], 60), f"{row['cosine']:.4f}" if by_cosine else count(row["shared"]))
        for row in moved.get("rows", [])
    ]
    return Sheet("Rows that moved most", ("key", last), rows)


def _sources(sources: Mapping[str, Any]) -> Iterator[str]:
    for what, names in sources.items():
        if names:
            shown = ", ".join(clean(name, 80) for name in names[:_SOURCES]) + (", ..." if len(names) > _SOURCES else "")
            yield f"sources {what}: {len(names):,} ({shown})"


def _value(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return clean(", ".join(f"{name} {_value(part)}" for name, part in value.items()), _VALUE)
    return clean(f"{value:.4g}" if isinstance(value, float) else value, _VALUE)
