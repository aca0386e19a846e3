"""Tables of the embed stage beside other ways to embed."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.result_files import Result, load
from benchmarks.tables.blocks import block, last, number, table, times, with_source


@block
def embed_texts() -> str:
    """Rows a second of every contender for texts, a column for each run."""
    return _contenders("text", load("embed"))


@block
def embed_pictures() -> str:
    """Rows a second of every contender for photographs."""
    return _contenders("image", [run for run in load("embed") if "image" in run.figures])


@block
def large_jpegs() -> str:
    """Large JPEGs, decoded at a reduced scale and whole."""
    runs = [run for run in load("embed") if "image" in run.figures]
    found = [run.figures["image"]["jpeg_12mp"] for run in runs]
    rows = [
        ["decoded at a reduced scale, a second", *(number(each["reduced_per_s"]) for each in found)],
        ["decoded whole, a second", *(number(each["whole_per_s"]) for each in found)],
        ["times as fast", *(times(each["speedup"]) for each in found)],
        ["least cosine of the vectors", *(f"{each['cosine']:.4f}" for each in found)],
    ]
    return with_source(table(["JPEGs of 12 megapixels", *map(_column, runs)], rows), *runs)


@block
def same_bytes() -> str:
    """Which encoders give the same bytes alone and among others, and the price."""
    run = last("invariance")
    rows = [[row["encoder"], _same(row), _gap(row), _price(row)] for row in run.figures["encoders"]]
    return with_source(table(["encoder", "same bytes", "greatest difference", "price"], rows), run)


def _same(row: Mapping[str, Any]) -> str:
    if row.get("equal", True):
        return "yes"
    return "with `reproducible: true`" if row["asked for"] == "equal" else "no"


def _gap(row: Mapping[str, Any]) -> str:
    gap = row.get("greatest difference", 0.0)
    return f"{gap:.0e}" if gap else "0"


def _price(row: Mapping[str, Any]) -> str:
    return "not measured" if row["price"] is None else f"{row['price']:.2f}"


def _contenders(kind: str, runs: Sequence[Result]) -> str:
    """Rates, and in brackets how many times as fast the whole stage is; the fastest first, by the newest run."""
    newest = runs[-1].figures[kind]
    names = sorted(newest["rates"], key=lambda name: -newest["rates"][name])
    settings: dict[str, str] = newest["settings"]
    rows = [[_name(name), settings.get(name, ""), *(_rate(run.figures[kind], name) for run in runs)] for name in names]
    return with_source(table([f"{newest['rows']:,} rows", "how it ran", *map(_column, runs)], rows), *runs)


def _name(contender: str) -> str:
    return "**Barycenter, the whole stage**" if contender == "barycenter" else contender


def _column(run: Result) -> str:
    kind = {None: "", True: ", AVX-512", False: ", no AVX-512"}[run.machine.avx512]
    return f"rows/s, {run.date}{kind}"


def _rate(figures: dict[str, Any], name: str) -> str:
    rate = figures["rates"].get(name)
    if rate is None:
        return "not run"
    ours: float = figures["rates"]["barycenter"]
    return number(rate) if name in ("barycenter", "decode, one core") else f"{number(rate)} ({times(ours / rate)})"
