"""The wheel beside a project with folders and modules of our names: run and submitted from that project's folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines
from tests.infra.ray.test_submission import cluster  # noqa: F401 - a fixture

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]

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
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))  # its own .pth files are not read
    return environment / "bin"


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
    return subprocess.run(words, cwd=project, env=environment, capture_output=True, text=True, timeout=200, check=False)


def test_a_run_from_the_projects_folder_imports_nothing_of_it(installed, project):
    """With ``-m`` the folder is first on the path."""
    done = barycenter(installed, project, installed / "python", "-m", "barycenter.flows.cli", "run", "job.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((project / "out" / "manifest.json").read_text())["rows"]["written"] == 50
    where = barycenter(installed, project, installed / "python", "-c", "import barycenter; print(barycenter.__file__)")
    assert Path(where.stdout.strip()).is_relative_to(installed.parent), where.stdout + where.stderr


def test_a_submission_from_the_projects_folder_imports_nothing_of_it(installed, project, cluster):  # noqa: F811
    address, token = cluster
    words = [installed / "barycenter", "submit", "job.yaml", "--address", address]
    done = barycenter(installed, project, *words, **token)
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((project / "out" / "manifest.json").read_text())["rows"]["written"] == 50
