"""What was seen of a corpus is the same in the plan, the manifest's figures and the line of the terminal."""

from pathlib import Path

import pytest
from PIL import Image

from fusion.errors import JobError
from infra.job import Job
from tasks.plan import describe_plan, listing_line, prepare


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


def test_an_output_below_the_corpus_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    with pytest.raises(JobError, match=r"^output.path: .* lies where .* is read"):
        prepare(_job(tmp_path, tmp_path / "out"))
