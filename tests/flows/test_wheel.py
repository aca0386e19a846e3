"""The wheel beside a project with folders and modules of our names: run and submitted from that project's folder."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import ROOT
from tests.flows.corpora import read_features, text_and_vector_job, text_and_vector_rows, write_job, write_lines
from tests.flows.ray_head import ray_head
from tests.flows.secrets import MARKED, files_with_marks, marks_in

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

SECRETS = {**MARKED, "NO_PROXY": "127.0.0.1,localhost"}
RAISES = "raise RuntimeError('a module of the project was imported')\n"
PROJECT = ("flows/__init__.py", "flows/pipeline.py", "flows/cli.py", "tasks.py", "infra/__init__.py", "fusion.py")


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The bin folder of an environment with the wheel, and with this environment's packages but not its own of ours."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for name in ("barycenter", "flows", "tasks", "infra", "fusion"):
        shutil.copytree(ROOT / name, source / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, source],
        check=True, capture_output=True,
    )  # fmt: skip
    environment = folder / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (wheel,) = folder.glob("barycenter-*.whl")
    python = environment / "bin" / "python"
    subprocess.run([*pip, "--python", python, "install", "--no-deps", "--no-index", wheel], check=True)
    (site,) = environment.glob("lib/*/site-packages")
    packages = [path for path in sys.path if path.endswith("site-packages")]
    (site / "shared.pth").write_text("\n".join(packages))  # their own .pth files are not read
    return environment / "bin"


@pytest.fixture
def cluster():
    """A Ray started by hand, with a token and secrets; its dashboard's address, what lets one in, and its folder."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}
    with ray_head(token | SECRETS) as (address, folder):
        yield address, token, folder


@pytest.fixture
def project(tmp_path):
    """The folder of a project whose modules raise when they are imported, with a job file."""
    folder = tmp_path / "project"
    for name in PROJECT:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(RAISES)
    corpus = write_lines(folder / "corpus" / "rows.jsonl", text_and_vector_rows(50))
    write_job(folder / "job.yaml", text_and_vector_job(corpus, folder / "out", "wheel"))
    return folder


def barycenter(installed, project, *words, **variables):
    from prefect.settings import PREFECT_API_URL

    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment |= {"PREFECT_API_URL": PREFECT_API_URL.value(), **variables}
    return subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, timeout=800, check=False)


def test_a_run_from_the_projects_folder_imports_nothing_of_it(installed, project):
    """With ``-m`` the folder is first on the path."""
    without_ray = ("run", "job.yaml", "--set", "ray.address=none")
    done = barycenter(installed, project, installed / "python", "-m", "barycenter.flows.cli", *without_ray)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((project / "out" / "manifest.json").read_text())["rows"]["written"] == 50
    where = barycenter(installed, project, installed / "python", "-c", "import barycenter; print(barycenter.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed.parent), where.stdout + where.stderr


def test_a_submission_from_the_projects_folder_imports_nothing_of_it_and_passes_its_exit_code_on(
    installed, project, cluster
):
    """And of the secrets around neither Ray's log folder, nor what it knows of its jobs, nor the output holds one."""
    address, token, folder = cluster

    def submitted(*flags):
        words = [installed / "barycenter", "submit", "job.yaml", "--address", address, *flags]
        return barycenter(installed, project, *words, **token, **SECRETS)

    done = submitted()
    assert done.returncode == 0, done.stdout + done.stderr
    assert "manifest" in done.stdout
    assert json.loads((project / "out" / "manifest.json").read_text())["rows"]["written"] == 50
    assert read_features({"output": {"path": str(project / "out")}}).num_rows == 50
    wrong = submitted("--set", "alignment.dim=10000")
    assert wrong.returncode == 2, wrong.stdout + wrong.stderr
    assert "alignment.dim: 10000" in wrong.stdout
    assert (project / "out" / "manifests" / "1.json").exists()
    jobs = httpx.get(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token['RAY_AUTH_TOKEN']}"})
    ended = [job["status"] for job in jobs.raise_for_status().json() if job["type"] == "SUBMISSION"]
    assert sorted(ended) == ["FAILED", "SUCCEEDED"]
    assert marks_in(jobs.text) == []
    assert marks_in(done.stdout + done.stderr + wrong.stdout + wrong.stderr) == []
    assert len(list(folder.rglob("job-driver-*.log"))) == 2
    assert list(files_with_marks([folder, project])) == []
