"""``python -m tests.sweep.supported_vision [--all]`` tries every picture encoder and writes docs/supported-vision.md.

Without ``--all`` the architectures of torchvision with more than 30 million weights are left out.
"""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.sweep import torchvision_models, vision
from tests.sweep.vision import DIFFERS, EQUAL, NOT_BUILT, REFUSED, Row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "supported-vision.md"
_HEAD = """# Picture encoders that are supported

Written by `python -m tests.sweep.supported_vision`. It builds a small model with random weights of every picture
architecture of transformers and torchvision. It compares our vectors with the library's own pooled features of what its
own image processor makes of the pictures, of each by itself and of all in one batch. `equal` is within 1e-4 of a
vector's length.
"""


def page(found: Sequence[Row]) -> str:
    """The page of a sweep's rows."""
    counts = Counter(row.outcome for row in found)
    lines = [_HEAD, f"{counts[EQUAL]} are equal, {counts[REFUSED]} are refused by name, {counts[DIFFERS]} differ;"]
    lines += [f"{counts[NOT_BUILT]} were not built here (last table).", "", "| encoder | | |", "| --- | --- | --- |"]
    lines += [_line(row) for row in found if row.outcome != NOT_BUILT]
    lines += ["", "## Not built", "", "| encoder | why |", "| --- | --- |"]
    lines += [f"| {row.name} | {_escaped(row.detail)} |" for row in found if row.outcome == NOT_BUILT]
    return "\n".join(lines) + "\n"


def _line(row: Row) -> str:
    return f"| {row.name} | {row.outcome} | {_escaped(row.detail)} |"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def main() -> None:
    """Tries all and writes the page; exits 1 where one differs."""
    most = {"most": 10**12} if "--all" in sys.argv else {}
    found: list[Row] = []
    for source in (vision.rows(), torchvision_models.rows(**most)):
        for row in source:
            found.append(row)
            print(f"{row.name:34} {row.outcome:10} {row.detail}", file=sys.stderr, flush=True)
    PAGE.write_text(page(found), "utf-8")
    sys.exit(any(row.outcome == DIFFERS for row in found))


if __name__ == "__main__":
    main()
