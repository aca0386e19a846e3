import io

from rich.console import Console

from barycenter.tasks.report.comparison.compare import compare
from barycenter.tasks.report.comparison.settings import (
    changed_alignment,
    changed_data,
    changed_encoders,
    changed_settings,
)
from barycenter.tasks.report.comparison.terminal import comparison_table


def source(relative, stamp="1"):
    return {"relative": relative, "size": 10, "stamp": stamp, "rows": 3}


def test_switches_are_shown_as_in_a_job_file(outputs, keys, vectors):
    before, after = outputs.commit(keys, vectors), outputs.commit(keys, vectors + 1)
    before.manifest.settings["limits"] = {"strict": True}
    after.manifest.settings["limits"] = {"strict": False}
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(comparison_table(compare(before, after)))
    lines = [line.split() for line in console.export_text().splitlines() if "limits.strict" in line]
    assert ["limits.strict", "true", "false"] in lines


def test_settings_that_differ_are_named_by_their_path(outputs, keys, vectors):
    job = {"alignment": {"dim": 4, "method": "cca"}, "corpus": {"keep": ["label"]}, "train": None}
    before = outputs.commit(keys, vectors, settings=job)
    other = {
        "alignment": {"dim": 8, "method": "cca"},
        "corpus": {"keep": ["label", "base"]},
        "train": {"target": "label"},
    }
    after = outputs.commit(keys, vectors + 1, settings=other)
    assert changed_settings(before, after) == {
        "alignment.dim": [4, 8],
        "corpus.keep": [["label"], ["label", "base"]],
        "train.target": [None, "label"],
    }
    assert changed_settings(before, before) == {}
    unknown = outputs.commit(keys, vectors + 2, settings={})
    assert changed_settings(before, unknown) is None


def test_rows_sources_and_bad_inputs_of_both(outputs, keys, vectors):
    before = outputs.commit(keys, vectors, sources=(source("a.jsonl"), source("b.jsonl")))
    rows = {"read": 80, "written": 60, "rejected": 20, "missing": {"image": 4}, "bad": {"truncated": 4}}
    after = outputs.commit(keys, vectors + 1, rows=rows, sources=(source("a.jsonl", "2"), source("c.jsonl")))
    found = changed_data(before, after)
    assert found["rows"] == {"read": [61, 80], "written": [60, 60], "rejected": [1, 20]}
    assert found["missing"] == {"text": [2, 0], "image": [0, 4]}
    assert found["bad"] == {"null": [3, 0], "truncated": [0, 4]}
    assert found["sources"] == {"added": ["c.jsonl"], "removed": ["b.jsonl"], "changed": ["a.jsonl"]}


def test_encoders_and_alignments_that_differ(outputs, keys, vectors):
    before = outputs.commit(keys, vectors)
    assert changed_encoders(before, before) == changed_alignment(before, before) == {}
    inputs = {
        "text": {"kind": "text", "encoder": "f", "encoder_id": "f1", "embedding_id": "f1", "dim": 6},
        "vec": {"kind": "vector", "encoder": None, "encoder_id": "g1", "embedding_id": "g1", "dim": 5},
    }
    after = outputs.commit(keys, vectors + 1, inputs=inputs, alignment="a2")
    assert changed_encoders(before, after) == {
        "text": ["e (4), e1", "f (6), f1"],
        "vec": [None, "ready vectors (5), g1"],
    }
    assert changed_alignment(before, after) == {"id": ["a1", "a2"]}
