"""The tables of figures in README.md and docs/, made from benchmarks/results: ``python -m benchmarks.tables``."""

from benchmarks.tables import encoding, quality, readme, robustness, scale, second_run, speed
from benchmarks.tables.pages import PAGES, changed, filled, handwritten

__all__ = [
    "PAGES",
    "changed",
    "encoding",
    "filled",
    "handwritten",
    "quality",
    "readme",
    "robustness",
    "scale",
    "second_run",
    "speed",
]
