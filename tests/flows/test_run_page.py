"""What the page of a run in Prefect shows: its log from start to report, and a state that says how it ended."""

import json
import logging
import re
import signal
import threading
from functools import partial

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterName, LogFilter, LogFilterFlowRunId
from prefect.states import Cancelling
from typer.testing import CliRunner

from barycenter.flows import attended
from barycenter.flows.attended import AttendedRun
from barycenter.flows.cli import app
from barycenter.flows.pipeline import pipeline
from barycenter.flows.stages import embed
from barycenter.fusion.errors import BusyError, JobError, RunError
from barycenter.infra import deadline
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.infra.versions.lease import acquire
from barycenter.tasks.embed import bad_inputs
from barycenter.tasks.observability.artifact_keys import History
from barycenter.tasks.observability.progress import StageProgress
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines
from tests.infra.dispatch.test_api import wait_until
from tests.infra.simulation import SimulatedClock

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job in this process, by the test's name."""
    monkeypatch.setattr("barycenter.tasks.report.rendering.figures.plots", lambda *_: {})
    rows = text_and_vector_rows(40)
    rows[3]["text"] = None
    corpus = write_lines(tmp_path / "rows.jsonl", rows)
    data = text_and_vector_job(corpus, tmp_path / "out", tmp_path.name, ray={"address": "none"})
    return Job.model_validate(data)


def with_limits(job, **limits):
    return job.model_copy(update={"limits": job.limits.model_copy(update=limits)})


def when(stage, monkeypatch, act):
    """Does something once, in the middle of a stage."""
    advance, left = StageProgress.advance, [act]

    def advancing(progress, *args):
        if progress.stage == stage and left:
            left.pop()()
        advance(progress, *args)

    monkeypatch.setattr(StageProgress, "advance", advancing)


def newest(name):
    """The latest flow run of a name."""
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[name])))
    return max(runs, key=lambda run: run.created)


def lines_of(run):
    """Level and message of a run's log, in order."""
    with get_client(sync_client=True) as client:
        found = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
    return [(line.level, line.message) for line in found]


def in_order(lines, *parts):
    """Asserts that lines with these parts come one after the other."""
    rest = iter(lines)
    for part in parts:
        assert any(part in line for line in rest), (part, lines)


def test_the_log_has_the_story_from_start_to_report(job, monkeypatch, tmp_path):
    def work():
        thread = threading.Thread(target=lambda: logging.getLogger("barycenter.test").info("a thread without a run"))
        thread.start()
        thread.join()
        logging.getLogger("library").warning("a warning of a library")
        logging.getLogger("library").info("of no interest")

    when("embed vec", monkeypatch, work)
    pipeline(job)
    lines = lines_of(newest(job.name))
    in_order(
        [line for _, line in lines],
        f"run {job.name} (job ",
        "plan: 40 rows in 2 shards of 1 file; text by builtin/hashing (512 values), vec by ready vectors (6 values)",
        "embed text: 40 rows to do",
        "embed text: 40/40 rows, ",
        "a thread without a run",
        "a warning of a library",
        "embed vec: 40/40 rows, ",
        "fit: 40/40 rows, ",
        "fuse: 40/40 rows, ",
        "is committed (manifest 1): 40 rows of 8 values in ",
        "bad inputs: 1 null; each is a row of ",
        "report: 40/40 rows, ",
        f"report: {tmp_path}/out/report/report.html",
    )
    assert not any("no interest" in line for _, line in lines)
    assert {level for level, _ in lines} == {logging.INFO, logging.WARNING}

    pipeline(job)
    in_order(
        [line for _, line in lines_of(newest(job.name))],
        *(f"{stage}: nothing to do, it was done before" for stage in ("embed text", "embed vec", "align", "fuse")),
        "nothing new: version ",
    )


def test_jobs_of_one_name_share_no_history(job, monkeypatch, tmp_path):
    embed(job)
    name = tmp_path.name.replace("_", "-")
    with get_client(sync_client=True) as client:
        assert History(job.name, job.output.path).key("report", client) == f"{name}-report"
        other = History(job.name, f"{job.output.path}-2").key("report", client)
    assert re.fullmatch(rf"{name}-[0-9a-f]{{6}}-report", other)


def failed(name, error):
    """Asserts how a failed run is shown: by its line, once, without a traceback."""
    run = newest(name)
    assert run.state.is_failed()
    assert run.state.message == str(error)
    lines = lines_of(run)
    assert [line for _, line in lines].count(str(error)) == 1
    assert not any("Traceback" in line for _, line in lines), lines


def test_a_wrong_job_file_is_the_state_of_its_run(tmp_path):
    path = write_job(tmp_path / "job.yaml", {"name": "wrong", "inputs": {}})
    with pytest.raises(JobError) as caught:
        pipeline(str(path))
    failed(str(path), caught.value)


def test_so_are_too_many_bad_rows(job):
    with pytest.raises(RunError, match="nothing was committed; correct them and run again") as caught:
        embed(with_limits(job, max_bad_fraction=0.01))
    failed(f"embed {job.name}", caught.value)


