"""What a run will write is said before it is written."""

import shutil
from types import SimpleNamespace

import pytest

from barycenter.infra.job.models import Job
from barycenter.tasks.planning import space
from barycenter.tasks.planning.plan import describe_plan, notes, prepare
from barycenter.tasks.planning.space import space_needed
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines


@pytest.fixture
def data(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(600))
    return text_and_vector_job(corpus, tmp_path / "out", "space", alignment={"method": "pca", "dim": 4})


def size_of(folder):
    return sum(path.stat().st_size for path in folder.rglob("*.parquet") if not path.parent.name.startswith("."))


@pytest.mark.parametrize("output", [{}, {"dtype": "float16", "keep_aligned": True}], ids=["plain", "aligned"])
def test_the_estimate_is_no_less_than_what_comes_and_not_far_above(data, tmp_path, output):
    data["output"] |= output
    before = space_needed(prepare(Job.model_validate(data)))
    run_here(data)
    for part in ("embeddings", "features"):
        assert size_of(tmp_path / "out" / part) <= before[part] < 12 * size_of(tmp_path / "out" / part), part
    after = describe_plan(prepare(Job.model_validate(data)))["space"]
    assert (after["embeddings"], after["features"]) == (0, 0)
    for job, flags in ((data, {"refit": True}), (data | {"alignment": {"method": "pca", "dim": 5}}, {})):
        again = space_needed(prepare(Job.model_validate(job), **flags))
        assert again["embeddings"] == 0
        assert again["features"] >= before["features"], "another version is written"


def test_a_disk_that_is_too_small_is_said_before_the_work(data, monkeypatch):
    run = prepare(Job.model_validate(data))
    assert not any("space:" in note for note in notes(run))
    monkeypatch.setattr(space.shutil, "disk_usage", lambda _: SimpleNamespace(free=1 << 20))
    (line,) = [note for note in notes(run) if "space:" in note]
    assert line.startswith("output.path: space: about 0.0 GiB to be written")
    assert line.endswith("0.0 GiB free; make room or name a folder on another disk")


def test_free_is_what_the_disk_of_a_folder_that_is_yet_to_come_has(data, tmp_path):
    run = prepare(Job.model_validate(data))
    assert space_needed(run)["free"] == pytest.approx(shutil.disk_usage(tmp_path).free, rel=0.1)
