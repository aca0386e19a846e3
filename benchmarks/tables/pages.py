"""Where the figures of a page stand, and how they get there."""

import re
from pathlib import Path

from benchmarks.result_files import ROOT
from benchmarks.tables.blocks import BLOCKS

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
"""Pages that may hold figures."""

_BLOCK = re.compile(r"<!-- figures: ([\w-]+) -->\n(.*?)<!-- end of figures -->", re.DOTALL)
_CODE = re.compile(r"^```.*?^```|^(?: {4}|\t).*$|`[^`\n]*`", re.DOTALL | re.MULTILINE)
_MEASURED = re.compile(
    r"[\d.,]+ (?:rows|batches|texts|pictures|keys)(?:/s| a second)\b"
    r"|[\d.,]+ times (?:as|faster|slower|that)\b"
    r"|[\d.,]+ points (?:\([^)]*\) )?(?:above|below)\b"
    r"|[\d.]+ (?:to|and) [\d.]+ %"
    r"|measured to\b[^.]*\d"
)


def filled(text: str) -> str:
    """The page with every block between ``<!-- figures: name -->`` and ``<!-- end of figures -->`` made anew.

    Raises:
        KeyError: A name that no function of this package has.
    """
    return _BLOCK.sub(lambda m: f"<!-- figures: {m[1]} -->\n{BLOCKS[m[1]]()}\n<!-- end of figures -->", text)


def changed() -> list[Path]:
    """Pages whose blocks are not what the results say."""
    texts = {page: page.read_text(encoding="utf-8") for page in PAGES}
    return [page for page, text in texts.items() if filled(text) != text]


def handwritten(text: str) -> list[str]:
    """Phrases outside blocks and code that read like a measurement."""
    return [match.group() for match in _MEASURED.finditer(_CODE.sub("", _BLOCK.sub("", text)))]


def names(text: str) -> list[str]:
    """Names of the page's blocks."""
    return [match[1] for match in _BLOCK.finditer(text)]
