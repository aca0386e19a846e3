"""A whole job in the calling process: no Ray, no Prefect server."""

import json
import subprocess
import sys

from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines

_SCRIPT = """
import sys
from barycenter.infra.job.loader import load_job
from barycenter.tasks.pipeline import run_job
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.workers import THIS_PROCESS

report = run_job(prepare(load_job(sys.argv[1])), THIS_PROCESS)
import ray
assert not ray.is_initialized()
assert "prefect.server.api.server" not in sys.modules
assert report["rows"]["written"] == 60
assert report["head"]["head"] == "gated"
assert report["speed"]["fuse"]["rows"] == 60
"""


def test_a_job_runs_in_a_plain_process(tmp_path, monkeypatch):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(60))
    job = text_and_vector_job(
        corpus,
        tmp_path / "out",
        "plain",
        train={"target": "label", "head": "gated"},
        alignment={"method": "autoencoder"},
    )
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT, str(tmp_path / "job.yaml")], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-2000:]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["rows"]["written"] == 60
    assert (tmp_path / "out" / "report" / "report.html").exists()
