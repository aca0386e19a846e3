"""What the tables are made of: cells, rows, and the line that says where their figures come from."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from benchmarks.result_files import Result, load

BLOCKS: dict[str, Callable[[], str]] = {}
"""Every block of figures by its name in the pages."""


def block(function: Callable[[], str]) -> Callable[[], str]:
    """Makes a function's Markdown a block, named as it is, with hyphens."""
    BLOCKS[function.__name__.replace("_", "-")] = function
    return function


def last(name: str) -> Result:
    """The newest run of a benchmark."""
    return load(name)[-1]


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def with_source(text: str, *results: Result) -> str:
    """A block that ends with where its figures come from, a line for each run."""
    return "\n\n".join([text, *map(source, results)])


def source(result: Result) -> str:
    """Command, date, commit, machine, rounds and what else is known of a run."""
    parts = [f"`{result.command}`", result.date, commit(result), machine(result)]
    parts += [f"{result.rounds} rounds"] if (result.rounds or 0) > 1 else []
    note = f" {result.note[0].upper()}{result.note[1:]}." if result.note else ""
    return f"*From {'; '.join(parts)}.{note}*"


def commit(result: Result) -> str:
    """The commit that was measured, or what is known of it."""
    if result.commit is None:
        return f"commit not noted, result kept in {result.kept_in}"
    return f"commit {result.commit}" + (" with changes" if result.dirty else "")


def machine(result: Result) -> str:
    """Cores, processor, memory and GPU, as far as they were noted."""
    there = result.machine
    parts = [f"{there.cores} cores" if there.cores else "", there.processor or "processor not noted"]
    if there.avx512 is not None:
        parts.append("AVX-512" if there.avx512 else "no AVX-512")
    parts += [f"{there.memory_gib} GiB" if there.memory_gib else "", there.gpu or ""]
    parts.append(f"load {there.load} at the start" if there.load is not None else "")
    return ", ".join(filter(None, parts))


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits, thousands apart, no exponent: 1,138; 0.774; 28.5."""
    whole = len(str(int(abs(value)))) if abs(value) >= 1 else 0
    return f"{value:,.{max(0, digits - whole)}f}" if value else "0"


def times(value: float) -> str:
    """A ratio, with two digits behind the point below 10."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def spread(values: Sequence[float], digits: int = 3) -> str:
    """The median and the range of all rounds."""
    low, high = number(min(values), digits), number(max(values), digits)
    return f"{number(statistics.median(values), digits)} ({low} to {high})"


def points(share: float, digits: int = 1) -> str:
    """A difference of shares in points, with its sign: +0.9."""
    value = round(100 * share, digits)
    return f"{value:+.{digits}f}" if value else f"{0:.{digits}f}"


def interval(gap: Mapping[str, Any]) -> str:
    """A gap in points with its 95 % interval."""
    if gap["low"] is None:
        return f"{points(gap['gap'])} points"
    return f"{points(gap['gap'])} points ({points(gap['low'])} to {points(gap['high'])})"


def gap_of(gaps: Sequence[Mapping[str, Any]], condition: str, against: str) -> Mapping[str, Any]:
    """The gap under a condition against a rival."""
    return next(gap for gap in gaps if gap["condition"] == condition and gap["against"] == against)
