"""The report on a terminal and as Markdown."""

import re
from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from barycenter.tasks.observability.progress import WAITED_SECONDS
from barycenter.tasks.report.rendering.answers import findings, score_answer
from barycenter.tasks.report.rendering.facts import (
    Gap,
    Scores,
    arrow,
    clean,
    count,
    duration,
    evidence,
    note,
    number,
    rate,
    retrieval_pairs,
    section,
    warnings_of,
)
from barycenter.tasks.report.rendering.judgment import judge
from barycenter.tasks.report.rendering.meanings import MEANINGS
from barycenter.tasks.report.rendering.mistake_tables import doubtful_sheet, label_sheet, pair_sheet
from barycenter.tasks.report.rendering.sheet import Sheet

_STYLES = {"good": "bold green", "even": "bold", "bad": "bold red", "none": "bold yellow", "open": "bold"}
_FEW, _WIDE, _MOST_PAIRS, _MOST_FINDINGS = 3, 6, 7, 3
_REUSE = {"kept": "kept", "copied": "copied", "duplicate": "equal to another", "encoded": "encoded", "gone": "gone"}
"""Parts of ``reuse`` and their names for people."""


def terminal_table(report: Mapping[str, Any]) -> Group:
    """The report for a terminal of 80 columns, the verdict last; names are never read as markup."""
    judged = judge(report)
    source, crossed = evidence(report)
    scores = Scores.of(report, cross_validated=crossed)
    shown = [gap_sheet(source, scores)] if scores else []
    pairs = retrieval_sheet(report)
    many = len(pairs.rows) > _MOST_PAIRS
    shown += [speed_sheet(report)] if many else [pairs, speed_sheet(report)]
    parts: list[RenderableType] = [rich_table(_narrow(scores, _title(report, source, crossed)))] if scores else []
    parts += [rich_table(sheet) for sheet in shown if sheet.rows]
    lines = [
        _slowest(report), _rows_line(report), _split_line(report), _alignment_line(report), _reuse_line(report),
        _pairs_line(report) if many else "",
    ]  # fmt: skip
    parts += [Text(line) for line in lines if line]
    parts += [Text(f"warning: {clean(text)}", style="yellow") for text in warnings_of(report)]
    if helpful := findings(report)[:_MOST_FINDINGS]:
        parts += [
            Text(""),
            Text("What would help", style="bold"),
            *(Text(f"- {clean(each['sentence'])}") for each in helpful),
        ]
    if (score := score_answer(report)) is not None:
        parts += [Text(""), Text(clean(score["sentence"], 1000))]
    return Group(*parts, Text(""), Text(clean(judged.sentence, 1000), style=_STYLES[judged.tone]), Text(""))


def markdown(report: Mapping[str, Any]) -> str:
    """The report as Markdown with tables, safe whatever the texts hold."""
    parts = [f"## {_escaped(report.get('name', 'Report'))}", f"**{_escaped(judge(report).sentence, 1000)}**"]
    score = score_answer(report)
    parts += [_escaped(score["sentence"], 1000)] if score is not None else []
    parts += [f"> {_escaped(text)}" for text in warnings_of(report)]
    parts += [f"- {_escaped(found['sentence'])}" for found in findings(report)]
    for sheet in sheets(report):
        parts += [
            f"### {_escaped(sheet.title)}",
            _markdown(sheet),
            *([_escaped(sheet.meaning)] if sheet.meaning else []),
        ]
    return "\n\n".join(parts) + "\n"


def sheets(report: Mapping[str, Any]) -> list[Sheet]:
    """Every table of the report that has rows, in reading order."""
    source, crossed = evidence(report)
    scores = Scores.of(report, cross_validated=crossed)
    found = [_scores(scores, _title(report, source, crossed)), gap_sheet(source, scores)] if scores else []
    if crossed and (single := Scores.of(report)):
        found.append(_scores(single, _title(report, section(report, "probe"), False)))
    found += [pair_sheet(report), label_sheet(report), doubtful_sheet(report)]
    found += [retrieval_sheet(report), rows_sheet(report), speed_sheet(report)]
    return [sheet for sheet in found if sheet.rows]


def _title(report: Mapping[str, Any], source: Mapping[str, Any], crossed: bool) -> str:
    rows = count(source.get("n_test"))
    how = "rows, out of fold" if crossed else "held-out rows"
    return f"{clean(report.get('name') or 'Probe', 30)}: probe on {rows} {how}"


def _scores(scores: Scores, title: str) -> Sheet:
    rows = [
        (name, *(scores.with_interval(name, condition) for condition in scores.conditions), note(name))
        for name in scores.candidates
    ]
    header = (f"{scores.metric_name}{scores.unit}", *scores.conditions, "")
    return Sheet(title, header, rows, frozenset({0, len(header) - 1}), _best_cells(scores), MEANINGS["scores"])


