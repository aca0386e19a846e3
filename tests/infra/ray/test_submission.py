"""What is sent to a cluster, and how; `tests/flows/test_wheel.py` sends a job to a Ray of its own."""

import importlib.metadata
import os
import socket
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.job.loader import load_job
from barycenter.infra.job.models import Job
from barycenter.infra.ray import submission
from barycenter.infra.ray.submission import package_folder
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines

AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture(autouse=True)
def no_authentication(monkeypatch):
    for name in AUTH:
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)


@pytest.fixture
def job_path(tmp_path):
    corpus = write_lines(tmp_path / "data" / "rows.jsonl", text_and_vector_rows(60))
    data = text_and_vector_job(corpus, tmp_path / "out", "a job, sent")
    data["corpus"]["path"], data["output"]["path"] = "data/rows.jsonl", "out"
    return write_job(tmp_path / "job.yaml", data)


def test_what_is_sent_is_code_and_the_job_with_paths_resolved(job_path, tmp_path):
    with package_folder(load_job(job_path)) as folder:
        sent = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        job = load_job(folder / "job.yaml")
    assert {path.parts[:2] for path in sent} >= {("barycenter", part) for part in ("flows", "tasks", "infra", "fusion")}
    assert not any("__pycache__" in path.parts or path.suffix in (".parquet", ".jsonl", ".png") for path in sent)
    assert job.corpus.path == str(tmp_path / "data" / "rows.jsonl")
    assert job.output.path == str(tmp_path / "out")
    assert job.ray.address == "auto"


def test_a_cluster_by_its_address_stays(job_path):
    job = Job.model_validate(load_job(job_path, ["ray.address=head:6379"]))
    with package_folder(job) as folder:
        assert load_job(folder / "job.yaml").ray.address == "head:6379"


def test_the_version_travels(job_path):
    with package_folder(load_job(job_path)) as folder:
        asked = "import importlib.metadata as m; print(m.version('barycenter'))"
        answer = subprocess.run(
            [sys.executable, "-S", "-c", asked], cwd=folder, capture_output=True, text=True, check=True
        )
    assert answer.stdout.strip() == importlib.metadata.version("barycenter")


@pytest.mark.parametrize(
    ("variables", "address", "mode"),
    [
        ({}, "http://127.0.0.1:8265", "disabled"),
        ({}, "http://localhost:8265", "disabled"),
        ({"RAY_AUTH_TOKEN": "abc"}, "https://head:8265", "token"),
        ({"RAY_AUTH_MODE": "token"}, "http://127.0.0.1:8265", "token"),
    ],
)
def test_how_it_authenticates(monkeypatch, variables, address, mode):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    submission._authenticate(address)
    assert os.environ["RAY_AUTH_MODE"] == mode


def test_a_cluster_elsewhere_needs_a_token():
    with pytest.raises(RunError, match="RAY_AUTH_TOKEN"):
        submission._authenticate("http://head:8265")
    with pytest.raises(JobError, match="--address"):
        submission._authenticate("head:8265")


def test_nobody_there_is_one_line(job_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        result = CliRunner().invoke(app, ["submit", str(job_path), "--address", address])
    assert result.exit_code == 1
    assert f"no Ray dashboard answers at {address}" in result.stderr
    assert len(result.stderr.splitlines()) == 1
