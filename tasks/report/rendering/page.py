"""report.html: one self-contained page that asks nothing of the network."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from barycenter.tasks.report.rendering.answers import findings, mistakes_sentence, score_answer
from barycenter.tasks.report.rendering.facts import (
    COMPLETE,
    Gap,
    Scores,
    clean,
    count,
    dictionaries,
    evidence,
    items,
    note,
    number,
    section,
    warnings_of,
)
from barycenter.tasks.report.rendering.judgment import judge
from barycenter.tasks.report.rendering.meanings import MEANINGS
from barycenter.tasks.report.rendering.mistake_tables import (
    confusion,
    doubtful_sheet,
    label_sheet,
    pair_sheet,
    sure_share,
)
from barycenter.tasks.report.rendering.tables import gap_sheet, retrieval_sheet, rows_sheet, speed_sheet, split_words

_CAPTIONS = {
    "correlations": "Correlation of the aligned inputs, component by component, on rows held out of the fit",
    "retrieval": "How often a held-out row's other input is found by its aligned vector",
    "dimensions": "What the dimension of the fused vector costs",
    "learning": "What more labeled rows would bring",
    "residuals": "How far off the predictions are",
}
_NAME, _TEXT, _GALLERY, _ERRORS, _THUMBNAIL_BYTES = 60, 280, 60, 24, 200_000
_JPEG = b"\xff\xd8\xff"


def html(report: Mapping[str, Any], samples: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """The whole page: styles and pictures inside, everything escaped, no scripts.

    Report and samples are as in report.json and samples.json, images PNGs by file name, as ``plots`` beside this
    module returns them; ``x-dark.png`` is shown in place of ``x.png`` to readers who prefer dark pages. The HTML can be
    written as UTF-8 whatever the texts hold.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"excerpt": lambda text: clean(text, _TEXT), "name": lambda text: clean(text, _NAME)}
    return environment.get_template("report.html.jinja").render(**_content(report, samples, images))


def _printable(value: object) -> object:
    return value if isinstance(value, Markup) or not isinstance(value, str) else clean(value, 100_000)


def _content(report: Mapping[str, Any], samples: Mapping[str, Any], images: Mapping[str, bytes]) -> dict[str, Any]:
    crossed, single = Scores.of(report, cross_validated=True), Scores.of(report)
    judged, is_crossed = evidence(report)
    shown = crossed if is_crossed else single
    scores = [
        {"title": title, "table": _score_table(table), "note": remark}
        for table, title, remark in (
            (crossed, "Cross-validated", _crossed_note(report)),
            (single, "One held-out split", _split_note(report)),
        )
        if table is not None
    ]
    return {
        "name": clean(report.get("name") or "Report", 120),
        "subtitle": _subtitle(report),
        "style": Markup((Path(__file__).parent / "report.css.jinja").read_text()),
        "verdict": judge(report),
        "warnings": [clean(text) for text in warnings_of(report)],
        "tiles": _tiles(report, shown),
        "score": score_answer(report),
        "findings": [finding | {"settings": _settings(finding)} for finding in findings(report)],
        "mistakes": _mistakes(report, samples),
        "meanings": MEANINGS,
        "several_inputs": _several_inputs(report, shown),
        "scores": scores,
        "gaps": _gap_table(judged, shown) if shown else None,
        "tried": _tried(report),
        "retrieval": retrieval_sheet(report),
        "rows": rows_sheet(report),
        "speed": speed_sheet(report),
        "figures": _figures(report, samples, images),
        "gallery": _gallery(samples),
        "agreement": _agreement(report),
        "pictured": any(
            "thumbnail" in row
            for query in dictionaries(samples, "neighbors")
            for row in (query, *dictionaries(query, "neighbors"))
        ),
        "lineage": _flat(section(report, "lineage")),
    }