def _narrow(scores: Scores, title: str) -> Sheet:
    """Scores for a terminal: with intervals while the conditions are few, condition names on two lines."""
    few = len(scores.conditions) <= _FEW

    def shown(name: str, condition: str) -> str:
        return scores.with_interval(name, condition) if few else scores.score(scores.values.get((name, condition)))

    rows = [(name, *(shown(name, condition) for condition in scores.conditions)) for name in scores.candidates]
    conditions = [condition if few else condition.replace(" ", "\n", 1) for condition in scores.conditions]
    return Sheet(title, (f"{scores.metric_name}{scores.unit}", *conditions), rows, strong=_best_cells(scores))


def _best_cells(scores: Scores) -> frozenset[tuple[int, int]]:
    return frozenset(
        (row, column)
        for row, name in enumerate(scores.candidates)
        for column, condition in enumerate(scores.conditions, start=1)
        if scores.is_best(name, condition)
    )


def gap_sheet(source: Mapping[str, Any], scores: Scores) -> Sheet:
    """Differences with their 95 % intervals, of a probe or a cross-validated one."""
    rows = [
        (
            f"fused − {gap.against}, {gap.condition}",
            scores.gap(gap.mean),
            "" if gap.low is None or gap.high is None else f"{scores.gap(gap.low)} to {scores.gap(gap.high)}",
        )
        for gap in Gap.all_of(source)
    ]
    header = ("points" if scores.is_share else "difference", "mean", "95 % interval")
    return Sheet("Differences, by bootstrap over groups", header, rows, meaning=MEANINGS["gaps"])


def retrieval_sheet(report: Mapping[str, Any]) -> Sheet:
    """Retrieval both ways, with chance below."""
    keys = ("r1", "r5", "r10", "mrr")

    def shown(key: str, value: float | None) -> str:
        return "–" if value is None else f"{value:.3f}" if key == "mrr" else f"{100 * value:.1f}"

    rows = [(arrow(name), *(shown(key, figures.get(key)) for key in keys)) for name, figures in retrieval_pairs(report)]
    chance = number(section(report, "retrieval").get("chance_r10"))
    if rows and chance is not None:
        rows.append(("chance", "", "", shown("r10", chance), ""))
    header = ("", "R@1, %", "R@5, %", "R@10, %", "MRR")
    return Sheet("Retrieval on held-out rows", header, rows, meaning=MEANINGS["retrieval table"])


def rows_sheet(report: Mapping[str, Any]) -> Sheet:
    """Rows in, out, missing and bad, and what was encoded of them."""
    known = section(report, "rows")
    rows = [(name, count(known[name])) for name in ("read", "written", "rejected") if name in known]
    rows += [(f"without {clean(name, 40)}", count(value)) for name, value in section(known, "missing").items()]
    bad = [(clean(name, 40).replace("_", " "), count(value)) for name, value in section(known, "bad").items()]
    rows += [(f"bad: {name}", number) for name, number in bad]
    rows += [
        (f"{clean(name, 40)}: {what}", count(known[part]))
        for name, known in section(report, "reuse").items()
        if isinstance(known, Mapping)
        for part, what in _REUSE.items()
        if known.get(part)
    ]
    return Sheet("Rows", ("rows", ""), rows, meaning=MEANINGS["rows"])


def speed_sheet(report: Mapping[str, Any]) -> Sheet:
    """Rows and seconds of every stage; one that found its work done shows what that work took."""
    rows = []
    for stage, now in section(report, "speed").items():
        if not isinstance(now, Mapping):
            continue
        before = section(now, "before")
        figures = before if before and not number(now.get("rows")) else now
        remark = _limit(figures)
        if figures is before:
            remark = "done before" + (f", {remark}" if remark else "")
        elif not number(now.get("rows")):
            remark = "nothing to do"
        shown = (count(figures.get("rows")), duration(figures.get("seconds")), rate(figures.get("rows_per_s")))
        rows.append((clean(stage, 40), *shown, remark))
    header = ("stage", "rows", "time", "rows/s", "limited by")
    return Sheet("Speed", header, rows, frozenset({0, 4}), meaning=MEANINGS["speed"])


def _limit(figures: Mapping[str, Any]) -> str:
    """What limited a stage that took long enough to be waited for."""
    return clean(figures.get("limited_by") or "", 60) if (number(figures.get("seconds")) or 0) >= WAITED_SECONDS else ""


