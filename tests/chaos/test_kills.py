"""The short form of the kill matrix: workers killed in every stage, a driver killed twice, two runs at once."""

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from prefect.settings import PREFECT_API_URL

from barycenter.infra.versions.manifests import read_manifest, verify, versions
from tests.chaos.strikes import checked, digests, last_line, prefix, stamps
from tests.chaos.world import actors, start_run, wait_until
from tests.flows.corpora import (
    output,
    run_on_ray,
    text_and_vector_job,
    text_and_vector_rows,
    write_job,
    write_lines,
)

pytestmark = [pytest.mark.usefixtures("ray_session", "prefect_server"), pytest.mark.slow]

ROWS = 400


@pytest.fixture(scope="module")
def place(tmp_path_factory, ray_session, prefect_server):
    """Makes jobs over one corpus; the first was run undisturbed and says what all must end with."""
    folder = tmp_path_factory.mktemp("kills")
    corpus = write_lines(folder / "rows.jsonl", text_and_vector_rows(ROWS))
    ray_section = {"address": ray.get_runtime_context().gcs_address, "workers": 2, "threads_per_worker": 1}

    def job(name, **sections):
        out = folder / name
        return text_and_vector_job(corpus, out, "chaos", ray=ray_section, train={"target": "label"}, **sections), out

    data, out = job("undisturbed")
    run_on_ray(data)
    return job, digests(out)


def test_a_worker_killed_in_every_stage_costs_nothing(place):
    job, expected = place
    data, out = job("workers")
    killed: list[str] = []

    def kill():
        for stage in ("embed-text", "embed-vec", "fit", "fuse"):
            worker = wait_until(lambda stage=stage: next(iter(actors(prefix(stage))), None), 60)
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
    assert wait_until(lambda: not actors("chaos"), 30)


def test_a_driver_killed_twice_goes_on_where_it_was(place):
    job, expected = place
    data, out = job("drivers")
    path = write_job(out.with_suffix(".yaml"), data)
    url = PREFECT_API_URL.value()
    for moment in (lambda: len(stamps(out)) >= 3, lambda: actors(prefix("fuse"))):
        before = stamps(out)
        driver = start_run(path, url)
        assert wait_until(lambda moment=moment, driver=driver: moment() or driver.poll() is not None)
        driver.kill()
        _, errors = driver.communicate()
        assert driver.returncode == -signal.SIGKILL, last_line(errors)
        assert wait_until(lambda: not actors("chaos"), 60)
        assert before.items() <= stamps(out).items()
    done = stamps(out)
    assert len(done) == 2 * ROWS // 20
    report = run_on_ray(data)
    assert stamps(out) == done
    assert report["speed"]["embed text"]["rows"] == report["speed"]["embed vec"]["rows"] == 0
    assert checked(out, expected) == []


def test_two_runs_at_once_leave_one_whole_version(place):
    job, expected = place
    data, out = job("twins")
    path = write_job(out.with_suffix(".yaml"), data)
    other = write_job(
        out.with_name("other.yaml"), job("twins", alignment={"method": "pca", "dim": 6})[0] | {"name": "chaos-other"}
    )
    url = PREFECT_API_URL.value()
    runs = [start_run(path, url), start_run(other, url)]
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda run: (run.communicate()[1], run.returncode), runs))
    lost = [errors for errors, code in ends if code]
    assert len(lost) <= 1, ends
    assert all("another run committed version" in errors for errors in lost), lost
    storage = output(data)
    for number in versions(storage):
        assert verify(storage, read_manifest(storage, number)) == []
    run_on_ray(data)
    assert verify(storage, read_manifest(storage)) == []
    version = read_manifest(storage).version
    assert {path: content for path, content in digests(out).items() if version in path} == expected


def test_two_runs_of_one_job_at_once_both_end_well_or_one_says_why(place):
    job, expected = place
    data, out = job("same")
    path = write_job(out.with_suffix(".yaml"), data)
    runs = []
    for _ in range(2):
        runs.append(start_run(path, PREFECT_API_URL.value()))
        time.sleep(0.2)
    with ThreadPoolExecutor(2) as pool:
        ends = list(pool.map(lambda run: (run.communicate()[1], run.returncode), runs))
    assert [code for _, code in ends] == [0, 0], [last_line(errors) for errors, _ in ends]
    assert versions(output(data)) == [1]
    assert checked(out, expected) == []
