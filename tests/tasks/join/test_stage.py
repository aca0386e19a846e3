"""Inputs with tables of their own, joined in this process."""

import pytest

from barycenter.fusion.errors import RunError
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines
from tests.tasks.identity_runs import in_this_process, run_job

ROWS = 40


def job_of(tmp_path, key):
    """A job whose captions are in a second table; ``key`` spells the key of each row there."""
    rows = [row | {"id": str(number), "label": number % 2} for number, row in enumerate(text_and_vector_rows(ROWS))]
    corpus = write_lines(tmp_path / "rows.jsonl", rows)
    captions = [{"id": key(number), "caption": row["text"]} for number, row in enumerate(rows)]
    job = text_and_vector_job(corpus, tmp_path / "out", "joined", train={"target": "label"})
    job["corpus"]["keep"] = ["label"]
    table = {"path": str(write_lines(tmp_path / "captions.jsonl", captions))}
    job["inputs"]["caption"] = job["inputs"]["text"] | {"column": "caption", "corpus": table}
    job["alignment"] = {"method": "pca", "dim": 3}
    return job


@pytest.mark.parametrize("key", ["{:03d}", "{} ", "row-{}"])
def test_a_table_of_strangers_is_refused_with_a_key_of_each(tmp_path, monkeypatch, key):
    in_this_process(monkeypatch)
    job = job_of(tmp_path, lambda number: key.format(number + 100))
    for _ in range(2):
        with pytest.raises(RunError) as caught:
            run_job(job)
        message = str(caught.value)
        assert message.startswith("inputs.caption.corpus: no row of this table has a key of the corpus")
        assert repr(key.format(100)) in message
        assert "'0'" in message


def test_a_few_keys_in_common_are_enough(tmp_path, monkeypatch):
    in_this_process(monkeypatch)
    report = run_job(job_of(tmp_path, lambda number: number if number < 30 else f"x{number}"))
    assert report["rows"]["written"] == ROWS + 10
    assert report["speed"]["join"]["matches"]["caption"] == {"both": 30, "table_only": 10}
