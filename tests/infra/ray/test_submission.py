"""What is sent to a cluster, and one job sent to a Ray of its own."""

import importlib.metadata
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.job.loader import load_job
from barycenter.infra.job.models import Job
from barycenter.infra.ray import submission
from barycenter.infra.ray.submission import package_folder
from tests.flows.corpora import read_features, text_and_vector_job, text_and_vector_rows, write_job, write_lines
from tests.flows.test_cancellation import children
from tests.infra.dispatch.test_api import wait_until

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def cluster():
    """A Ray started by hand, with a token; the address of its dashboard and the variables that let one in."""
    ports = [free_port() for _ in range(2)]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}
    words = ["--block", "--head", "--node-ip-address=127.0.0.1", f"--port={ports[0]}", f"--dashboard-port={ports[1]}"]
    words += ["--num-cpus=2", "--object-store-memory=134217728", "--dashboard-agent-listen-port=0"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "ray.scripts.scripts", "start", *words, f"--temp-dir={folder}"],
                env={**os.environ, **token, "PATH": path}, stdout=stream, stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            assert wait_until(lambda: "Ray runtime started" in log.read_text() or process.poll() is not None, 90)
            assert process.poll() is None, log.read_text()
            yield f"http://127.0.0.1:{ports[1]}", token
        finally:
            for pid in [process.pid, *children(process.pid)]:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            process.wait(30)


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
def test_a_submitted_job_runs_in_the_cluster_and_passes_its_exit_code_on(cluster, job_path, tmp_path):
    from prefect.settings import PREFECT_API_URL

    address, token = cluster
    environment = {**os.environ, **token, "PREFECT_API_URL": PREFECT_API_URL.value()}

    def submitted(*flags: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "barycenter.flows.cli", "submit", str(job_path), "--address", address, *flags]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=200, check=False)

    done = submitted()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "manifest" in done.stdout
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"]["written"] == 60
    assert read_features({"output": {"path": str(tmp_path / "out")}}).num_rows == 60
    wrong = submitted("--set", "alignment.dim=10000")
    assert wrong.returncode == 2, wrong.stdout + wrong.stderr
    assert "alignment.dim: 10000" in wrong.stdout
    assert Path(tmp_path / "out" / "manifests" / "1.json").exists()
