"""A value that does not fit its column's type is a line of the rejects, whatever the column is for."""

import json

import pytest

from tests.flows.corpora import WORDS, output, read_features, text_and_vector_job, text_and_vector_rows, write_lines
from tests.tasks.identity_runs import in_this_process, run_job

ROWS = 400
BAD = {"text": 390, "parts": 391, "shares": 392, "label": 393, "group": 394, "price": 395, "id": 396, "vec": 397}


@pytest.fixture
def job(tmp_path, monkeypatch):
    """A job over rows whose columns are each of another type in one late row."""
    in_this_process(monkeypatch)
    monkeypatch.setattr("barycenter.infra.corpus.corpus._SAMPLE_ROWS", 20)
    monkeypatch.setattr("barycenter.infra.corpus.formats.lines._LATER_RECORDS", 1)
    rows = text_and_vector_rows(ROWS)
    for number, row in enumerate(rows):
        row |= {"id": number, "group": number % 40, "price": number / 4}
        row |= {"parts": [WORDS[number % 7], "and"], "shares": [1.0, 3.0], "label": number % 3}
    late = {"text": "half \ud800", "vec": "none", "parts": 5, "id": "late"}
    for column, number in BAD.items():
        rows[number][column] = late.get(column, ["no", "number"])
    corpus = write_lines(tmp_path / "rows.jsonl", rows)
    job = text_and_vector_job(corpus, tmp_path / "out", "misfits", train={"target": "label", "group_by": "group"})
    job["corpus"] |= {"keep": ["label", "group", "price"]}
    job["inputs"]["parts"] = job["inputs"]["text"] | {"column": "parts", "weights_column": "shares"}
    job["alignment"] = {"method": "pca", "dim": 3}
    return job


def test_a_late_value_of_another_type_is_a_reject_of_its_column(job):
    report = run_job(job)
    manifest = json.loads(output(job).read("manifest.json"))
    lines = [line for path in manifest["rejects"] for line in output(job).read_table(path).to_pylist()]
    found = {(line["key"], line["input"], line["source"]): line["detail"] for line in lines}
    assert {line["reason"] for line in lines} == {"wrong_type"}
    assert found == {
        ("390", "text", "rows.jsonl#390"): "column text: holds half a surrogate pair, which is not valid text",
        ("391", "parts", "rows.jsonl#391"): "column parts: '5' is not a list of string",
        ("392", "parts", "rows.jsonl#392"): 'column shares: \'["no", "number"]\' is not a list of numbers',
        ("393", "label", "rows.jsonl#393"): '\'["no", "number"]\' is not a whole number',
        ("394", "group", "rows.jsonl#394"): '\'["no", "number"]\' is not a whole number',
        ("395", "price", "rows.jsonl#395"): '\'["no", "number"]\' is not a number',
        ("397", "vec", "rows.jsonl#397"): "column vec: 'none' is not a list of numbers",
    }
    assert report["rows"]["read"] == report["rows"]["written"] == ROWS
    rows = {row["id"]: row for row in read_features(job).to_pylist()}
    assert "late" in rows
    for key, column, _ in found:
        assert rows[key].get(f"has_{column}", rows[key].get(column)) in (None, False)
