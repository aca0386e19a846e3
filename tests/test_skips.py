"""With CI set, a skip fails the run unless its reason is accepted."""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT
from tests.skips import ACCEPTED

FILE = """
import pytest

def test_passes():
    pass

def test_skips():
    pytest.skip({reason!r})
"""


@pytest.mark.parametrize(
    ("reason", "ci", "code"), [("too slow today", "1", 1), ("too slow today", "", 0), (f"{ACCEPTED[0]} here", "1", 0)]
)
def test_a_skip_in_ci_fails_the_run_unless_its_reason_is_accepted(tmp_path, reason, ci, code):
    path = tmp_path / "test_file.py"
    path.write_text(FILE.format(reason=reason))
    words = [sys.executable, "-m", "pytest", "-q", "-p", "tests.skips", "-p", "no:cacheprovider", str(path)]
    environment = {**os.environ, "CI": ci, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == code, done.stdout
    assert ("does not accept" in done.stdout) == bool(code)
