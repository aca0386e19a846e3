"""The report on a terminal and as Markdown."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from tasks.rendering.facts import (
    Gap,
    Scores,
    arrow,
    clean,
    count,
    duration,
    items,
    note,
    number,
    rate,
    retrieval_pairs,
    section,
)
from tasks.rendering.judgement import judge

_STYLES = {"good": "bold green", "even": "bold", "bad": "bold red", "none": "bold yellow", "open": "bold"}


@dataclass(frozen=True)
class Sheet:
    """One table as plain strings.

    Attributes:
        title: What it shows.
        header: Column names; the first column is words, the others are numbers unless in ``words``.
        rows: Cells.
        words: Further columns that hold words.
        strong: Cells (row, column) to stand out.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    words: frozenset[int] = frozenset({0})
    strong: frozenset[tuple[int, int]] = frozenset()


def terminal_table(report: Mapping[str, Any]) -> Group:
    """The report for a terminal, the verdict last; names are never read as markup."""
    judged = judge(report)
    parts: list[RenderableType] = [_rich(sheet) for sheet in sheets(report)]
    parts += [Text(f"warning: {clean(text)}", style="yellow") for text in items(report, "warnings")]
    return Group(*parts, Text(clean(judged.sentence, 1000), style=_STYLES[judged.tone]))


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown with tables, safe whatever the texts hold."""
    parts = [f"## {_escaped(report.get('name', 'Report'))}", f"**{_escaped(judge(report).sentence, 1000)}**"]
    parts += [f"> {_escaped(text)}" for text in items(report, "warnings")]
    for sheet in sheets(report):
        parts += [f"### {_escaped(sheet.title)}", _markdown(sheet)]
    return "\n\n".join(parts) + "\n"


def sheets(report: Mapping[str, Any]) -> list[Sheet]:
    """Every table of the report that has rows, in reading order."""
    crossed, single = Scores.of(report, cross_validated=True), Scores.of(report)
    found = []
    if crossed:
        found += [_scores(crossed, "Cross-validated probe"), gap_sheet(report, crossed)]
    if single:
        n_test = number(section(report, "probe").get("n_test"))
        found.append(_scores(single, f"Probe on {count(n_test)} held-out rows" if n_test else "Probe on held-out rows"))
    found += [retrieval_sheet(report), rows_sheet(report), speed_sheet(report)]
    return [sheet for sheet in found if sheet.rows]


def _scores(scores: Scores, title: str) -> Sheet:
    unit = ", %" if scores.is_share else ""
    best = {condition: scores.best(condition) for condition in scores.conditions}
    rows, strong = [], set()
    for row, name in enumerate(scores.candidates):
        cells = [scores.values.get((name, condition)) for condition in scores.conditions]
        rows.append((name, *map(scores.score, cells), note(name)))
        strong |= {
            (row, column)
            for column, (condition, value) in enumerate(zip(scores.conditions, cells, strict=True), start=1)
            if value is not None and value == best[condition]
        }
    header = (f"{scores.metric_name}{unit}", *scores.conditions, "")
    return Sheet(title, header, rows, frozenset({0, len(header) - 1}), frozenset(strong))


def gap_sheet(report: Mapping[str, Any], scores: Scores) -> Sheet:
    """Differences with their 95 % intervals."""
    rows = [
        (
            f"fused − {gap.against}, {gap.condition}",
            scores.gap(gap.mean),
            "" if gap.low is None or gap.high is None else f"{scores.gap(gap.low)} to {scores.gap(gap.high)}",
        )
        for gap in Gap.all_of(report)
    ]
    return Sheet("Differences", ("points" if scores.is_share else "difference", "mean", "95 % interval"), rows)


def retrieval_sheet(report: Mapping[str, Any]) -> Sheet:
    """Retrieval both ways, with chance below."""
    keys = ("r1", "r5", "r10", "mrr")

    def shown(key: str, value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}" if key == "mrr" else f"{100 * value:.1f}"

    rows = [(arrow(name), *(shown(key, figures.get(key)) for key in keys)) for name, figures in retrieval_pairs(report)]
    chance = number(section(report, "retrieval").get("chance_r10"))
    if rows and chance is not None:
        rows.append(("chance", "", "", shown("r10", chance), ""))
    return Sheet("Retrieval on held-out rows", ("", "first, %", "in 5, %", "in 10, %", "MRR"), rows)


def rows_sheet(report: Mapping[str, Any]) -> Sheet:
    """Rows in, out, missing and bad."""
    known = section(report, "rows")
    rows = [(name, count(known[name])) for name in ("read", "written", "rejected") if name in known]
    rows += [(f"without {clean(name, 40)}", count(value)) for name, value in section(known, "missing").items()]
    rows += [
        (f"bad: {clean(name, 40).replace('_', ' ')}", count(value)) for name, value in section(known, "bad").items()
    ]
    return Sheet("Rows", ("rows", ""), rows)


def speed_sheet(report: Mapping[str, Any]) -> Sheet:
    """Rows and seconds of every stage; one that found its work done tells what that work took."""
    rows = []
    for stage, now in section(report, "speed").items():
        if not isinstance(now, Mapping):
            continue
        before = section(now, "before")
        figures = before if before and not number(now.get("rows")) else now
        remark = clean(figures.get("limited_by") or "", 40)
        if figures is before:
            remark = "done before" + (f", {remark}" if remark else "")
        elif not number(now.get("rows")):
            remark = "nothing to do"
        shown = (count(figures.get("rows")), duration(figures.get("seconds")), rate(figures.get("rows_per_s")))
        rows.append((clean(stage, 40), *shown, remark))
    return Sheet("Speed", ("stage", "rows", "time", "rows/s", "limited by"), rows, frozenset({0, 4}))


def _rich(sheet: Sheet) -> Table:
    table = Table(
        title=Text(sheet.title), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for column, name in enumerate(sheet.header):
        words = column in sheet.words
        style = "dim" if words and column else ""
        table.add_column(Text(name), justify="left" if words else "right", style=style, no_wrap=not words)
    for row, cells in enumerate(sheet.rows):
        table.add_row(
            *(Text(cell, style="bold" if (row, column) in sheet.strong else "") for column, cell in enumerate(cells))
        )
    return table


def _markdown(sheet: Sheet) -> str:
    lines = [_line([_escaped(name) for name in sheet.header])]
    lines.append(_line([":--" if column in sheet.words else "--:" for column in range(len(sheet.header))]))
    for row, cells in enumerate(sheet.rows):
        shown = [_escaped(cell) for cell in cells]
        lines.append(_line([f"**{cell}**" if (row, at) in sheet.strong else cell for at, cell in enumerate(shown)]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(value: object, longest: int = 400) -> str:
    return re.sub(r"([\\`*_{}\[\]()#!|<>&~$])", r"\\\1", clean(value, longest))