def test_an_error_that_nobody_foresaw_has_its_traceback(job, monkeypatch):
    monkeypatch.setattr(bad_inputs, "newest_manifest", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        AttendedRun().run(embed, job)
    run = newest(f"embed {job.name}")
    assert run.state.is_failed()
    assert any("Traceback" in line for _, line in lines_of(run))


@pytest.mark.parametrize("skip", [True, False])
def test_a_held_output_says_by_whom(job, monkeypatch, skip):
    def busy(*_, **__):
        raise BusyError("out is held by run nightly (somebody); nothing was done", skip)

    monkeypatch.setattr("barycenter.flows.stages.held", busy)
    if skip:
        assert AttendedRun().run(embed, job) is None
        state = newest(f"embed {job.name}").state
        assert (state.name, state.message) == ("Skipped", "out is held by run nightly (somebody); nothing was done")
        assert state.is_completed()
    else:
        with pytest.raises(BusyError) as caught:
            AttendedRun().run(embed, job)
        failed(f"embed {job.name}", caught.value)


def test_a_run_that_waits_says_for_whom(job, tmp_path):
    storage = Storage(job.output.path)
    lease = acquire(storage, "run nightly")
    waiting = threading.Event()

    def release():
        waiting.wait(60)
        lease.release()

    class Waits(logging.Handler):
        def emit(self, record):
            if "which is held by run nightly (" in record.getMessage():
                waiting.set()

    handler, log = Waits(), logging.getLogger("barycenter.infra.versions.lease")
    log.addHandler(handler)
    threading.Thread(target=release).start()
    try:
        embed(job)
    finally:
        log.removeHandler(handler)
    lines = lines_of(newest(f"embed {job.name}"))
    assert any(f"waiting for {job.output.path}, which is held by run nightly (" in line for _, line in lines)


def test_a_run_whose_time_is_over_stops_and_the_next_goes_on(job, monkeypatch):
    clock = SimulatedClock()
    monkeypatch.setattr(deadline, "current_clock", lambda: clock)
    when("embed vec", monkeypatch, lambda: clock.sleep(6 * 3600))
    with pytest.raises(RunError, match=r"deadline \(6h\) is over: stopped in stage embed vec; .*run again") as caught:
        AttendedRun().run(embed, with_limits(job, deadline="6h"))
    failed(f"embed {job.name}", caught.value)
    assert newest(f"embed {job.name}").state.name == "TimedOut"
    done = embed(with_limits(job, deadline="7h"))
    assert done["embed text"]["shards"] == 0
    assert done["embed vec"]["shards_done_before"] == 1


def test_a_cancelled_run_is_cancelled_and_no_crash(job, monkeypatch):
    monkeypatch.setattr(attended, "_WATCH_SECONDS", 0.05)

    def cancel():
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(newest(f"embed {job.name}").id, Cancelling())
        wait_until(lambda: False)  # the interruption ends it

    when("embed vec", monkeypatch, cancel)
    with pytest.raises(RunError, match="the run was cancelled in Prefect; what is done stays done: run again"):
        AttendedRun().run(embed, job)
    run = newest(f"embed {job.name}")
    assert run.state.is_cancelled()
    assert run.state.message.startswith("cancelled in Prefect; what is done stays done")
    assert not any("Crash detected" in line for _, line in lines_of(run))


@pytest.mark.parametrize(("number", "name"), [(signal.SIGINT, "Cancelled"), (signal.SIGTERM, "Crashed")])
def test_an_interrupted_run_says_by_what(job, monkeypatch, request, number, name):
    # Ctrl-C is ignored in what a shell starts in its background.
    request.addfinalizer(
        partial(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
    )
    when("embed vec", monkeypatch, lambda: signal.raise_signal(number))
    with pytest.raises(KeyboardInterrupt):
        AttendedRun().run(embed, job)
    run = newest(f"embed {job.name}")
    by = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert (run.state.name, run.state.message.partition(";")[0]) == (name, f"stopped by {by}")
    assert not any("Crash detected" in line for _, line in lines_of(run))


def test_a_stage_takes_the_corpus_as_it_was_and_says_so(tmp_path):
    for day, first in (("2024-01-30", 0), ("2024-01-31", 30)):
        rows = text_and_vector_rows(30, first=first)
        write_lines(tmp_path / "rows" / f"date={day}" / "a.jsonl", rows)
    data = text_and_vector_job(tmp_path / "rows", tmp_path / "out", tmp_path.name, ray={"address": "none"})
    path = write_job(tmp_path / "job.yaml", data)
    for stage in ("embed", "fuse"):
        result = CliRunner().invoke(app, [stage, str(path), "--as-of", "2024-01-30"])
        assert result.exit_code == 0, result.stderr
        lines = [line for _, line in lines_of(newest(f"{stage} {tmp_path.name}"))]
        (plan,) = (line for line in lines if line.startswith("plan: 30 rows"))
        assert plan.endswith("; with the corpus as of 2024-01-30")
    assert json.loads(result.stdout)["rows"]["written"] == 30
    assert CliRunner().invoke(app, ["embed", str(path)]).exit_code == 0
    late = CliRunner().invoke(app, ["report", str(path), "--as-of", "2024-01-31"])
    assert late.exit_code == 1
    assert "holds other rows than the corpus as of 2024-01-31; run `barycenter fuse` as of it first" in late.stderr
