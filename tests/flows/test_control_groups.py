"""A run in a real control group: what it allows is what counts, whatever the machine has."""

import contextlib
import itertools
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from secrets import token_hex

import pytest
import torch

import barycenter.fusion.torch_compat  # noqa: F401 - before transformers
from tests.conftest import ROOT
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines

ONE_CPU, MEMORY = 100_000, 3 << 30
GROUPS = Path("/sys/fs/cgroup")

pytestmark = pytest.mark.slow


class ControlGroup:
    """A control group of one CPU and 3 GiB, of version 1 or 2."""

    def __init__(self) -> None:
        name = f"barycenter-{token_hex(4)}"
        self._first = (GROUPS / "memory").is_dir()
        self.folders = [GROUPS / part / name for part in ("cpu", "memory")] if self._first else [GROUPS / name]
        limits = (
            {"cpu.cfs_period_us": ONE_CPU, "cpu.cfs_quota_us": ONE_CPU, "memory.limit_in_bytes": MEMORY}
            if self._first
            else {"cpu.max": f"{ONE_CPU} {ONE_CPU}", "memory.max": MEMORY}
        )
        for folder in self.folders:
            folder.mkdir()
        for file, limit in limits.items():
            self._file(file).write_text(str(limit))

    def run(self, *words):
        """Runs a command in the group."""
        enter = "".join(f"echo $$ > {folder}/cgroup.procs; " for folder in self.folders)
        command = ["sh", "-ec", enter + 'exec "$@"', "sh", *map(str, words)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)

    @property
    def peak(self):
        """Bytes of memory that the group had at most."""
        return int(self._file("memory.max_usage_in_bytes" if self._first else "memory.peak").read_text())

    @property
    def killed(self):
        """How many of its processes were killed for memory."""
        lines = self._file("memory.oom_control" if self._first else "memory.events").read_text().splitlines()
        return int(dict(line.split() for line in lines).get("oom_kill", 0))

    def close(self):
        """Ends what is left in the group, and removes it."""
        for folder in self.folders:
            for process in (folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), 9)
        for folder in self.folders:
            subprocess.run(["sh", "-c", f"for i in 1 2 3 4 5 6; do rmdir {folder} && exit; sleep 1; done"], check=False)

    def _file(self, name):
        return next(folder / name for folder in self.folders if (folder / name).exists())


@pytest.fixture
def group():
    try:
        made = ControlGroup()
    except OSError as error:
        pytest.skip(f"a control group cannot be made here: {error}")
    yield made
    made.close()


def job(tmp_path, **sections):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(400))
    ray = {"address": "local", "workers": "auto", "threads_per_worker": "auto"}
    data = text_and_vector_job(corpus, tmp_path / "out", f"group-{token_hex(4)}", ray=ray)
    return write_job(tmp_path / "job.yaml", data | sections)


def write_large_model(folder):
    """A BERT of 1 GiB, nearly all of it its table of words; zeros, so that it takes nothing on disk."""
    from transformers import BertConfig, BertModel

    config = BertConfig(vocab_size=350_000, hidden_size=768, num_hidden_layers=1, num_attention_heads=12)
    with torch.device("meta"):
        shapes = {name: list(tensor.shape) for name, tensor in BertModel(config).state_dict().items()}
    ends = [0, *itertools.accumulate(4 * math.prod(shape) for shape in shapes.values())]
    about = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [first, end]}
        for (name, shape), (first, end) in zip(shapes.items(), itertools.pairwise(ends), strict=True)
    }
    header = json.dumps(about).encode()
    config.save_pretrained(folder)
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(stream.tell() + ends[-1])
    return folder


def test_one_cpu_and_three_gibibytes(group, tmp_path):
    done = group.run(sys.executable, "-m", "barycenter.flows.cli", "run", job(tmp_path))
    assert done.returncode == 0, done.stderr
    speed = json.loads((tmp_path / "out/report/report.json").read_text())["speed"]
    assert {speed[f"embed {name}"]["workers"] for name in ("text", "vec")} == {1}
    assert speed["embed text"]["threads_per_worker"] == 1
    assert group.killed == 0
    assert group.peak < MEMORY


def test_a_model_that_does_not_fit_is_refused_before_the_work(group, tmp_path):
    model = write_large_model(tmp_path / "model")
    text = {"kind": "text", "column": "text", "encoder": str(model)}
    done = group.run(sys.executable, "-m", "barycenter.flows.cli", "run", job(tmp_path, inputs={"text": text}))
    assert done.returncode == 2
    assert "inputs.text.encoder: its weights take 1.0 GiB in float32 and a run some 3.2 GiB" in done.stderr
    assert "allows 3.0 GiB" in done.stderr
    assert group.killed == 0
    assert not list((tmp_path / "out").rglob("*.parquet"))
