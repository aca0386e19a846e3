"""Which row of a key counts: the first, the last, or none."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus import Shard
from barycenter.tasks.data import duplicates
from barycenter.tasks.data.duplicates import repeated_keys
from barycenter.tasks.run.input_values import hash_keys
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines
from tests.tasks.identity_runs import in_this_process, run_job


class Keys:
    """A reader of given keys."""

    def __init__(self, parts):
        self.parts = parts

    def key_hashes(self, shard):
        return np.array([2**63 + key for key in self.parts[shard.index]], np.uint64)

    def keys(self, shard):
        return [f"k{key}" for key in self.parts[shard.index]]


def shards_of(parts):
    return [Shard(f"s{i}", i, f"{i}.jsonl", "u", 10, 10 + len(part)) for i, part in enumerate(parts)]


PARTS = st.lists(st.lists(st.integers(0, 12), max_size=8), min_size=1, max_size=6)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=PARTS, in_memory=st.sampled_from([2, 1000]))
@pytest.mark.parametrize("which", ["first", "last"])
def test_the_rows_left_out_are_those_that_a_dictionary_does_not_keep(which, parts, in_memory, monkeypatch):
    monkeypatch.setattr(duplicates, "_ROWS_IN_MEMORY", in_memory)
    every = [(key, (f"s{number}", row)) for number, part in enumerate(parts) for row, key in enumerate(part)]
    counted = set(dict(every if which == "last" else reversed(every)).values())
    expected: dict[str, list[int]] = {}
    for _, (shard, row) in every:
        if (shard, row) not in counted:
            expected.setdefault(shard, []).append(row)
    found = repeated_keys(Keys(parts), shards_of(parts), which)
    assert found == {shard: tuple(rows) for shard, rows in expected.items()}


@settings(deadline=None)
@given(parts=PARTS)
def test_fail_stops_where_any_key_comes_again_and_only_there(parts):
    every = [key for part in parts for key in part]
    if len(set(every)) == len(every):
        assert repeated_keys(Keys(parts), shards_of(parts), "fail") == {}
        return
    again = next(key for number, key in enumerate(every) if key in every[:number])
    with pytest.raises(RunError, match=f"^{len(every) - len(set(every))} row.*such as 'k{again}' "):
        repeated_keys(Keys(parts), shards_of(parts), "fail")


def test_fail_names_the_keys_and_their_rows():
    parts = [[1, 2, 3], [4, 1, 4], [5, 6, 7, 5, 6, 7, 1, 1, 1]]
    with pytest.raises(RunError) as raised:
        repeated_keys(Keys(parts), shards_of(parts), "fail")
    assert str(raised.value) == (
        "8 rows with the key of an earlier row, such as 'k1' (0.jsonl#10, 1.jsonl#11, 2.jsonl#16, 2.jsonl#17, "
        "...); 'k4' (1.jsonl#10, 1.jsonl#12); 'k5' (2.jsonl#10, 2.jsonl#13); corpus.on_duplicate is fail: give each "
        "row a key of its own, or set it to first or last; nothing was committed"
    )


def test_rows_without_a_key_repeat_none():
    parts = [hash_keys(["a", None, "b", None]), hash_keys(["c", None, "b", None])]

    class Nameless:
        def key_hashes(self, shard):
            return parts[shard.index]

    assert repeated_keys(Nameless(), shards_of(parts)) == {"s1": (2,)}


@pytest.fixture
def nightly(tmp_path, monkeypatch):
    """A job over a folder whose second file corrects rows of the first."""
    in_this_process(monkeypatch)
    rows = text_and_vector_rows(60)
    write_lines(tmp_path / "rows" / "day-1.jsonl", rows)

    def data(which):
        job = text_and_vector_job(tmp_path / "rows", tmp_path / "out", "nightly", ray={"address": "none"})
        job["corpus"]["on_duplicate"] = which
        return job | {"alignment": {"method": "cca", "dim": 3}}

    def correct():
        changed = [row | {"label": "corrected", "vec": [9.0] * 6} for row in (rows[3], rows[41])]
        write_lines(tmp_path / "rows" / "day-2.jsonl", [*changed, *text_and_vector_rows(2, first=60)])

    return data, correct


def features(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    tables = [pq.read_table(folder / file["path"], partitioning=None).to_pylist() for file in manifest["files"]]
    return [row for table in tables for row in table], manifest


def test_a_later_row_corrects_an_earlier_one_and_stands_at_its_own_place(nightly, tmp_path):
    data, correct = nightly
    run_job(data("last"))
    before, _ = features(tmp_path / "out")
    correct()
    run_job(data("last"))
    after, manifest = features(tmp_path / "out")
    expected = [row["id"] for row in before if row["id"] not in ("r0003", "r0041")]
    assert [row["id"] for row in after] == [*expected, "r0003", "r0041", "r0060", "r0061"]
    assert [row["label"] for row in after[-4:-2]] == ["corrected"] * 2
    assert {key: manifest["rows"][key] for key in ("read", "written", "rejected")} == {
        "read": 64,
        "written": 62,
        "rejected": 2,
    }
    rejects = [row for path in manifest["rejects"] for row in pq.read_table(tmp_path / "out" / path).to_pylist()]
    assert [(row["key"], row["reason"], row["source"]) for row in rejects] == [
        ("r0003", "duplicate_key", "day-1.jsonl#3"),
        ("r0041", "duplicate_key", "day-1.jsonl#41"),
    ]
    unchanged = {row["id"]: row["fused"] for row in before}
    fused = [(row["fused"], unchanged[row["id"]]) for row in after[:-4]]
    # BLAS may round a product of 58 rows otherwise than one of 60.
    np.testing.assert_allclose(*map(np.array, zip(*fused, strict=True)), rtol=1e-6, atol=1e-6)


def test_rows_that_do_not_count_are_no_part_of_the_fit(nightly, tmp_path):
    data, correct = nightly
    correct()
    path = tmp_path / "rows" / "day-1.jsonl"
    whole = path.read_text().splitlines(keepends=True)
    found = {}
    for which in ("last", "first"):
        job = data(which) | {"output": {"path": str(tmp_path / which)}}
        found[which] = run_job(job)["alignment"], features(tmp_path / which)[0]
    path.write_text("".join(line for number, line in enumerate(whole) if number not in (3, 41)))
    clean = run_job(data("last"))["alignment"], features(tmp_path / "out")[0]
    assert [row["id"] for row in found["last"][1]] == [row["id"] for row in clean[1]]
    fused = [np.array([row["fused"] for row in rows]) for rows in (found["last"][1], clean[1])]
    np.testing.assert_allclose(*fused, rtol=1e-4, atol=1e-5)
    assert found["last"][0]["alignment_id"] != found["first"][0]["alignment_id"]


def test_the_first_counts_by_default_and_the_key_makes_another_version(nightly, tmp_path):
    data, correct = nightly
    correct()
    first = run_job(data("first"))
    rows, _ = features(tmp_path / "out")
    assert "corrected" not in {row["label"] for row in rows}
    last = run_job(data("last"))
    assert last["version"] != first["version"]
    assert last["alignment"]["alignment_id"] == first["alignment"]["alignment_id"]
    assert "corrected" in {row["label"] for row in features(tmp_path / "out")[0]}


def test_fail_commits_nothing(nightly, tmp_path):
    data, correct = nightly
    run_job(data("fail"))
    before = (tmp_path / "out" / "manifest.json").read_bytes()
    correct()
    with pytest.raises(RunError, match=r"'r0003' \(day-1.jsonl#3, day-2.jsonl#0\); 'r0041'"):
        run_job(data("fail"))
    assert (tmp_path / "out" / "manifest.json").read_bytes() == before
    assert [path.name for path in (tmp_path / "out" / "manifests").iterdir()] == ["1.json"]
