import json
import os
from datetime import date

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.fusion.errors import DeadlineError, JobError
from barycenter.infra.clock import use_clock
from barycenter.infra.corpus.formats.lines import JsonLines
from barycenter.infra.deadline import check_deadline
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.tasks.planning.plan import check_output, deadline_line, hand_over, held, notes, prepare, prepared
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_job, write_lines
from tests.infra.simulation import SimulatedClock


def test_an_output_that_is_a_file_or_below_one_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    check_output(Storage(str(tmp_path / "new" / "folder")))
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    with pytest.raises(JobError, match=r"output\.path: .*/file is a file; name a folder"):
        check_output(Storage(str(tmp_path / "file")))
    with pytest.raises(JobError, match=r"output\.path: .*lies below .*/file, which is no folder"):
        check_output(Storage(str(tmp_path / "file" / "out")))


def test_an_output_that_may_not_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(JobError, match=r"output\.path: .* may not be written to"):
        check_output(Storage(str(tmp_path / "out")))


def test_an_alignment_that_cannot_be_borrowed_is_refused_before_the_work(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(20))
    lent = text_and_vector_job(corpus, tmp_path / "lent", "lent", alignment={"method": "pca", "dim": 3})
    job = text_and_vector_job(corpus, tmp_path / "out", "borrows") | {"alignment": {"from": str(tmp_path / "lent")}}

    def refusal():
        with pytest.raises(JobError) as caught:
            prepare(Job.model_validate(job))
        assert caught.value.key == "alignment.from"
        return caught.value.problem

    refused = refusal()
    assert "lent/manifest.json: nothing has been committed here yet: there is no such folder, or it is empty" in refused
    assert refused.endswith("; name the output of a finished run")
    lent["output"]["promote"] = "manual"
    run_here(lent)
    assert "no version is shown to readers yet (there are: 1); choose one with `barycenter promote`" in refusal()
    lent["output"]["promote"] = "auto"
    run_here(lent)
    assert prepare(Job.model_validate(job)).rows == 20
    job["inputs"]["text"]["column"] = job["inputs"]["vec"]["column"] = "vec"
    job["inputs"] = {"text": job["inputs"].pop("vec"), "vec": {**job["inputs"].pop("text"), "column": "text"}}
    assert refusal() == "was fitted on other encoders of text, vec; embed with the same ones"
    assert not (tmp_path / "out").exists()


@pytest.fixture
def dated(tmp_path):
    """A job whose corpus and whose vectors lie in dated partitions: 30 rows on one day, 10 on the next."""
    for day, first, count in (("2024-01-30", 0, 30), ("2024-01-31", 30, 10)):
        rows = text_and_vector_rows(count, first=first)
        write_lines(tmp_path / "rows" / f"date={day}" / "a.jsonl", rows)
        write_lines(tmp_path / "vectors" / f"date={day}" / "a.jsonl", rows)
    return text_and_vector_job(tmp_path / "rows", tmp_path / "out", "dated")


def test_a_backfill_is_a_version_of_the_rows_of_then(dated):
    report = run_here(dated, as_of=date(2024, 1, 30))
    assert report["rows"]["written"] == 30
    assert report["listing"]["files"] == {"taken": 1, "passed_over": {"after_the_date": 1}}
    whole = run_here(dated)
    assert whole["rows"]["written"] == 40
    assert whole["reuse"]["text"] | {"read": 40, "kept": 30} == whole["reuse"]["text"]
    assert run_here(dated, as_of=date(2024, 1, 30))["version"] == report["version"]


def test_a_backfill_keeps_no_alignment_of_later_rows(dated, tmp_path):
    then = run_here(dated | {"output": {"path": str(tmp_path / "then")}}, as_of=date(2024, 1, 30))
    run_here(dated)
    late = run_here(dated, as_of=date(2024, 1, 30))
    assert (late["version"], late["alignment"]) == (then["version"], then["alignment"])
    assert late["reuse"]["vec"]["encoded"] == 0


