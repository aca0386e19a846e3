"""What an output is at, from never held to two versions, with holders that live, end and die."""

import json
import os

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.infra.versions import lease as leases
from barycenter.infra.versions.lease import acquire, hold
from barycenter.tasks.planning.plan import held
from barycenter.tasks.run.progress_file import read_progress
from barycenter.tasks.run.status import describe_status
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines

AT_WORK = {"stage": "embed text", "rows": 10, "total": 40, "rows_per_s": 2.0}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def storage(request, tmp_path):
    if request.param == "local":
        return Storage(str(tmp_path / "out"))
    return Storage(f"s3://{request.getfixturevalue('s3_bucket')}/out", request.getfixturevalue("s3_server"))


@pytest.fixture
def job(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(40))
    return text_and_vector_job(corpus, tmp_path / "out", "emoji")


def test_what_is_no_output_is_refused(storage):
    with pytest.raises(RunError, match="does not exist or is empty; no run has held it yet"):
        describe_status(storage)
    storage.write("notes.txt", b"")
    with pytest.raises(RunError, match=r"holds files, but none that a run writes; name the output\.path of a job"):
        describe_status(storage)


def test_an_output_that_was_never_held(storage):
    storage.write("plan.json", b"{}")
    found = describe_status(storage)
    assert found == {
        "output": storage.uri(),
        "lease": None,
        "progress": None,
        "versions": {"count": 0, "newest": None, "shown": None},
        "report": None,
    }


def test_a_living_holder_and_its_progress(storage):
    with hold(storage, "run emoji"):
        assert describe_status(storage)["progress"] is None
        storage.write("progress.json", json.dumps({"stages": [AT_WORK]}).encode())
        found = describe_status(storage)
        assert found["progress"] == {"of": "holder", "stages": [AT_WORK | {"seconds_left": 15.0}]}
        lease = found["lease"]
        assert (lease["state"], lease["alive"], lease["purpose"]) == ("held", True, "run emoji")
        assert (lease["pid"], lease["host"]) == (os.getpid(), os.uname().nodename)
        assert lease["who"] == f"{lease['user']}@{lease['host']}, process {lease['pid']}"
    found = describe_status(storage)
    assert (found["lease"]["state"], found["lease"]["alive"]) == ("released", None)
    assert found["progress"] == {"of": "last run", "stages": [AT_WORK | {"seconds_left": None}]}


def test_who_is_no_run_has_no_progress(storage):
    storage.write("progress.json", json.dumps({"stages": [AT_WORK]}).encode())
    with hold(storage, "gc", deletes=True):
        found = describe_status(storage)
    assert found["progress"]["of"] == "last run"
    assert found["lease"]["deletes"]


def test_a_holder_that_is_gone_has_abandoned_it(storage, monkeypatch):
    acquire(storage, "run emoji")
    storage.write("progress.json", json.dumps({"stages": [AT_WORK]}).encode())
    monkeypatch.setattr(leases, "process_lives", lambda process: False)
    found = describe_status(storage)
    assert (found["lease"]["state"], found["lease"]["alive"]) == ("abandoned", False)
    assert found["progress"]["of"] == "last run"


def test_a_run_that_begins_disowns_the_progress_of_the_one_before(job):
    storage = Storage(job["output"]["path"])
    storage.write("progress.json", json.dumps({"stages": [AT_WORK]}).encode())
    with held(Job.model_validate(job)):
        assert describe_status(storage)["progress"]["of"] == "earlier run"
        assert read_progress(storage) == {"stages": [AT_WORK], "earlier": True}
        storage.write("progress.json", json.dumps({"stages": [AT_WORK]}).encode())
        assert describe_status(storage)["progress"]["of"] == "holder"
    with held(Job.model_validate(job)) as run:
        run.lease = None
        assert describe_status(storage)["progress"]["of"] == "earlier run"


def test_a_report_says_which_version_it_is_of(job, tmp_path):
    storage = Storage(job["output"]["path"])
    first = run_here(job)
    found = describe_status(storage)
    assert found["versions"]["newest"]["version"] == first["version"]
    assert found["versions"]["newest"]["rows"]["written"] == 40
    assert found["report"] == {"number": 1, "version": first["version"], "name": "emoji", "newest": True}
    before = storage.read("report/report.json")
    job["output"]["promote"] = "manual"
    job["corpus"]["keep"] = []
    second = run_here(job)
    assert describe_status(storage)["report"]["newest"]
    storage.write("report/report.json", before)
    found = describe_status(storage)
    assert (found["versions"]["count"], found["versions"]["shown"]) == (2, 1)
    assert found["versions"]["newest"]["version"] == second["version"]
    assert found["report"] == {"number": 1, "version": first["version"], "name": "emoji", "newest": False}
    storage.write("report/report.json", b"{}")
    with pytest.raises(RunError, match=r"report/report\.json: no report .*; `barycenter report` writes it again"):
        describe_status(storage)