def _subtitle(report: Mapping[str, Any]) -> list[str]:
    alignment = section(report, "alignment")
    facts = [("version", report.get("version")), ("alignment", alignment.get("method"))]
    facts += [(key, alignment.get(key)) for key in ("dim", "regularization", "average", "chosen_by")]
    shown = [f"{key.replace('_', ' ')} {_plain(value)}" for key, value in facts if value not in (None, "", {})]
    split = section(report, "split")
    if "train" in split and "test" in split:
        shown.append(
            f"{count(split['train'])} rows to learn from, {count(split['test'])} held out {split_words(split)}"
        )
    return shown


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{clean(key, 60)} {_plain(part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_plain(part) for part in value)
    return clean(value, 200)


def _tiles(report: Mapping[str, Any], scores: Scores | None) -> list[tuple[str, str, str]]:
    """Figures to see first: (number, what it is, more)."""
    tiles = []
    if scores is not None:
        single = scores.best_input()
        shown = [("fused", "fused"), (single, f"{single} alone, the best input"), ("concat", "concatenation")]
        for name, words in shown:
            value = scores.values.get((str(name), COMPLETE))
            if value is not None:
                tiles.append((scores.score(value, unit=True), words, scores.metric_name))
    known = section(report, "rows")
    if "written" in known:
        tiles.append((count(known["written"]), "rows written", f"of {count(known.get('read'))} read"))
    return tiles


def _score_table(scores: Scores) -> dict[str, Any]:
    ends = [high for _, high in scores.intervals.values()]
    top = 1.0 if scores.is_share else max([*scores.values.values(), *ends, 1e-9])

    def width(value: float) -> float:
        return round(100 * min(max(value / top, 0.0), 1.0), 2)

    def cell(name: str, condition: str) -> dict[str, Any] | None:
        """A number with a bar behind it; widths in per cent of the cell."""
        value = scores.values.get((name, condition))
        if value is None:
            return None
        pair = scores.intervals.get((name, condition))
        low, high = (width(pair[0]), width(pair[1])) if pair else (None, None)
        best = scores.is_best(name, condition)
        return {"text": scores.score(value), "width": width(value), "low": low, "high": high, "best": best}

    cells = {name: [cell(name, condition) for condition in scores.conditions] for name in scores.candidates}
    rows = [{"name": name, "note": note(name), "cells": row} for name, row in cells.items()]
    return {"head": f"{scores.metric_name}{scores.unit}", "conditions": scores.conditions, "rows": rows}


def _split_note(report: Mapping[str, Any]) -> str:
    probe = section(report, "probe")
    parts = []
    if (n := number(probe.get("n_test"))) is not None:
        parts.append(f"{count(n)} test rows that have all inputs")
    baseline, scores = number(probe.get("baseline")), Scores.of(report)
    if baseline is not None and scores is not None and scores.is_share:
        parts.append(f"the most frequent label alone gives {scores.score(baseline, unit=True)}")
    return "; ".join(parts)


def _crossed_note(report: Mapping[str, Any]) -> str:
    crossed = section(report, "probe", "cross_validated")
    n = number(crossed.get("n_test"))
    rows = f"{count(n)} rows, each" if n is not None else "Every row"
    return f"{rows} scored by a model that never saw it or its group"


def _gap_table(source: Mapping[str, Any], scores: Scores) -> dict[str, Any] | None:
    sheet = gap_sheet(source, scores)
    if not sheet.rows:
        return None
    gaps = Gap.all_of(source)
    known = [abs(value) for gap in gaps for value in (gap.mean, gap.low, gap.high) if value is not None]
    reach = 1.1 * max([*known, 1e-9])

    def place(value: float | None) -> float | None:
        return None if value is None else round(50 + 50 * value / reach, 2)

    rows = [
        {"cells": cells, "mean": place(gap.mean), "low": place(gap.low), "high": place(gap.high)}
        for cells, gap in zip(sheet.rows, gaps, strict=True)
    ]
    return {"sheet": sheet, "rows": rows}


def _tried(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The table of alignment settings that ``auto`` compared; None where there was no choice."""
    tried = dictionaries(section(report, "alignment"), "tried")
    columns = list(dict.fromkeys(key for setting in tried for key in setting if key != "chosen"))
    if not columns:
        return None
    rows = [
        {"cells": [_plain(setting[key]) if key in setting else "" for key in columns], "chosen": setting.get("chosen")}
        for setting in tried
    ]
    numeric = [all(number(setting.get(key, 0)) is not None for setting in tried) for key in columns]
    return {"columns": [clean(column, _NAME).replace("_", " ") for column in columns], "rows": rows, "numeric": numeric}


def _figures(
    report: Mapping[str, Any], samples: Mapping[str, Any], images: Mapping[str, bytes]
) -> dict[str, dict[str, Any]]:
    captions = _CAPTIONS | {"map": _scatter_caption(samples), "correlations": _correlation_caption(report)}
    figures = {}
    for name, content in images.items():
        stem = name.removesuffix(".png")
        if stem != "probe" and not stem.endswith("-dark"):
            dark = images.get(f"{stem}-dark.png")
            figures[stem] = {
                "light": _data_uri(content, "png"),
                "dark": _data_uri(dark, "png") if dark else None,
                "caption": captions.get(stem, clean(stem, _NAME)),
                "meaning": MEANINGS.get(stem, ""),
            }
    return figures


def _data_uri(content: bytes, kind: Literal["png", "jpeg"]) -> Markup:
    return Markup(f"data:image/{kind};base64,") + base64.b64encode(content).decode()


def _scatter_caption(samples: Mapping[str, Any]) -> str:
    """How many fused vectors the scatter plot shows, and what brought them into the plane."""
    method = clean(section(samples, "map").get("method") or "PCA", 20)
    rows = count(len(items(section(samples, "map"), "x")))
    by = "its number" if items(section(samples, "map"), "value") else "label"
    colored = (
        f", colored by {by}" if any(label is not None for label in items(section(samples, "map"), "label")) else ""
    )
    return f"{rows} fused vectors in the plane ({method}){colored}"


def _correlation_caption(report: Mapping[str, Any]) -> str:
    real = number(section(report, "alignment").get("n_significant"))
    if real is None:
        return _CAPTIONS["correlations"]
    components = len(items(section(report, "alignment"), "test_correlations"))
    return (
        f"Correlation of the aligned inputs, component by component, on test rows that no fit has seen; {count(real)} "
        f"of {count(components)} stand above what randomly paired inputs reach in any component (5 % level)"
    )


def _agreement(report: Mapping[str, Any]) -> str:
    """How often nearest neighbors share the label."""
    found = section(report, "neighbors")
    share, difference = number(found.get("share")), number(found.get("difference"))
    good, bad = count(found.get("good")), count(found.get("bad"))
    if difference is not None and (spread := number(found.get("spread"))) is not None:
        return (
            f"Of {count(found.get('n'))} held-out rows, the mean of the five nearest is {difference:.4g} off on "
            f"average; the target spreads by {spread:.4g}; near-copies are left out. The cases are evenly spaced among "
            f"the {good} good ones (off by at most a fifth of the spread) and the {bad} bad ones (off by at least four "
            "fifths)"
        )
    if share is None:
        return "Nearest rows by cosine similarity; near-copies of a row are left out"
    return (
        f"Of {count(found.get('n'))} held-out rows, {100 * share:.0f} % of the five nearest share the label; "
        f"near-copies are left out. The cases are evenly spaced among the {good} good ones (at least 4 of 5 agree) "
        f"and the {bad} bad ones (at most 1)"
    )


def _gallery(samples: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"row": _shown(query), "good": query.get("good"), "neighbors": [_shown(row) for row in found]}
        for query in dictionaries(samples, "neighbors")[:_GALLERY]
        if (found := dictionaries(query, "neighbors"))
    ]


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the gallery; a picture that is no base64 is left out."""
    picture = row.get("thumbnail")
    try:
        content = base64.b64decode(picture, validate=True) if isinstance(picture, str) else b""
    except (binascii.Error, ValueError):
        content = b""
    if not content.startswith(_JPEG) or len(content) > _THUMBNAIL_BYTES:
        content = b""
    known = {key: row[key] for key in ("key", "text", "label", "predicted") if row.get(key) is not None}
    if (similarity := number(row.get("similarity"))) is not None:
        known["similarity"] = f"{similarity:.2f}"
    return known | ({"picture": _data_uri(content, "jpeg")} if content else {})


def _mistakes(report: Mapping[str, Any], samples: Mapping[str, Any]) -> dict[str, Any] | None:
    """The part of the page on rows that are wrong; None where none was predicted."""
    sentence, regression = mistakes_sentence(report), section(report, "mistakes").get("task") == "regression"
    if sentence is None:
        return None
    errors = [_shown(row) | {"sure": _sure(row)} for row in dictionaries(samples, "errors")[:_ERRORS]]
    return {
        "sentence": sentence,
        "confusion": confusion(report),
        "sheets": [sheet for sheet in (pair_sheet(report), label_sheet(report)) if sheet.rows],
        "errors": errors,
        "errors_title": "The largest residuals" if regression else "The most confident errors",
        "errors_meaning": MEANINGS["largest residuals" if regression else "errors"],
        "doubtful": doubtful_sheet(report),
        "pictured": any("picture" in row for row in errors),
    }


def _sure(row: Mapping[str, Any]) -> str:
    """How sure the model was of a wrong prediction, or how far off it is."""
    if (residual := number(row.get("residual"))) is not None:
        return f"off by {residual:+.4g}".replace("-", "−")
    certainty = number(row.get("certainty"))
    of = f" ({clean(row['part'], _NAME)})" if row.get("part") is not None else ""
    return "" if certainty is None else f"{sure_share(certainty)} % sure{of}"


def _settings(finding: Mapping[str, Any]) -> str:
    """The keys of the job file that a finding would change, as `--set` takes them."""
    return " ".join(f"--set {key}={value}" for key, value in section(finding, "set").items())


def _several_inputs(report: Mapping[str, Any], scores: Scores | None) -> bool:
    """Whether there is anything to be shared; where the report does not say how many inputs there are, yes."""
    named = section(report, "reuse") or (dict.fromkeys(scores.inputs) if scores is not None else {})
    return len(named) != 1


def _flat(node: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    lines: list[tuple[str, str]] = []
    for key, value in node.items():
        name = f"{prefix}{clean(key, 60)}"
        if isinstance(value, Mapping) and not prefix.count("."):
            lines += _flat(value, f"{name}.")
        else:
            lines.append((name, _plain(value)))
    return lines
