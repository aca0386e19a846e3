"""A disk that fills up in each stage: one line, and the run goes on once there is space."""

import shutil
import subprocess
from contextlib import contextmanager, suppress

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.job.models import Job
from barycenter.infra.versions.manifests import read_manifest, verify
from barycenter.tasks.align.stage import fit_alignment
from barycenter.tasks.embed.stage import embed_input
from barycenter.tasks.fuse.stage import fuse_features
from barycenter.tasks.heads.stage import train_head
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.report.stage import write_report
from barycenter.tasks.run.workers import THIS_PROCESS
from tests.chaos.strikes import digests, temporary_files
from tests.flows.corpora import output, text_and_vector_job, text_and_vector_rows, write_lines


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system of its own cannot be mounted here")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


@contextmanager
def full(disk):
    """Takes all the space, to the last byte."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as stream:
        for size in (1 << 20, 4096):
            with suppress(OSError):
                while stream.write(bytes(size)):
                    pass
    assert shutil.disk_usage(disk).free == 0
    try:
        yield
    finally:
        filler.unlink()


def test_a_full_disk_is_one_line_in_every_stage_and_resumed(small_disk, tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(80))
    data = text_and_vector_job(corpus, small_disk / "out", "full", train={"target": "label"})
    run = prepare(Job.model_validate(data))
    known = {}

    def fuse():
        fitted = fit_alignment(run, THIS_PROCESS)[0]
        known["fitted"] = fitted
        known["manifest"], _ = fuse_features(run, THIS_PROCESS, fitted, "mean", None)

    def report():
        return write_report(run, known["fitted"], known["manifest"], {}, known["head"])

    def train():
        known["head"], _ = train_head(run, known["manifest"])

    stages = {
        "embed text": lambda: embed_input(run, "text", THIS_PROCESS),
        "embed vec": lambda: embed_input(run, "vec", THIS_PROCESS),
        "fit": lambda: fit_alignment(run, THIS_PROCESS),
        "fuse": fuse,
        "train": train,
        "report": report,
    }
    for name, stage in stages.items():
        with full(small_disk), pytest.raises(RunError, match="no space left on") as caught:
            stage()
        assert "\n" not in str(caught.value), name
        assert temporary_files(output(data)) == [], name
        stage()
    assert verify(output(data), read_manifest(output(data))) == []
    assert len(digests(small_disk / "out")) == 1
