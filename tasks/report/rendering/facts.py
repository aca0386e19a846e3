"""Reading a report that may lack anything, and writing its numbers."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self

AVERAGES = ("naive_mean", "pca_mean", "concat", "concat_imputed", "fused")
COMPLETE = "complete"
_NAME = 60
_BEST_INPUT = ", best input"
_NOTES = {
    "naive_mean": "plain mean, shorter vectors padded",
    "pca_mean": "mean of each input's PCA",
    "concat": "side by side, gaps filled with the mean",
    "concat_imputed": "side by side, gaps predicted",
    "fused": "the vectors as written",
}
_METRICS = {"accuracy": "accuracy", "r2": "R²", "f1": "F1", "micro_f1": "micro F1", "macro_f1": "macro F1"}


def section(report: Mapping[str, Any], *path: str) -> Mapping[str, Any]:
    """The dictionary under ``path``, empty where there is none.

    >>> section({"probe": {"metric": "accuracy"}}, "probe")["metric"], section({}, "probe", "candidates")
    ('accuracy', {})
    """
    node: Any = report
    for key in path:
        node = node.get(key) if isinstance(node, Mapping) else None
    return node if isinstance(node, Mapping) else {}


def warnings_of(report: Mapping[str, Any]) -> list[Any]:
    """What a user should heed: of the version itself, and beside the one before it."""
    return [*items(report, "warnings"), *items(section(report, "history"), "warnings")]


def items(node: Mapping[str, Any], key: str) -> list[Any]:
    """The list under ``key``, empty where there is none."""
    value = node.get(key)
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str | bytes) else []


def dictionaries(node: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The dictionaries in the list under ``key``."""
    return [value for value in items(node, key) if isinstance(value, Mapping)]


