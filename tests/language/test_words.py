"""Words that no file of this repository uses: code, docs and messages speak the language of their field."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In two halves each, so that this file does not hold them.
HALVES = (
    "to-ld tel-ls hea-rd looks_wi-th in_pea-ce stands_the-re lives_o-n goes_on_with-out stan-ds_in sto-od_in "
    "they_sta-nd come_what_m-ay as_it_we-re refuses_u-s"
)
WORDS = [words.replace("-", "").replace("_", " ") for words in HALVES.split()]


def tracked_files() -> list[Path]:
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_uses_words_that_are_not_of_the_field():
    words = "|".join(word.replace(" ", r"\s+(?:#\s*)?") for word in WORDS)
    pattern = re.compile(rf"(?<![a-z])(?:{words})(?![a-z])".encode(), re.IGNORECASE)
    found = []
    for path in tracked_files():
        content = path.read_bytes()
        if b"\0" not in content[:8192]:
            lines = (content.count(b"\n", 0, match.start()) + 1 for match in pattern.finditer(content))
            found += [f"{path.relative_to(ROOT)}:{line}" for line in lines]
    assert not found, "\n".join(found)
