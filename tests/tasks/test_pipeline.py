"""A whole job in the calling process: no Ray, and without the flow no Prefect server."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.fusion.errors import RunError
from barycenter.infra.job.loader import load_job
from barycenter.infra.job.models import Job
from barycenter.infra.ray.connection import connect
from barycenter.tasks import pipeline
from barycenter.tasks.pipeline import Stages, run_job
from barycenter.tasks.planning.plan import hand_over, held, notes, prepare
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines

_PLAIN = """
import sys
from barycenter.infra.job.loader import load_job
from barycenter.tasks import pipeline
from barycenter.tasks.pipeline import Stages, run_job
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.workers import THIS_PROCESS

report = run_job(prepare(load_job(sys.argv[1])), THIS_PROCESS)
assert "ray" not in sys.modules
assert "prefect.server.api.server" not in sys.modules
assert report["rows"]["written"] == 60
assert report["head"]["head"] == "gated"
assert report["speed"]["fuse"]["rows"] == 60
"""
_COMMAND = """
import sys
from barycenter.flows.cli import app

app(["run", sys.argv[1], "--set", "ray.address=none", "--set", f"output.path={sys.argv[2]}"], standalone_mode=False)
assert "ray" not in sys.modules
"""


def run_script(script: str, *arguments: Path, **variables: str):
    words = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, **variables}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done


@pytest.fixture(scope="module")
def job_path(tmp_path_factory):
    """A job that asks for two workers."""
    folder = tmp_path_factory.mktemp("plain")
    corpus = write_lines(folder / "rows.jsonl", text_and_vector_rows(60))
    job = text_and_vector_job(corpus, folder / "out", "plain", train={"target": "label"}, ray={"workers": 2})
    return write_job(folder / "job.yaml", job)


def features(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("features/**/*.parquet")}


@pytest.mark.slow
def test_a_job_with_learned_parts_runs_in_a_plain_process(job_path, tmp_path):
    learned = text_and_vector_job(
        job_path.with_name("rows.jsonl"),
        tmp_path / "out",
        "plain",
        train={"target": "label", "head": "gated"},
        alignment={"method": "autoencoder"},
    )
    run_script(_PLAIN, write_job(tmp_path / "job.yaml", learned), PREFECT_API_URL="http://127.0.0.1:9/api")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"]["written"] == 60
    assert (tmp_path / "out" / "report" / "report.html").exists()


@pytest.mark.usefixtures("ray_session", "prefect_server")
def test_the_command_without_ray_writes_the_bytes_of_a_ray_run(job_path, tmp_path):
    """One worker here, two there."""
    from prefect.settings import PREFECT_API_URL

    done = run_script(_COMMAND, job_path, tmp_path / "none", PREFECT_API_URL=PREFECT_API_URL.value())
    assert "ray.address none: one worker, in this process and on its CPUs; not used: ray.workers: 2" in done.stderr
    with connect("local") as cluster:
        report = run_job(prepare(load_job(job_path, [f"output.path={tmp_path / 'ray'}"])), cluster)
    assert report["speed"]["embed text"]["workers"] == 2
    assert len(features(tmp_path / "ray")) > 0
    assert features(tmp_path / "none") == features(tmp_path / "ray")


@pytest.mark.parametrize(
    ("keys", "unused"),
    [
        (["address=none", "workers=3", "gpus_per_worker=0.5"], "ray.workers: 3, ray.gpus_per_worker: 0.5"),
        (["address=none", "workers=1", "gpus_per_worker=0", "threads_per_worker=2"], None),
        (["address=local", "workers=3"], None),
    ],
)
def test_keys_that_a_run_without_ray_does_not_use_are_noted(job_path, keys, unused):
    said = notes(prepare(load_job(job_path, [f"ray.{key}" for key in keys])))
    assert [note.partition("not used: ")[2] for note in said if note.startswith("ray.")] == ([unused] if unused else [])


def test_a_run_without_ray_cannot_be_submitted(job_path):
    words = ["submit", str(job_path), "--address", "http://127.0.0.1:9", "--set", "ray.address=none"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert result.stderr.startswith("barycenter: ray.address: none is a run without Ray in this process")


def test_a_run_that_was_prepared_before_another_wrote_is_prepared_again_or_refused(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(40))
    job = Job.model_validate(
        text_and_vector_job(corpus, tmp_path / "out", "late", alignment={"method": "pca", "dim": 4})
    )
    stale = prepare(job)
    with held(job) as run:
        assert run.rows == 40
    write_lines(corpus, text_and_vector_rows(60))
    with pytest.raises(RunError, match="another process wrote here after it was prepared"), stale.held():
        pass
    hand_over(stale)
    with held(job) as run:
        assert run.rows == 60
        assert run.lease is not None
        with run.held() as lease:
            assert lease is run.lease
    with run.held():
        pass


def test_what_the_fit_freed_is_given_back_before_anything_else(monkeypatch):
    order = []
    monkeypatch.setattr(pipeline, "give_back_memory", lambda: order.append("given back"))
    stages = Stages(
        align=lambda *_: (order.append("align") or SimpleNamespace(average=()), {}),
        fuse=lambda *_: (order.append("fuse"), {}),
    )
    stages.fuse_inputs(None, None)
    assert order == ["align", "given back", "fuse"]
