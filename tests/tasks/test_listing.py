"""What was seen of a corpus is the same in the plan, the manifest's figures and the line of the terminal."""

import json
from pathlib import Path

import pytest
from PIL import Image

from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.tasks.planning.plan import describe_plan, listing_line, prepare
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines
from tests.tasks.identity_runs import in_this_process, run_job


def _job(folder: Path, output: Path) -> Job:
    return Job.model_validate(
        {
            "corpus": {"path": str(folder)},
            "inputs": {"image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor"}},
            "output": {"path": str(output)},
        }
    )


def test_the_plan_says_what_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name in (".DS_Store", "notes.md", "more.md"):
        (tmp_path / "photos" / name).write_bytes(b"x")
    for name in ("_DSC1.JPG", "a.png"):
        Image.new("RGB", (8, 8)).save(tmp_path / "photos" / name)
    run = prepare(_job(tmp_path / "photos", tmp_path / "out"))
    expected = {"files": {"taken": 2, "passed_over": {"hidden": 1, "other_format": 2}}}
    assert run.listing == describe_plan(run)["listing"] == expected
    assert listing_line(run) == "files: 2 taken, passed over: 2 other_format, 1 hidden"


def test_manifest_and_report_say_what_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_this_process(monkeypatch)
    rows = text_and_vector_rows(40)
    (tmp_path / "rows").mkdir()
    write_lines(tmp_path / "rows" / "a.jsonl", rows)
    for name in (".hidden.jsonl", "notes.md", "_SUCCESS"):
        (tmp_path / "rows" / name).write_bytes(b"x")
    job = text_and_vector_job(tmp_path / "rows", tmp_path / "out", "listing", train={"target": "label"})
    job["inputs"].pop("text")
    report = run_job(job | {"alignment": {"method": "pca", "dim": 3}})
    passed_over = {"hidden": 1, "left_by_a_writer": 1, "other_format": 1}
    expected = {"files": {"taken": 1, "passed_over": passed_over}}
    assert report["listing"] == expected
    assert json.loads((tmp_path / "out" / "report" / "report.json").read_text())["listing"] == expected
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["listing"] == expected


def test_an_output_below_the_corpus_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(JobError, match=r"^output.path: .* lies inside the corpus .*"):
        prepare(_job(tmp_path, tmp_path / "out"))
