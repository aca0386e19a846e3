"""What `auto` chooses travels from the job file through the run into the report, and on into another run."""

import json

import numpy as np
import pytest

from barycenter.fusion.alignment import CHOICES
from tests.flows import corpora


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A job with a third input of pure noise, run with every choice left to `auto`."""
    folder = tmp_path_factory.mktemp("chosen")
    rng = np.random.default_rng(0)
    rows = corpora.text_and_vector_rows(240)
    for row in rows:
        row["noise"] = rng.normal(size=12).tolist()
    rows[3]["label"] = ""
    corpus = corpora.write_lines(folder / "rows.jsonl", rows)
    job = corpora.text_and_vector_job(corpus, folder / "out", "chosen", train={"target": "label"})
    job["inputs"]["noise"] = {"kind": "vector", "column": "noise", "batch": 16}
    job["corpus"]["rows_per_shard"] = 120
    return job, corpora.run_here(job)


def test_the_report_says_what_was_tried_and_what_won(chosen):
    _, report = chosen
    about = report["alignment"]
    assert "probe" in about["chosen_by"]
    assert {trial["method"] for trial in about["tried"]} <= set(CHOICES)
    winner = next(trial for trial in about["tried"] if trial.get("chosen"))
    assert winner["method"] == about["method"]
    assert set(about["lead"]) == {"mean", "standard_error"}
    assert about["average"] in ("mean", "weighted")
    assert set(winner["weights"]) == {"text", "vec", "noise"}
    assert set(about["fill_ridges"]) == {"text", "vec", "noise"}
    assert about["significant"]["components"] <= about["significant"]["tested"]
    assert report["retrieval"]["space"]


def test_gaps_have_intervals(chosen):
    _, report = chosen
    gaps = report["probe"]["cross_validated"]["gaps"]
    assert list(gaps) == ["complete", "complete, best input", "without text", "without vec", "without noise"]
    for gap in gaps.values():
        assert gap["low"] <= gap["mean"] <= gap["high"]
    assert gaps["complete"]["against"] == "concat"


def test_another_run_borrows_alignment_and_average(chosen, tmp_path):
    job, report = chosen
    rows = corpora.text_and_vector_rows(40, first=1000)
    for row in rows:
        row["noise"] = [0.0] * 12
    other = json.loads(json.dumps(job))
    other |= {"name": "borrowed", "output": {"path": str(tmp_path / "out")}}
    other["corpus"]["path"] = str(corpora.write_lines(tmp_path / "rows.jsonl", rows))
    other["alignment"] = {"from": job["output"]["path"]}
    del other["train"]
    borrowed = corpora.run_here(other)
    assert borrowed["alignment"]["chosen_by"] == "alignment.from"
    for key in ("method", "dim", "average", "weights"):
        assert borrowed["alignment"][key] == report["alignment"][key]
    theirs, ours = (json.loads(corpora.output(each).read("manifest.json")) for each in (job, other))
    assert ours["average"] == theirs["average"]
    assert ours["alignment_id"] == theirs["alignment_id"]
    assert corpora.vectors(corpora.read_features(other)).shape == (40, theirs["dim"])
