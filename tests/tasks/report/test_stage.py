"""What whole runs say of their rows: labels that were made wrong, several labels a row, numbers, nothing to learn."""

import json

import numpy as np
import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.versions.manifests import report_path
from tests.flows.corpora import output, run_here, text_and_vector_job, text_and_vector_rows, write_lines

ROWS = 240
FLIPPED = range(5, ROWS, 40)


def job_of(folder, rows, target):
    corpus = write_lines(folder / "rows.jsonl", rows)
    job = text_and_vector_job(corpus, folder / "out", folder.name, train={"target": target})
    job["corpus"]["keep"] = [target]
    job["alignment"] = {"method": "joint", "dim": 8}
    return job


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    """A job whose labels are learned easily, but for six that are wrong."""
    rows = text_and_vector_rows(ROWS)
    for at in FLIPPED:
        rows[at]["label"] = f"class {(int(rows[at]['label'][-1]) + 1) % 3}"
    job = job_of(tmp_path_factory.mktemp("flipped"), rows, "label")
    return job, run_here(job, drawn=True)


def test_labels_that_were_made_wrong_are_those_to_look_at(flipped):
    _, report = flipped
    wrong = {f"r{at:04d}" for at in FLIPPED}
    assert {row["key"] for row in report["mistakes"]["doubtful"]["rows"]} >= wrong
    assert report["mistakes"]["doubtful"]["n"] <= len(wrong) + 2
    assert {row["key"] for row in report["mistakes"]["worst"]} & wrong
    (sentence,) = (each["sentence"] for each in report["answers"]["help"] if each["about"] == "labels")
    assert sentence.startswith("Look at the labels of")


def test_the_matrix_adds_up_to_the_score_that_is_reported(flipped):
    _, report = flipped
    counts = np.array(report["mistakes"]["confusion"]["counts"])
    crossed = report["probe"]["cross_validated"]
    assert counts.sum() == report["mistakes"]["n"] == crossed["n_test"] == ROWS
    assert np.trace(counts) / ROWS == pytest.approx(crossed["candidates"]["fused"]["complete"])
    assert report["answers"]["score"]["score"] == crossed["candidates"]["fused"]["complete"]


def test_the_page_shows_what_report_json_says(flipped):
    job, report = flipped
    storage = output(job)
    assert json.loads(storage.read("report/report.json")) == json.loads(json.dumps(report))
    assert storage.read(report_path(report["version"])) == storage.read("report/report.json")
    page = storage.read("report/report.html").decode()
    for part in (
        "Is that good?",
        "Which rows are wrong?",
        "What would help?",
        "confusion",
        report["mistakes"]["worst"][0]["key"],
    ):
        assert part in page
    samples = json.loads(storage.read("report/samples.json"))
    assert [row["key"] for row in samples["errors"]] == [row["key"] for row in report["mistakes"]["worst"]]
    assert all(row["text"] for row in samples["errors"])


def test_the_split_and_the_curves_are_in_the_report(flipped):
    _, report = flipped
    split = report["split"]
    assert (split["by"], split["group_by"], split["other"]) == (None, None, 0)
    assert split["train"] + split["test"] == ROWS
    assert split["test"] == report["probe"]["n_test"]
    assert [point["dim"] for point in report["probe"]["dimensions"]] == [4, 8]
    assert report["probe"]["learning"][-1]["rows"] == split["train"]
    assert set(report["probe"]["worth"]) == {"text", "vec"}
    assert report["alignment"]["most_dim"] >= report["alignment"]["dim"]


def test_rows_with_several_labels_have_figures_for_each(tmp_path):
    rows = text_and_vector_rows(120)
    for at, row in enumerate(rows):
        row["tags"] = [row["label"], *(["odd"] if at % 2 else [])]
    report = run_here(job_of(tmp_path, rows, "tags"))
    found = report["mistakes"]
    by = {line["label"]: line for line in found["labels"]}
    assert set(by) == {"class 0", "class 1", "class 2", "odd"}
    assert min(by[f"class {number}"]["f1"] for number in range(3)) > 0.7
    assert by["odd"]["n"] == 60
    assert by["odd"]["f1"] < 0.8
    assert "whole label sets" in report["answers"]["score"]["sentence"]


def test_numbers_have_residuals_and_an_outlier_is_named(tmp_path):
    rows = text_and_vector_rows(150)
    for row in rows:
        row["price"] = 10.0 * row["vec"][0] + row["vec"][1] + 0.25
    rows[17]["price"] += 500
    job = job_of(tmp_path, rows, "price")
    report = run_here(job)
    assert report["mistakes"]["worst"][0]["key"] == "r0017"
    assert report["mistakes"]["doubtful"]["rows"][0]["key"] == "r0017"
    assert "share" not in report["neighbors"]
    assert report["neighbors"]["spread"] > 0
    samples = json.loads(output(job).read("report/samples.json"))
    assert len(samples["residuals"]["predicted"]) == 150
    assert len(samples["map"]["value"]) == 150
    assert "explains" in report["answers"]["score"]["sentence"]


