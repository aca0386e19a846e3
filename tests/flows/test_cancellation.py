"""Runs that are stopped: from Prefect, and by SIGTERM. Their workers end, and what was done stays done."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelling

from barycenter.infra.job.loader import load_job
from barycenter.tasks.pipeline import PLAIN
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.workers import THIS_PROCESS
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines
from tests.infra.dispatch.test_api import wait_until

SLOW = """
import sys, time
import barycenter.tasks.embed.stage
from barycenter.flows.cli import app

class Slowly(barycenter.tasks.embed.stage.EmbedWorker):
    def run(self, payload):
        result = super().run(payload)
        time.sleep(1.0)
        return result

barycenter.tasks.embed.stage.EmbedWorker = Slowly
app(sys.argv[1:])
"""


def children(pid: int) -> set[int]:
    """Processes below one, however deep."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(path.parent.name)] = int(fields[1])
    found = {pid}
    while more := {child for child, parent in parents.items() if parent in found} - found:
        found |= more
    return found - {pid}


def a_project_of_the_same_names(folder: Path) -> Path:
    """A user's folder whose modules are called as parts of ours are, and must not be imported by us."""
    for name in ("flows/__init__.py", "tasks.py", "infra/__init__.py", "fusion.py"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("raise RuntimeError('a module of the user was imported')")
    return folder


def state_of(name: str):
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return runs[0] if runs else None


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server")
@pytest.mark.parametrize("how", ["prefect", "sigterm"])
def test_a_stopped_run_leaves_no_worker_and_goes_on_later(tmp_path, how):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(400))
    name = f"stopped by {how}"
    job = write_job(tmp_path / "job.yaml", text_and_vector_job(corpus, tmp_path / "out", name))
    environment = {**os.environ, "PREFECT_API_URL": PREFECT_API_URL.value()}
    words = [sys.executable, "-c", SLOW, "embed", str(job)]
    project = a_project_of_the_same_names(tmp_path / "project")
    run = subprocess.Popen(
        words, env=environment, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    done = tmp_path / "out" / "embeddings"
    try:
        assert wait_until(lambda: len(list(done.glob("[!.]*/*/*.parquet"))) >= 2 or run.poll() is not None)
        assert run.poll() is None, run.communicate()
        workers = children(run.pid)
        assert workers
        if how == "prefect":
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(state_of(f"embed {name}").id, Cancelling())
        else:
            run.send_signal(signal.SIGTERM)
        out, err = run.communicate(timeout=300)
        assert run.returncode == 1, out + err
        assert "run again to go on where this stopped" in err
        assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers))
    finally:
        run.kill()
    kept = len(list(done.glob("[!.]*/*/*.parquet")))
    assert 0 < kept < 40
    final = state_of(f"embed {name}").state
    assert final.is_cancelled() if how == "prefect" else final.is_crashed()
    figures = PLAIN.embed_inputs(prepare(load_job(job)), THIS_PROCESS)
    assert sum(part["shards_done_before"] for part in figures.values()) == kept
    assert len(list(done.glob("[!.]*/*/*.parquet"))) == 40
