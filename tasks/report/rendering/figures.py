"""Pictures of a report, for slides and for the page, each on a light and on a dark ground."""

import io
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

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

_WIDTH, _DPI = 4.6, 200
_CATEGORIES = 10


@dataclass(frozen=True)
class _Theme:
    ground: str
    ink: str
    quiet: str
    rule: str
    series: tuple[str, ...]


_LIGHT = _Theme(
    "#ffffff", "#22262b", "#6b7178", "#e3e1da",
    ("#17696b", "#d08a4e", "#8087b8", "#b35968", "#7c9a4c", "#c7a93f", "#5c95c4", "#9a6fa5", "#6f7d82", "#b98b73"),
)  # fmt: skip
_DARK = _Theme(
    "#1c2024", "#e6e4de", "#9aa0a6", "#33393f",
    ("#56b8b0", "#e0a36b", "#a3a9da", "#d98795", "#a6c46f", "#e0c65f", "#83b6e0", "#c197cc", "#a3b0b5", "#d6ae98"),
)  # fmt: skip


def plots(report: Mapping[str, Any], samples: Mapping[str, Any] | None = None) -> dict[str, bytes]:
    """PNG files by name: ``probe.png`` and its like, and ``probe-dark.png`` and its like.

    Report and samples are as in report.json and samples.json; a figure whose figures are absent is not drawn.

    Returns:
        Any of probe, correlations, retrieval, dimensions and map; each about 920 pixels wide.
    """
    drawn = {}
    for name, draw in _FIGURES.items():
        for suffix, theme in (("", _LIGHT), ("-dark", _DARK)):
            with _styled(theme):
                figure = draw(samples or {} if name == "map" else report, theme)
                if figure is not None:
                    drawn[f"{name}{suffix}.png"] = _png(figure)
    return drawn


@contextmanager
def _styled(theme: _Theme) -> Iterator[None]:
    style = {
        "font.size": 9, "text.parse_math": False, "axes.titlesize": 9.5, "axes.titlelocation": "left",
        "axes.titlepad": 10, "figure.facecolor": theme.ground, "axes.facecolor": theme.ground, "text.color": theme.ink,
        "axes.labelcolor": theme.quiet, "axes.titlecolor": theme.ink, "xtick.color": theme.quiet,
        "ytick.color": theme.quiet, "axes.edgecolor": theme.rule, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": False, "grid.color": theme.rule, "grid.linewidth": 0.7, "axes.axisbelow": True,
        "legend.frameon": False, "legend.fontsize": 8, "xtick.major.size": 0, "ytick.major.size": 0,
    }  # fmt: skip
    with mpl.rc_context(style), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def _blank(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    return figure, figure.add_subplot()


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def _finish_bars(axes: Axes, theme: _Theme, names: Sequence[str], label: str) -> None:
    """Names down the side, the first on top, and what the bars are long in."""
    axes.set_yticks(range(len(names)), names, color=theme.ink)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    axes.grid(axis="x")
    _legend_above(axes)


def _finish_curve(axes: Axes, across: str, up: str) -> None:
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(axis="y")
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    """A legend over the axes, bars before lines."""
    gaps = {"handlelength": 0.9, "columnspacing": 1.2, "borderaxespad": 0.2, "borderpad": 0.1}
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(handles)), key=lambda at: isinstance(handles[at], Line2D) and len(handles) > 2)
    axes.legend(
        [handles[at] for at in order], [labels[at] for at in order], loc="lower left", bbox_to_anchor=(0, 1.0),
        ncols=2, **gaps,
    )  # fmt: skip


def _probe(report: Mapping[str, Any], theme: _Theme) -> Figure | None:
    scores = Scores.of(report, cross_validated=True) or Scores.of(report)
    if scores is None:
        return None
    scale = 100.0 if scores.is_share else 1.0
    bars = len(scores.conditions)
    figure, axes = _blank(0.75 + len(scores.candidates) * (0.13 * bars + 0.12))
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
    _finish_bars(axes, theme, names, f"{scores.metric_name}{scores.unit}")
    return figure


def _reach(scores: Scores, scale: float) -> float:
    ends = [high for _, high in scores.intervals.values()]
    return max(scale * max([*scores.values.values(), *ends]), 0.05 * scale)


