"""The commands on the versions of an output: promote, rollback, pin, gc, and who may write."""

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.flows.commands import jobs
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import commit_manifest
from barycenter.infra.versions.lease import acquire, hold, newest_term
from barycenter.infra.versions.manifests import read_manifest, versions
from tests.flows.corpora import text_and_vector_job
from tests.infra.versions.outputs import output


@pytest.fixture
def storage(tmp_path):
    """Three versions of an output, the last two not shown to readers."""
    storage = Storage(str(tmp_path))
    with hold(storage, "test") as lease:
        for number, promote in ((1, "auto"), (2, "manual"), (3, "manual")):
            manifest = output(storage, f"v{number}", parent=number - 1 or None)
            rows = {"read": 3, "written": 3, "rejected": 0}
            commit_manifest(storage, replace(manifest, rows=rows), lease, promote)
    return storage


def invoke(storage, command, *arguments):
    return CliRunner().invoke(app, [command, storage.uri(), *arguments])


def test_versions_are_promoted_pinned_and_collected(storage):
    assert "readers see version 3: v3" in invoke(storage, "promote").stdout
    assert "readers see version 2: v2" in invoke(storage, "rollback", "2").stdout
    assert "version 1 is pinned" in invoke(storage, "pin", "1").stdout
    shown = invoke(storage, "inspect", "--versions").stdout
    assert "pinned" in shown
    assert "readers" in shown
    assert invoke(storage, "gc", "--dry-run").stdout == "0 files would be deleted\n"
    assert invoke(storage, "pin", "1", "--remove").exit_code == 0
    assert "manifests/1.json" in invoke(storage, "gc").stdout.splitlines()
    assert versions(storage) == [2, 3]
    assert newest_term(storage).released
    missing = invoke(storage, "pin", "1")
    assert missing.exit_code == 1
    assert "version 1 was deleted by `barycenter gc`" in missing.stderr


@pytest.mark.parametrize("command", [("promote",), ("rollback", "1"), ("gc",)])
def test_who_does_not_wait_is_answered_with_the_holder(storage, command):
    acquire(storage, "run nightly")
    failed = invoke(storage, *command, "--busy", "fail")
    skipped = invoke(storage, *command, "--busy", "skip")
    assert (failed.exit_code, skipped.exit_code) == (1, 0)
    assert "is held by run nightly" in failed.stderr
    assert skipped.stderr.startswith("barycenter: skipped: ")
    assert "is held by run nightly" in skipped.stderr
    assert read_manifest(storage).number == 1


def test_the_newest_version_is_the_one_that_is_there_after_waiting(storage, monkeypatch):
    lease = acquire(storage, "run nightly")

    def commit_and_release(*_args):
        if not newest_term(storage).released:
            commit_manifest(storage, output(storage, "v4", parent=3), lease)
            lease.release()

    monkeypatch.setattr("barycenter.infra.clock.SystemClock.sleep", staticmethod(commit_and_release))
    assert "readers see version 4: v4" in invoke(storage, "promote").stdout


def test_a_run_says_whether_readers_see_its_version(storage, tmp_path, monkeypatch):
    monkeypatch.setattr("barycenter.tasks.report.rendering.terminal_table", lambda result: "")
    job = Job.model_validate(text_and_vector_job(tmp_path / "rows.jsonl", tmp_path, "shown"))

    def said():
        with jobs.out.capture() as captured:
            jobs._show_report(job, {"version": "v3", "lineage": {"number": 3}})
        return captured.get()

    assert f"manifest  {tmp_path}/manifests/3.json\nreaders see it after `barycenter promote {tmp_path} 3`" in said()
    invoke(storage, "promote", "3")
    assert f"manifest  {tmp_path}/manifest.json\nreport" in said()