def test_of_one_input_the_report_says_what_fewer_dimensions_keep(tmp_path):
    job = job_of(tmp_path, text_and_vector_rows(90), "label")
    del job["inputs"]["text"]
    job["alignment"] = {"method": "pca", "dim": 2}
    report = run_here(job)
    kept = report["alignment"]["variance_kept"]
    assert (kept["input"], kept["of"]) == ("vec", 6)
    assert 0.7 < kept["share"] < 1
    words = f"Its 2 dimensions keep {100 * kept['share']:.1f} % of the variance of vec's 6; the score is "
    assert words in report["answers"]["verdict"]["sentence"]


def test_one_label_for_all_is_a_plain_answer(tmp_path):
    rows = [row | {"label": "same"} for row in text_and_vector_rows(60)]
    report = run_here(job_of(tmp_path, rows, "label"))
    assert "mistakes" not in report
    assert report["answers"]["score"] is None
    assert report["answers"]["verdict"]["sentence"].startswith("There is nothing to learn from the target")
    assert report["answers"]["help"] == []


def test_labels_by_lot_are_no_signal_and_no_advice_on_inputs(tmp_path):
    rng = np.random.default_rng(0)
    rows = [row | {"label": str(rng.choice(["heads", "tails"]))} for row in text_and_vector_rows(120)]
    answers = run_here(job_of(tmp_path, rows, "label"))["answers"]
    assert answers["verdict"]["tone"] == "none"
    assert answers["score"]["sentence"].endswith("That is no better than the guess.")
    assert {finding["about"] for finding in answers["help"]} <= {"labels", "rows", "encoders"}


def test_rows_whose_key_another_row_counts_for_are_in_no_figure(tmp_path):
    rows = text_and_vector_rows(ROWS)
    again = [row | {"label": "of no row", "text": "another text"} for row in rows[::4]]
    report = run_here(job_of(tmp_path, rows + again, "label") | {"limits": {"max_bad_fraction": 0.5}})
    assert report["rows"]["rejected"] == len(again)
    assert report["probe"]["cross_validated"]["n_test"] == report["mistakes"]["n"] == ROWS
    assert "of no row" not in report["mistakes"]["confusion"]["labels"]


def answers_on(report):
    return {finding["about"]: finding["sentence"] for finding in report["answers"]["help"]}


def test_copies_on_both_sides_are_counted_and_groups_keep_them_together(tmp_path):
    rows = [row | {"label": f"class {at % 5}", "design": f"d{at}"} for at, row in enumerate(text_and_vector_rows(120))]
    for at, row in enumerate(rows):
        row["text"] = f"{row['text']} {at}"
    again = [row | {"id": f"again {row['id']}"} for row in rows[::2]]
    job = job_of(tmp_path, rows + again, "label")
    report = run_here(job)
    copied = report["probe"]["copies"]
    assert copied["of"] == 180
    assert 60 <= copied["rows"] <= 120
    assert copied["rows"] % 2 == 0
    assert copied["score"] < report["answers"]["score"]["score"]
    assert (
        f" {copied['rows']} of these rows have the inputs of a row that was learned from; without them the score is "
        in (report["answers"]["score"]["sentence"])
    )
    assert next(iter(answers_on(report))) == "copies"
    assert "name a column that they share in train.group_by." in answers_on(report)["copies"]

    job["train"]["group_by"] = "design"
    together = run_here(job)
    assert together["probe"]["copies"] == {"rows": 0, "of": 180, "score": None}
    assert "copies" not in answers_on(together)
    assert together["answers"]["score"]["score"] < report["answers"]["score"]["score"]


def test_too_many_repeated_keys_are_said_to_be_that(tmp_path):
    rows = text_and_vector_rows(30)
    with pytest.raises(RunError, match=r"^30 of 60 rows repeat the key of another.*corpus\.key"):
        run_here(job_of(tmp_path, rows + rows, "label") | {"limits": {"max_bad_fraction": 0.1}})


def test_rows_in_neither_part_of_the_split_are_not_scored(tmp_path):
    rows = [
        row | {"part": ("train", "test", "validation")[at % 3]} for at, row in enumerate(text_and_vector_rows(ROWS))
    ]
    wrong = [row | {"label": "of validation"} if row["part"] == "validation" else row for row in rows]
    job = job_of(tmp_path, wrong, "label")
    job["train"]["split"] = "part"
    report = run_here(job)
    assert report["mistakes"]["n"] == report["probe"]["cross_validated"]["n_test"] == ROWS * 2 // 3
    assert "of validation" not in report["mistakes"]["confusion"]["labels"]