def _slowest(report: Mapping[str, Any]) -> str:
    """The stage that took most of the time, and what limited it."""
    stages = {
        clean(stage, 40): (seconds, _limit(figures))
        for stage, figures in section(report, "speed").items()
        if isinstance(figures, Mapping) and (seconds := number(figures.get("seconds")))
    }
    if not stages:
        return ""
    slowest = max(stages, key=lambda stage: stages[stage][0])
    total = sum(seconds for seconds, _ in stages.values())
    limit = f", limited by: {stages[slowest][1]}" if stages[slowest][1] else ""
    return f"time: {duration(total)} in all stages, most of it {slowest} ({duration(stages[slowest][0])}{limit})"


def _pairs_line(report: Mapping[str, Any]) -> str:
    """Retrieval among many inputs in one sentence; the page has the table."""
    found = sorted((figures["r10"], arrow(name)) for name, figures in retrieval_pairs(report) if "r10" in figures)
    if not found:
        return ""
    (low, worst), (high, best) = found[0], found[-1]
    return f"retrieval, in the first 10: from {100 * low:.1f} % ({worst}) to {100 * high:.1f} % ({best})"


def _rows_line(report: Mapping[str, Any]) -> str:
    """Rows in, out, missing and bad in one sentence."""
    known = section(report, "rows")
    if not known:
        return ""
    parts = [", ".join(f"{count(known[name])} {name}" for name in ("read", "written", "rejected") if name in known)]
    missing = [f"{clean(name, 40)} {count(value)}" for name, value in section(known, "missing").items() if value]
    bad = [f"{clean(name, 40).replace('_', ' ')} {count(value)}" for name, value in section(known, "bad").items()]
    parts += [f"without {', '.join(missing)}"] if missing else []
    parts += [f"missing or bad inputs: {', '.join(bad)}"] if bad else []
    return f"rows: {'; '.join(parts)}"


def _split_line(report: Mapping[str, Any]) -> str:
    """What is learned from and what is held out."""
    split = section(report, "split")
    if "train" not in split or "test" not in split:
        return ""
    learned = f"{count(split['train'])} {clean(split.get('rows'), 40)} to learn from"
    other = f", {count(split['other'])} in neither" if split.get("other") else ""
    return f"split: {learned}, {count(split['test'])} held out{other}, {split_words(split)}"


def split_words(split: Mapping[str, Any]) -> str:
    """By what rows are held out.

    >>> split_words({"by": None, "group_by": "design"}), split_words({"by": "fold"})
    ('by a hash of `design`', 'as `fold` says')
    """
    if split.get("by"):
        return f"as `{clean(split['by'], 40)}` says"
    column = split.get("group_by")
    return f"by a hash of {f'`{clean(column, 40)}`' if column else 'the key'}"


def _alignment_line(report: Mapping[str, Any]) -> str:
    """Which alignment was taken, and by what."""
    alignment = section(report, "alignment")
    if not alignment.get("method"):
        return ""
    average = f", average {clean(alignment['average'], 40)}" if alignment.get("average") else ""
    by = f", chosen by: {clean(alignment['chosen_by'], 80)}" if alignment.get("chosen_by") else ""
    return f"alignment: {clean(alignment['method'], 40)}, {count(alignment.get('dim'))} dimensions{average}{by}"


def _reuse_line(report: Mapping[str, Any]) -> str:
    """What went through the encoders, and what did not have to."""
    inputs = []
    for name, known in section(report, "reuse").items():
        if isinstance(known, Mapping):
            parts = [f"{count(known[part])} {what}" for part, what in _REUSE.items() if known.get(part)]
            inputs.append(f"{clean(name, 40)} {', '.join(parts)}" if parts else "")
    inputs = [line for line in inputs if line]
    return f"embeddings: {'; '.join(inputs)}" if inputs else ""


def rich_table(sheet: Sheet) -> Table:
    """A table for a terminal."""
    table = Table(
        title=Text(sheet.title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1 if len(sheet.header) <= _WIDE else 0),
    )
    for column, name in enumerate(sheet.header):
        words = column in sheet.words
        style = "dim" if words and column else ""
        table.add_column(
            Text(name), justify="left" if words else "right", style=style, no_wrap=not words and "\n" not in name,
            overflow="fold" if words else "ellipsis",
        )  # fmt: skip
    for row, cells in enumerate(sheet.rows):
        styles = ["bold" if (row, column) in sheet.strong else "" for column in range(len(cells))]
        table.add_row(*map(Text, cells, styles))
    return table


def _markdown(sheet: Sheet) -> str:
    lines = [[_escaped(name) for name in sheet.header]]
    lines.append([":--" if column in sheet.words else "--:" for column in range(len(sheet.header))])
    for row, cells in enumerate(sheet.rows):
        shown = [_escaped(cell) for cell in cells]
        lines.append([f"**{cell}**" if (row, at) in sheet.strong else cell for at, cell in enumerate(shown)])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _escaped(value: object, longest: int = 400) -> str:
    return re.sub(r"([\\`*_{}\[\]()#!|<>&~$])", r"\\\1", clean(value, longest))
