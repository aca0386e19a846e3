"""A result names its commit and its machine; a benchmark writes it."""

import json
import re
import subprocess
import sys
from datetime import date

import pytest

from benchmarks import result_files

SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from benchmarks.harness import finish, interleaved, note, versions
versions("numpy")
note("two lines\\nof output")
interleaved({{"ours": lambda: None, "theirs": lambda: None}}, 3)
finish({{"ratio": 1.5}})
"""


@pytest.mark.parametrize("path", sorted(result_files.KEPT.iterdir()), ids=lambda path: path.name)
def test_a_kept_result_says_where_it_is_from(path):
    assert path.suffix == ".json"
    for run in result_files.load(path.stem):
        date.fromisoformat(run.date)
        named = run.commit or run.kept_in
        assert re.fullmatch(r"[0-9a-f]{7,40}", named or ""), "no commit"
        assert run.command
        assert run.figures
        assert run.rounds is None or all(len(each) <= run.rounds for each in run.samples.values())


def test_a_benchmark_writes_commit_machine_versions_and_every_round(tmp_path):
    script = tmp_path / "speed.py"
    script.write_text(SCRIPT.format(root=str(result_files.ROOT)))
    environment = {"RESULTS": str(tmp_path / "kept"), "PATH": "/usr/bin:/bin", "ROUNDS": "3"}
    for _ in range(2):
        done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == {"ratio": 1.5}
    first, second = result_files.load("speed", tmp_path / "kept")
    assert first.figures == second.figures == {"ratio": 1.5}
    assert first.command == "ROUNDS=3 python speed.py"
    assert first.rounds == 3
    assert {name: len(each) for name, each in first.samples.items()} == {"ours": 3, "theirs": 3}
    assert first.versions.keys() == {"python", "numpy"}
    assert first.output[:2] == ["two lines", "of output"]
    assert first.machine.cores
    if (result_files.ROOT / ".git").exists():
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=result_files.ROOT, capture_output=True, text=True, check=True
        )
        assert head.stdout.startswith(first.commit)
        assert first.dirty is not None


def test_the_command_of_a_module_is_shown_as_it_is_called(monkeypatch):
    monkeypatch.setattr(sys, "argv", [str(result_files.ROOT / "tests" / "chaos" / "__main__.py"), "N=16"])
    monkeypatch.delenv("ROWS", raising=False)
    assert result_files.command().endswith("python -m tests.chaos N=16")
