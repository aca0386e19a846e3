"""How the pictures of a report look: themes, axes, legends, PNG."""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

_WIDTH, _DPI = 4.6, 200


@dataclass(frozen=True)
class Theme:
    """Colors of one ground."""

    ground: str
    ink: str
    quiet: str
    rule: str
    series: tuple[str, ...]


LIGHT = Theme(
    "#ffffff", "#22262b", "#6b7178", "#e3e1da",
    ("#17696b", "#d08a4e", "#8087b8", "#b35968", "#7c9a4c", "#c7a93f", "#5c95c4", "#9a6fa5", "#6f7d82", "#b98b73"),
)  # fmt: skip
DARK = Theme(
    "#1c2024", "#e6e4de", "#9aa0a6", "#33393f",
    ("#56b8b0", "#e0a36b", "#a3a9da", "#d98795", "#a6c46f", "#e0c65f", "#83b6e0", "#c197cc", "#a3b0b5", "#d6ae98"),
)  # fmt: skip


@contextmanager
def styled(theme: Theme) -> Iterator[None]:
    """Draws what is drawn in the block in the colors of a theme."""
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


def blank(height: float) -> tuple[Figure, Axes]:
    """An empty figure of the report's width, ``height`` inches high."""
    figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    return figure, figure.add_subplot()


def png(figure: Figure) -> bytes:
    """The figure as a PNG, the same bytes each time."""
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer, metadata={"Software": None})
    return buffer.getvalue()


def finish_bars(axes: Axes, theme: Theme, names: Sequence[str], label: str) -> None:
    """Names down the side, the first on top, and what the bars are long in."""
    axes.set_yticks(range(len(names)), names, color=theme.ink)
    axes.invert_yaxis()
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(label)
    axes.grid(axis="x")
    _legend_above(axes)


def finish_curve(axes: Axes, across: str, up: str, *, most: float | None = None) -> None:
    """What is drawn across and up; no tick above ``most``, what a share can be at most."""
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(axis="y")
    if most is not None:
        low, high = axes.get_ylim()
        axes.set_yticks([tick for tick in axes.get_yticks() if low <= tick <= min(most, high)])
        axes.set_ylim(low, high)
    _legend_above(axes)


def _legend_above(axes: Axes) -> None:
    """A legend over the axes, bars before lines; none where nothing has a name."""
    gaps = {"handlelength": 0.9, "columnspacing": 1.2, "borderaxespad": 0.2, "borderpad": 0.1}
    handles, labels = axes.get_legend_handles_labels()
    if not handles:
        return
    order = sorted(range(len(handles)), key=lambda at: isinstance(handles[at], Line2D) and len(handles) > 2)
    axes.legend(
        [handles[at] for at in order], [labels[at] for at in order], loc="lower left", bbox_to_anchor=(0, 1.0),
        ncols=2, **gaps,
    )  # fmt: skip