def _correlations(report: Mapping[str, Any], theme: _Theme) -> Figure | None:
    alignment = section(report, "alignment")
    tested = bool(items(alignment, "test_correlations"))
    given = items(alignment, "test_correlations" if tested else "heldout_correlations")
    values = [np.nan if (known := number(value)) is None else known for value in given]
    if not np.isfinite(values).any():
        return None
    figure, axes = _blank(2.9)
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
    _finish_curve(axes, "component", "correlation")
    return figure


def _retrieval(report: Mapping[str, Any], theme: _Theme) -> Figure | None:
    names = {"r1": "first", "r5": "in the first 5", "r10": "in the first 10"}
    pairs = [(arrow(name), figures) for name, figures in retrieval_pairs(report) if set(names) & set(figures)]
    if not pairs:
        return None
    figure, axes = _blank(0.9 + 0.55 * len(pairs))
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
    _finish_bars(axes, theme, [clean(name, 24) for name, _ in pairs], "found, % of held-out rows")
    return figure


def _dimensions(report: Mapping[str, Any], theme: _Theme) -> Figure | None:
    probe = section(report, "probe")
    scores = Scores.of(report)
    share = scores is None or scores.is_share
    scale = 100.0 if share else 1.0
    points = sorted(
        (dim, scale * score, interval([point.get("low"), point.get("high")]))
        for point in dictionaries(probe, "dimensions")
        if (dim := number(point.get("dim"))) is not None and (score := number(point.get("complete"))) is not None
    )
    if len(points) < 2:
        return None
    figure, axes = _blank(2.9)
    dims, values, ends = zip(*points, strict=True)
    if all(ends):
        low, high = (np.array([scale * pair[side] for pair in ends if pair]) for side in (0, 1))
        axes.fill_between(dims, low, high, color=theme.series[0], alpha=0.15, linewidth=0)
    axes.plot(dims, values, "o-", color=theme.series[0], linewidth=1.6, markersize=4, label="fused")
    concat = scores.values.get(("concat", "complete")) if scores else None
    if concat is not None:
        axes.axhline(scale * concat, color=theme.series[1], linestyle=(0, (4, 3)), linewidth=1.1, label="concatenation")
    axes.set_xscale("log", base=2)
    axes.set_xticks(dims, [f"{dim:.0f}" for dim in dims])
    axes.minorticks_off()
    name = f"{scores.metric_name if scores else 'score'}{', %' if share else ''}"
    _finish_curve(axes, "dimension of the fused vector", name)
    return figure


def _map(report: Mapping[str, Any], theme: _Theme) -> Figure | None:
    plane = section(report, "map")
    xs, ys, labels = (items(plane, key) for key in ("x", "y", "label"))
    points = [
        (x, y, clean(labels[at], 18) if at < len(labels) and labels[at] is not None else "")
        for at, pair in enumerate(zip(xs, ys, strict=False))
        if (x := number(pair[0])) is not None and (y := number(pair[1])) is not None
    ]
    if not points:
        return None
    figure, axes = _blank(4.4)
    frequent = [label for label, _ in Counter(label for *_, label in points if label).most_common(_CATEGORIES)]
    rest = [(x, y) for x, y, label in points if label not in frequent]
    size = float(np.clip(9000 / len(points), 2, 14))
    for color, group in zip(theme.series, frequent, strict=False):
        _dots(axes, [(x, y) for x, y, label in points if label == group], size, color, group)
    if rest:
        _dots(axes, rest, size, theme.quiet, "other")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
    if frequent:
        gaps = {"handletextpad": 0.2, "columnspacing": 0.9}
        axes.legend(markerscale=1.8, loc="upper left", bbox_to_anchor=(0, -0.01), ncols=3, fontsize=7.5, **gaps)
    return figure


def _dots(axes: Axes, points: list[tuple[float, float]], size: float, color: str, label: str) -> None:
    xs, ys = zip(*points, strict=True)
    axes.scatter(xs, ys, s=size, color=color, alpha=0.7, linewidths=0, label=label)


_FIGURES: dict[str, Callable[[Mapping[str, Any], _Theme], Figure | None]] = {
    "probe": _probe,
    "correlations": _correlations,
    "retrieval": _retrieval,
    "dimensions": _dimensions,
    "map": _map,
}
