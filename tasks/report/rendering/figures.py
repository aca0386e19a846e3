"""Pictures of a report, for slides and for the page, each on a light and on a dark ground."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from barycenter.tasks.report.rendering.drawing import DARK, LIGHT, Theme, blank, finish_bars, finish_curve, png, styled
from barycenter.tasks.report.rendering.facts import (
    Scores,
    arrow,
    clean,
    dictionaries,
    interval,
    items,
    number,
    retrieval_pairs,
    section,
)

_CATEGORIES = 10


def plots(report: Mapping[str, Any], samples: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """PNG files by name: ``probe.png`` and its like, and ``probe-dark.png`` and its like.

    Report and samples are as in report.json and samples.json; a figure whose figures are absent is not drawn.

    Returns:
        Any of probe, correlations, retrieval, dimensions, learning, residuals and map; each about 920 pixels wide.
    """
    drawn = {}
    for name, draw in _FIGURES.items():
        for suffix, theme in (("", LIGHT), ("-dark", DARK)):
            with styled(theme):
                figure = draw(samples or {} if name in _OF_SAMPLES else report, theme)
                if figure is not None:
                    drawn[f"{name}{suffix}.png"] = png(figure)
    return drawn


def _probe(report: Mapping[str, Any], theme: Theme) -> Figure | None:
    scores = Scores.of(report, cross_validated=True) or Scores.of(report)
    if scores is None:
        return None
    scale = 100.0 if scores.is_share else 1.0
    bars = len(scores.conditions)
    figure, axes = blank(0.75 + len(scores.candidates) * (0.13 * bars + 0.12))
    thickness = 0.8 / bars
    for at, condition in enumerate(scores.conditions):
        known = [(place, name) for place, name in enumerate(scores.candidates) if (name, condition) in scores.values]
        values = [scale * scores.values[name, condition] for _, name in known]
        where = [place + (at - (bars - 1) / 2) * thickness for place, _ in known]
        color = theme.series[at % len(theme.series)]
        axes.barh(where, values, 0.86 * thickness, color=color, label=clean(condition, 24))
        for height, (_, name), value in zip(where, known, values, strict=True):
            ends = scores.intervals.get((name, condition))
            if ends is not None:
                axes.plot([scale * ends[0], scale * ends[1]], [height] * 2, color=theme.ink, linewidth=1, alpha=0.75)
            edge = max(value, scale * ends[1] if ends else value, 0)
            text = f"{value:.1f}" if scores.is_share else f"{value:.3f}"
            axes.text(edge + 0.012 * _reach(scores, scale), height, text, va="center", fontsize=6.5, color=theme.quiet)
    baseline = number(section(report, "probe").get("baseline"))
    if baseline is not None and scores.is_share:
        axes.axvline(
            scale * baseline, color=theme.quiet, linestyle=(0, (3, 3)), linewidth=0.9, label="one label for all"
        )
    axes.set_xlim(min(0, scale * min(scores.values.values())), 1.09 * _reach(scores, scale))
    names = [clean(name, 20) for name in scores.candidates]
    finish_bars(axes, theme, names, f"{scores.metric_name}{scores.unit}")
    return figure


def _reach(scores: Scores, scale: float) -> float:
    ends = [high for _, high in scores.intervals.values()]
    return max(scale * max([*scores.values.values(), *ends]), 0.05 * scale)


def _correlations(report: Mapping[str, Any], theme: Theme) -> Figure | None:
    alignment = section(report, "alignment")
    tested = bool(items(alignment, "test_correlations"))
    given = items(alignment, "test_correlations" if tested else "heldout_correlations")
    values = [np.nan if (known := number(value)) is None else known for value in given]
    if not np.isfinite(values).any():
        return None
    figure, axes = blank(2.9)
    order = np.arange(1, len(values) + 1)
    name = "test rows" if tested else "held out"
    if len(values) <= 40:
        axes.vlines(order, 0, values, color=theme.series[0], alpha=0.35, linewidth=2)
        axes.plot(order, values, "o", color=theme.series[0], markersize=4, clip_on=False, label=name)
    else:
        axes.fill_between(order, 0, values, color=theme.series[0], alpha=0.15, linewidth=0)
        axes.plot(order, values, color=theme.series[0], linewidth=1.6, label=name)
    edge = number(alignment.get("noise_edge"))
    if edge is not None and tested:
        axes.axhline(
            edge, color=theme.series[1], linestyle=(0, (4, 3)), linewidth=1.1, label=f"noise reaches {edge:.2f}"
        )
    axes.set_ylim(min(0.0, 1.1 * float(np.nanmin(values))), max(1.0, float(np.nanmax(values))))
    axes.set_xlim(0.2 if len(values) <= 40 else 1, len(values) + (0.8 if len(values) <= 40 else 0))
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    finish_curve(axes, "component", "correlation")
    return figure


def _retrieval(report: Mapping[str, Any], theme: Theme) -> Figure | None:
    names = {"r1": "first", "r5": "in the first 5", "r10": "in the first 10"}
    pairs = [(arrow(name), figures) for name, figures in retrieval_pairs(report) if set(names) & set(figures)]
    if not pairs:
        return None
    figure, axes = blank(0.9 + 0.55 * len(pairs))
    for at, (key, label) in enumerate(names.items()):
        known = [(place, 100 * figures[key]) for place, (_, figures) in enumerate(pairs) if key in figures]
        where = [place + (at - 1) * 0.26 for place, _ in known]
        bars = axes.barh(where, [value for _, value in known], 0.22, color=theme.series[at], label=label)
        axes.bar_label(bars, fmt="%.1f", padding=3, fontsize=7, color=theme.quiet)
    chance = number(section(report, "retrieval").get("chance_r10"))
    if chance is not None:
        axes.axvline(100 * chance, color=theme.quiet, linestyle=(0, (3, 3)), linewidth=0.9, label="chance in 10")
    axes.set_xlim(0, 109)
    axes.set_xticks(range(0, 101, 20))
    finish_bars(axes, theme, [clean(name, 24) for name, _ in pairs], "found, % of held-out rows")
    return figure


def _dimensions(report: Mapping[str, Any], theme: Theme) -> Figure | None:
    scores = Scores.of(report)
    concat = scores.values.get(("concat", "complete")) if scores else None
    return _curve(report, theme, ("dimensions", "dim"), "dimension of the fused vector", concat)


def _learning(report: Mapping[str, Any], theme: Theme) -> Figure | None:
    return _curve(report, theme, ("learning", "rows"), "labeled rows learned from", None)


def _curve(
    report: Mapping[str, Any], theme: Theme, of: tuple[str, str], across: str, concat: float | None
) -> Figure | None:
    """Scores of the fused vector, with their intervals, over what grows."""
    name, key = of
    scores = Scores.of(report)
    share = scores is None or scores.is_share
    scale = 100.0 if share else 1.0
    points = sorted(
        (at, scale * score, interval([point.get("low"), point.get("high")]))
        for point in dictionaries(section(report, "probe"), name)
        if (at := number(point.get(key))) is not None and (score := number(point.get("complete"))) is not None
    )
    if len(points) < 2:
        return None
    figure, axes = blank(2.9)
    sizes, values, ends = zip(*points, strict=True)
    if all(ends):
        low, high = (np.array([scale * pair[side] for pair in ends if pair]) for side in (0, 1))
        axes.fill_between(sizes, low, high, color=theme.series[0], alpha=0.15, linewidth=0)
    axes.plot(sizes, values, "o-", color=theme.series[0], linewidth=1.6, markersize=4, label="fused")
    if concat is not None:
        axes.axhline(scale * concat, color=theme.series[1], linestyle=(0, (4, 3)), linewidth=1.1, label="concatenation")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [f"{size:,.0f}" for size in sizes])
    axes.minorticks_off()
    metric = f"{scores.metric_name if scores else 'score'}{', %' if share else ''}"
    finish_curve(axes, across, metric, most=100.0 if share else 1.0)
    return figure


def _residuals(samples: Mapping[str, Any], theme: Theme) -> Figure | None:
    given = (items(section(samples, "residuals"), name) for name in ("predicted", "residual"))
    points = [
        (x, y)
        for pair in zip(*given, strict=False)
        if (x := number(pair[0])) is not None and (y := number(pair[1])) is not None
    ]
    if len(points) < 2:
        return None
    figure, axes = blank(2.9)
    axes.axhline(0, color=theme.quiet, linestyle=(0, (3, 3)), linewidth=0.9)
    _dots(axes, points, float(np.clip(6000 / len(points), 3, 14)), theme.series[0], "")
    finish_curve(axes, "predicted", "true value − predicted")
    return figure


def _map(samples: Mapping[str, Any], theme: Theme) -> Figure | None:
    plane = section(samples, "map")
    xs, ys, labels, values = (items(plane, key) for key in ("x", "y", "label", "value"))
    points = [
        (x, y, at)
        for at, pair in enumerate(zip(xs, ys, strict=False))
        if (x := number(pair[0])) is not None and (y := number(pair[1])) is not None
    ]
    if not points:
        return None
    figure, axes = blank(4.4)
    size = float(np.clip(9000 / len(points), 2, 14))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if values:
        numbers = {at: number(value) for at, value in enumerate(values)}
        _by_value(figure, axes, [(x, y, numbers.get(at)) for x, y, at in points], size, theme)
    else:
        texts = {at: clean(label, 18) for at, label in enumerate(labels) if label is not None}
        _by_label(axes, [(x, y, texts.get(at, "")) for x, y, at in points], size, theme)
    return figure


def _by_label(axes: Axes, points: list[tuple[float, float, str]], size: float, theme: Theme) -> None:
    """The most frequent labels in a color each."""
    frequent = [label for label, _ in Counter(label for *_, label in points if label).most_common(_CATEGORIES)]
    rest = [(x, y) for x, y, label in points if label not in frequent]
    for color, group in zip(theme.series, frequent, strict=False):
        _dots(axes, [(x, y) for x, y, label in points if label == group], size, color, group)
    if rest:
        _dots(axes, rest, size, theme.quiet, "other")
    if frequent:
        gaps = {"handletextpad": 0.2, "columnspacing": 0.9}
        axes.legend(markerscale=1.8, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3, fontsize=7.5, **gaps)


def _by_value(
    figure: Figure, axes: Axes, points: list[tuple[float, float, float | None]], size: float, theme: Theme
) -> None:
    """A color scale for numbers, from the fifth to the ninety-fifth of a hundred of them."""
    unknown = [(x, y) for x, y, value in points if value is None]
    if unknown:
        _dots(axes, unknown, size, theme.rule, "")
    known = [(x, y, value) for x, y, value in points if value is not None]
    if known:
        xs, ys, values = (np.array(column, dtype=float) for column in zip(*known, strict=True))
        low, high = np.percentile(values, [5, 95])
        shown = axes.scatter(xs, ys, s=size, c=values, cmap="viridis", vmin=low, vmax=high, alpha=0.8, linewidths=0)
        bar = figure.colorbar(shown, ax=axes, orientation="horizontal", shrink=0.6, aspect=40, pad=0.02)
        bar.set_label("the target", fontsize=8)
        bar.outline.set_visible(False)


def _dots(axes: Axes, points: list[tuple[float, float]], size: float, color: str, label: str) -> None:
    xs, ys = zip(*points, strict=True)
    axes.scatter(xs, ys, s=size, color=color, alpha=0.7, linewidths=0, label=label)


_FIGURES: dict[str, Callable[[Mapping[str, Any], Theme], Figure | None]] = {
    "probe": _probe,
    "correlations": _correlations,
    "retrieval": _retrieval,
    "dimensions": _dimensions,
    "learning": _learning,
    "residuals": _residuals,
    "map": _map,
}
_OF_SAMPLES = ("residuals", "map")