def number(value: object) -> float | None:
    """A finite number, or None.

    >>> number(2), number(float("nan")), number("2"), number(True)
    (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def interval(value: object) -> tuple[float, float] | None:
    """A pair of finite numbers, or None."""
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != 2:
        return None
    low, high = number(value[0]), number(value[1])
    return None if low is None or high is None else (low, high)


def clean(value: object, longest: int = 400) -> str:
    r"""Text on one line that can be written as UTF-8: no control characters, no lone surrogates, shortened.

    >>> clean("a\nb\x00c\ud800"), clean("x" * 9, longest=5)
    ('a b c?', 'xxxx…')
    """
    text = str(value)[: 4 * longest].encode("utf-8", "replace").decode()
    line = " ".join(
        "".join(letter if letter.isprintable() or letter in "\u200d\u200c" else " " for letter in text).split()
    )
    return line if len(line) <= longest else line[: longest - 1] + "…"


def count(value: object) -> str:
    """A whole number with thousands apart.

    >>> count(1234567), count(None)
    ('1,234,567', '–')
    """
    known = number(value)
    return "–" if known is None else f"{known:,.0f}"


def duration(seconds: object) -> str:
    """Seconds as a person says them.

    >>> duration(0.0421), duration(75), duration(7300)
    ('0.04 s', '1 min 15 s', '2 h 1 min')
    """
    known = number(seconds)
    if known is None:
        return "–"
    if known < 60:
        return f"{known:.2f} s" if known < 10 else f"{known:.0f} s"
    minutes, rest = divmod(round(known), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def rate(value: object) -> str:
    """Rows a second, with a decimal where there are few."""
    known = number(value)
    return "–" if known is None else f"{known:,.0f}" if known >= 10 else f"{known:.1f}"


def evidence(report: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """What the verdict rests on: the cross-validated probe (True) where there is one, else the probe of one split."""
    probe = section(report, "probe")
    crossed = section(probe, "cross_validated")
    if number(section(crossed, "candidates", "fused").get(COMPLETE)) is not None:
        return crossed, True
    return probe, False


@dataclass(frozen=True)
class Scores:
    """Candidates against conditions, read from ``probe`` or ``probe.cross_validated``.

    Attributes:
        metric: As the report names it.
        candidates: Names in the order of the table: the inputs, the baselines, fused.
        conditions: ``complete`` first, then each ``without X``.
        values: Score by candidate and condition, where there is one.
        intervals: Low and high by candidate and condition, where given.
    """

    metric: str
    candidates: tuple[str, ...]
    conditions: tuple[str, ...]
    values: Mapping[tuple[str, str], float]
    intervals: Mapping[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, report: Mapping[str, Any], *, cross_validated: bool = False) -> Self | None:
        """The scores of a report, None where it has none."""
        probe = section(report, "probe")
        source = section(probe, "cross_validated") if cross_validated else probe
        given = {
            clean(name, _NAME): scores
            for name, scores in section(source, "candidates").items()
            if isinstance(scores, Mapping)
        }
        values = {
            (name, clean(condition, _NAME)): known
            for name, scores in given.items()
            for condition, value in scores.items()
            if (known := number(value)) is not None
        }
        if not values:
            return None
        intervals = {
            (clean(name, _NAME), clean(condition, _NAME)): both
            for name, ends in section(source, "intervals").items()
            for condition, pair in (ends.items() if isinstance(ends, Mapping) else ())
            if (both := interval(pair)) is not None
        }
        order = {name: place for place, name in enumerate(AVERAGES)}
        names = sorted(given, key=lambda name: order.get(name, -1))
        inputs = [f"without {name}" for name in names if name not in AVERAGES]
        found = {condition for _, condition in values}
        conditions = [condition for condition in (COMPLETE, *inputs) if condition in found]
        conditions += sorted(found.difference(conditions))
        return cls(str(probe.get("metric", "score")), tuple(names), tuple(conditions), values, intervals)

    @property
    def inputs(self) -> tuple[str, ...]:
        """The inputs, each a candidate by itself."""
        return tuple(name for name in self.candidates if name not in AVERAGES)

    def best_input(self, condition: str = COMPLETE) -> str | None:
        """The single input with the highest score."""
        known = [name for name in self.inputs if (name, condition) in self.values]
        return max(known, key=lambda name: self.values[name, condition], default=None)

    def is_best(self, name: str, condition: str) -> bool:
        """Whether no candidate has a higher score under a condition."""
        known = [value for (_, where), value in self.values.items() if where == condition]
        return (name, condition) in self.values and self.values[name, condition] == max(known)

    @property
    def is_share(self) -> bool:
        """Whether scores are shares in 0..1, shown in per cent, rather than R2."""
        return self.metric.lower() not in ("r2", "r²")

    @property
    def metric_name(self) -> str:
        """The metric as it is written in a sentence."""
        return _METRICS.get(self.metric.lower(), clean(self.metric, 30))

    def score(self, value: float | None, *, unit: bool = False) -> str:
        """A score: per cent with one decimal, R2 with three."""
        if value is None:
            return "–"
        return f"{100 * value:.1f}{' %' if unit else ''}" if self.is_share else f"{value:.3f}".replace("-", "−")

    @property
    def unit(self) -> str:
        """What follows the metric's name in a header."""
        return ", %" if self.is_share else ""

    def with_interval(self, name: str, condition: str) -> str:
        """A score with its interval where there is one: ``79.9 (77.9-81.7)``, with an en dash."""
        shown = self.score(self.values.get((name, condition)))
        ends = self.intervals.get((name, condition))
        return shown if ends is None else f"{shown} ({self.score(ends[0])}–{self.score(ends[1])})"

    def gap(self, value: float, *, sign: bool = True) -> str:
        """A difference of scores: points with one decimal, R2 with three."""
        shown = f"{100 * value:{'+' if sign else ''}.1f}" if self.is_share else f"{value:{'+' if sign else ''}.3f}"
        return shown.replace("-", "−")


@dataclass(frozen=True)
class Gap:
    """How far fused is above another candidate, with the ends of a 95 % interval where known."""

    condition: str
    against: str
    mean: float
    low: float | None
    high: float | None

    @classmethod
    def all_of(cls, source: Mapping[str, Any]) -> list[Self]:
        """The ``gaps`` of a probe or of a cross-validated one."""
        found: list[Self] = []
        for title, gap in section(source, "gaps").items():
            known = {key: number(section({"gap": gap}, "gap").get(key)) for key in ("mean", "low", "high")}
            if known["mean"] is not None:
                condition = clean(title.removesuffix(_BEST_INPUT), _NAME)
                against = clean(gap.get("against") or "the rest", _NAME)
                found.append(cls(condition, against, known["mean"], known["low"], known["high"]))
        return found

    @property
    def tone(self) -> Literal["good", "even", "bad", "open"]:
        """Whether the interval is above zero, holds it, or is below; open where there is none."""
        if self.low is None or self.high is None:
            return "open"
        return "good" if self.low > 0 else "bad" if self.high < 0 else "even"


def note(name: str) -> str:
    """What a candidate is, in a few words."""
    return _NOTES.get(name, "this input alone")


def retrieval_pairs(report: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Directions of retrieval with their figures, e.g. ``("text->image", {"r1": 0.1, ...})``."""
    for name, figures in section(report, "retrieval").items():
        if isinstance(figures, Mapping):
            yield name, {key: known for key, value in figures.items() if (known := number(value)) is not None}


def arrow(direction: str) -> str:
    """A direction of retrieval with a real arrow."""
    return clean(direction, 60).replace("->", " → ")