def test_a_backfill_says_what_readers_will_see_unless_that_is_chosen_by_hand(dated):
    job = Job.model_validate(dated)
    assert prepare(job, as_of=date(2024, 1, 30)).after == 0
    assert not any("as of" in note for note in notes(prepare(job, as_of=date(2024, 1, 30))))
    run_here(dated)
    (note,) = (note for note in notes(prepare(job, as_of=date(2024, 1, 30))) if "as of" in note)
    assert note.startswith(
        f"as of 2024-01-30: readers of {job.output.path} will see this version in place of version 1"
    )
    assert not any("as of" in note for note in notes(prepare(job)))
    by_hand = Job.model_validate(dated | {"output": dated["output"] | {"promote": "manual"}})
    assert not any("as of" in note for note in notes(prepare(by_hand, as_of=date(2024, 1, 30))))


def test_a_table_of_an_input_has_to_be_dated_too(dated, tmp_path):
    dated["inputs"]["vec"]["corpus"] = {"path": str(tmp_path / "vectors")}
    run = prepare(Job.model_validate(dated), as_of=date(2024, 1, 30))
    assert [source.rows for source in run.sources] == [30, 30]
    (tmp_path / "vectors" / "date=2024-01-31" / "a.jsonl").rename(tmp_path / "vectors" / "late.jsonl")
    with pytest.raises(JobError, match=r"inputs\.vec\.corpus\.path: .*/vectors is not partitioned by a date"):
        prepare(Job.model_validate(dated), as_of=date(2024, 1, 30))
    assert prepare(Job.model_validate(dated)).rows == 40


def test_what_was_prepared_as_of_a_day_is_not_taken_for_another(dated):
    job = Job.model_validate(dated)
    hand_over(prepare(job, as_of=date(2024, 1, 30)))
    assert prepared(job).rows == 40
    run = prepare(job, as_of=date(2024, 1, 30))
    hand_over(run)
    assert prepared(job, as_of=date(2024, 1, 30)) is run


def test_the_time_of_a_run_counts_from_before_its_corpus_is_read(dated):
    job, clock = Job.model_validate(dated | {"limits": {"deadline": "6h"}}), SimulatedClock()
    with use_clock(clock):
        run = prepare(job)
        hand_over(run)
        clock.sleep(5 * 3600)
        with held(job) as taken:
            assert taken is run
            check_deadline()
            clock.sleep(3600)
            with pytest.raises(DeadlineError, match=r"limits\.deadline \(6h\) is over"):
                check_deadline()


def test_it_may_be_over_before_all_files_are_read(dated, monkeypatch):
    job, clock = Job.model_validate(dated | {"limits": {"deadline": "6h"}}), SimulatedClock()
    index = JsonLines.index_source

    def slowly(*args):
        clock.sleep(4 * 3600)
        return index(*args)

    monkeypatch.setattr(JsonLines, "index_source", slowly)
    with use_clock(clock), pytest.raises(DeadlineError), held(job):
        pytest.fail("it was begun")


@pytest.mark.parametrize(
    ("deadline", "line"),
    [
        ("6h", "limits.deadline (6h): there is time for all of it"),
        ("1m", "limits.deadline (1m): too short by about 20 s; the run stops there, and the next goes on"),
    ],
)
def test_the_plan_says_whether_the_rest_fits_into_the_deadline(dated, tmp_path, deadline, line):
    stages = ("embed text", "embed vec", "align", "fuse", "report")
    speed = {stage: {"rows": 40, "seconds": 16.0, "rows_per_s": 2.5} for stage in stages}
    (tmp_path / "out" / "report").mkdir(parents=True)
    (tmp_path / "out" / "report" / "report.json").write_text(json.dumps({"speed": speed}))
    path = write_job(tmp_path / "job.yaml", dated | {"limits": {"deadline": deadline}})
    result = CliRunner().invoke(app, ["run", str(path), "--plan"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-2:] == ["time left: about 80 s by the rates last measured here", line]


def test_a_job_without_a_deadline_has_no_such_line(dated):
    assert deadline_line(Job.model_validate(dated), 1e9) is None
