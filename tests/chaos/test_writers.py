"""Processes that are started together on one output."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from barycenter.infra.storage import Storage
from barycenter.infra.versions.lease import newest_term
from barycenter.infra.versions.manifests import read_manifest, verify, versions
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines

ROWS, SHARD = 600, 20

_RUN = """
import json, os, sys, time
from barycenter.fusion.encoders.builtin import HashingEncoder
from barycenter.infra.job.loader import load_job
from barycenter.fusion.errors import BusyError
from barycenter.tasks.pipeline import run_job
from barycenter.tasks.planning.plan import held
from barycenter.tasks.run.workers import THIS_PROCESS

encode = HashingEncoder.encode

def slow(self, *args):
    time.sleep(0.1)
    return encode(self, *args)

def run(busy):
    try:
        with held(load_job("job.yaml", [f"output.busy={busy}"])) as run:
            report = run_job(run, THIS_PROCESS)
        return {"embedded": report["speed"]["embed text"]["rows"]}
    except BusyError as error:
        return {"skip": error.skip, "line": str(error)}

HashingEncoder.encode = slow
processes = []
for busy in sys.argv[1:]:  # forked, so that the imports are paid for once
    if not (process := os.fork()):
        result = run(busy)
        with open(f"{os.getpid()}.json", "w") as file:
            json.dump(result, file)
        os._exit(0)
    processes.append(process)
print(json.dumps(processes), flush=True)
for process in processes:
    os.waitpid(process, 0)
"""


@pytest.fixture
def job(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(ROWS))
    job = text_and_vector_job(corpus, tmp_path / "out", "six", alignment={"method": "pca", "dim": 4})
    job["corpus"]["rows_per_shard"] = SHARD
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    return tmp_path / "job.yaml"


def embedded(out):
    """The embedding files of the texts, and what shows that one was written again."""
    return {path.name: path.stat().st_ino for path in (out / "embeddings/text").glob("*/*.parquet")}


def wait_for(condition, seconds=120):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return found


def test_six_at_once_and_the_first_killed(job):
    """Each version is committed once, nothing that is done is done again, and everyone ends as ``busy`` says."""
    folder = job.parent
    busy = ["wait", "wait", "wait", "wait", "skip", "fail"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = subprocess.Popen([sys.executable, "-c", _RUN, *busy], cwd=folder, **pipes)
    processes = json.loads(started.stdout.readline() or started.stderr.read()[-2000:])
    storage, out = Storage(str(folder / "out")), folder / "out"
    wait_for(lambda: len(embedded(out)) >= 5)
    holder = int(newest_term(storage).who.rpartition(" ")[2])
    os.kill(holder, signal.SIGKILL)
    done = embedded(out)
    assert started.wait(240) == 0, started.stderr.read()[-2000:]
    after = embedded(out)
    assert len(after) == ROWS // SHARD
    assert done.items() <= after.items()
    results = {
        (mode, process): json.loads((folder / f"{process}.json").read_text())
        for mode, process in zip(busy, processes, strict=True)
        if process != holder
    }
    ran = [result["embedded"] for result in results.values() if "embedded" in result]
    refused = {mode: result for (mode, _), result in results.items() if "skip" in result}
    assert sorted(ran)[:-1] == [0] * (len(ran) - 1)
    assert 0 < max(ran) <= ROWS - 5 * SHARD
    assert len(ran) >= 3
    assert all((mode == "skip") == result["skip"] for mode, result in refused.items())
    assert all("is held by run six" in result["line"] for result in refused.values())
    assert refused.keys() <= {"skip", "fail"}
    assert versions(storage) == [1]
    assert verify(storage, read_manifest(storage)) == []
    assert newest_term(storage).released
