"""The short form of the kill matrix: workers killed in every stage, a driver, Prefect's server; two runs at once.

A node is killed in `tests/infra/dispatch/test_machines.py`, an S3 server in `test_s3.py`; `make chaos` kills at random.
"""

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from barycenter.infra.versions.manifests import read_manifest, verify, versions
from tests.chaos.strikes import checked, digests, last_line, prefix, stamps
from tests.chaos.world import ROOT, PrefectServer, actors, start_run, wait_until
from tests.flows.corpora import (
    output,
    run_here,
    run_on_ray,
    text_and_vector_job,
    text_and_vector_rows,
    write_job,
    write_lines,
)

ROWS = 200
PLAIN = """
import json, os, sys, traceback
from barycenter.infra.job.loader import load_job
from barycenter.tasks.pipeline import run_job
from barycenter.tasks.planning.plan import held
from barycenter.tasks.run.workers import THIS_PROCESS

def run(number, path):
    os.dup2(os.open(f"{path}.{number}.log", os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
    try:
        with held(load_job(path)) as prepared:
            run_job(prepared, THIS_PROCESS)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0

processes = []
for number, path in enumerate(sys.argv[1:]):  # forked, so that the imports are paid for once
    if not (process := os.fork()):
        os._exit(run(number, path))
    processes.append(process)
print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Makes jobs over one corpus; the first was run undisturbed and says what all must end with."""
    folder = tmp_path_factory.mktemp("kills")
    corpus = write_lines(folder / "rows.jsonl", text_and_vector_rows(ROWS))

    def job(name, address="none", **sections):
        out = folder / name
        workers = {"address": address, "workers": 2, "threads_per_worker": 1}
        return text_and_vector_job(corpus, out, "chaos", ray=workers, train={"target": "label"}, **sections), out

    data, out = job("undisturbed")
    run_here(data)
    return job, digests(out)


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A Prefect server of these tests' own."""
    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    yield server
    with suppress(ProcessLookupError):
        server.kill()


def run_all(*paths):
    """Runs jobs side by side, each in a process of its own without Ray and Prefect: what they said, and exit codes."""
    script = [sys.executable, "-c", PLAIN, *map(str, paths)]
    codes = json.loads(subprocess.run(script, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout)
    return [
        (Path(f"{path}.{number}.log").read_text(), code)
        for number, (path, code) in enumerate(zip(paths, codes, strict=True))
    ]


@pytest.mark.usefixtures("ray_session")
def test_a_worker_killed_in_every_stage_costs_nothing(place):
    job, expected = place
    data, out = job("workers", "auto")
    killed: list[str] = []

    def kill():
        for stage in ("embed-text", "embed-vec", "fit", "fuse"):
            worker = wait_until(lambda stage=stage: next(iter(actors(prefix(stage))), None))
            if worker is not None:
                os.kill(worker.pid, signal.SIGKILL)
                killed.append(worker.name)

    killer = threading.Thread(target=kill)
    killer.start()
    report = run_on_ray(data)
    killer.join()
    assert len(killed) == 4, killed
    assert report["rows"]["written"] == ROWS
    assert checked(out, expected) == []
    assert wait_until(lambda: not actors("chaos"))


@pytest.mark.usefixtures("ray_session")
def test_a_killed_driver_and_a_killed_prefect_server_cost_nothing(place, server):
    job, expected = place
    data, out = job("drivers", ray.get_runtime_context().gcs_address)
    path = write_job(out.with_suffix(".yaml"), data)
    driver = start_run(path, server.url)
    assert wait_until(lambda: len(stamps(out)) >= 3 or driver.poll() is not None)
    workers = [worker.pid for worker in actors("chaos")]
    driver.kill()
    _, errors = driver.communicate()
    assert driver.returncode == -signal.SIGKILL, last_line(errors)
    assert wait_until(lambda: not actors("chaos"))
    assert wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers)), "they may still write"
    before = stamps(out)
    assert len(before) >= 3

    run = start_run(path, server.url)
    assert wait_until(lambda: len(stamps(out)) > len(before) or run.poll() is not None)
    server.kill()
    _, errors = run.communicate()
    assert run.returncode == 0, last_line(errors)
    (ours,) = [line for line in errors.splitlines() if line.startswith("barycenter: ")]
    assert "the Prefect server does not answer" in ours
    assert before.items() <= stamps(out).items()
    assert wait_until(lambda: not actors("chaos"))
    assert checked(out, expected) == []


def test_two_runs_at_once_leave_one_whole_version(place):
    job, expected = place
    data, out = job("twins")
    path = write_job(out.with_suffix(".yaml"), data)
    other = write_job(
        out.with_name("other.yaml"), job("twins", alignment={"method": "pca", "dim": 6})[0] | {"name": "chaos-other"}
    )
    ends = run_all(path, other)
    assert [code for _, code in ends] == [0, 0], [last_line(errors) for errors, _ in ends]
    storage = output(data)
    for number in versions(storage):
        assert verify(storage, read_manifest(storage, number)) == []
    run_here(data)
    assert verify(storage, read_manifest(storage)) == []
    version = read_manifest(storage).version
    assert {path: content for path, content in digests(out).items() if version in path} == expected


def test_two_runs_of_one_job_at_once_both_end_well_and_commit_once(place):
    job, expected = place
    data, out = job("same")
    path = write_job(out.with_suffix(".yaml"), data)
    ends = run_all(path, path)
    assert [code for _, code in ends] == [0, 0], [last_line(errors) for errors, _ in ends]
    assert versions(output(data)) == [1]
    assert checked(out, expected) == []
