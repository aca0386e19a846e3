"""What was freed goes back to the machine."""

import subprocess
import sys
from pathlib import Path

import pytest

FREED = """
import numpy as np
from pathlib import Path
from barycenter.infra.memory import give_back_memory

def dirty():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) >> 10 for line in lines if line.startswith("Private_Dirty"))

arrays = [np.ones(10_000) for _ in range(4_000)]
kept = arrays[::100]
del arrays
before = dirty()
give_back_memory()
print(before, dirty(), len(kept))
"""


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="only Linux says what a process wrote to")
def test_what_was_freed_between_arrays_in_use_is_given_back():
    said = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True).stdout
    before, after, _ = map(int, said.split())
    assert before - after > 100
