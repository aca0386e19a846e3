import pickle
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest

from barycenter.fusion.dataset.schema import feature_schema
from barycenter.infra.corpus import Shard
from barycenter.tasks.data.duplicates import repeated_keys
from barycenter.tasks.data.rows import Rows, concatenate
from barycenter.tasks.fuse.worker import FuseSetting, bad_inputs, rows_written
from barycenter.tasks.run.input_values import REJECT

NAN = np.nan


def rows(keys, **views):
    arrays = {name: np.array(view, dtype=np.float32)[:, None] for name, view in views.items()}
    status = {
        name: pa.table(
            {
                "key": pa.array(keys, pa.string()),
                "ok": ~np.isnan(view[:, 0]),
                "reason": pa.array(["null" if np.isnan(value) else None for value in view[:, 0]], pa.string()),
                "detail": pa.nulls(len(keys), pa.string()),
                "source": pa.nulls(len(keys), pa.string()),
            }
        )
        for name, view in arrays.items()
    }
    return Rows(arrays, status, pa.table({"n": range(len(keys))}), pa.table({}))


FIVE = rows(["a", "b", "c", None, "a"], text=[1, NAN, NAN, 1, 1], image=[1, 1, NAN, 1, 1])
FIVE = replace(FIVE, left_out=(4,))


def test_a_line_names_file_and_row_even_where_there_is_no_key():
    placed = replace(FIVE, origins=((0, "a.csv", 10), (3, "b.csv", 0)))
    lines = [(row["input"], row["reason"], row["source"]) for row in bad_inputs(placed).to_pylist()]
    assert lines == [
        ("text", "null", "a.csv#11"),
        ("text", "null", "a.csv#12"),
        ("image", "null", "a.csv#12"),
        (None, "null_key", "b.csv#0"),
        (None, "duplicate_key", "b.csv#1"),
    ]


@pytest.mark.parametrize(
    ("on_bad_input", "expected"), [("keep", [True, True, False, False, False]), ("drop", [True] + 4 * [False])]
)
def test_rows_written(on_bad_input, expected):
    assert rows_written(FIVE, on_bad_input).tolist() == expected


def test_every_bad_input_is_a_line():
    lines = [(row["key"], row["input"], row["reason"]) for row in bad_inputs(FIVE).to_pylist()]
    assert lines == [
        ("b", "text", "null"),
        ("c", "text", "null"),
        ("c", "image", "null"),
        (None, None, "null_key"),
        ("a", None, "duplicate_key"),
    ]


def test_good_rows_give_no_line():
    good = rows(["a", "b"], text=[1, 2], image=[3, 4])
    table = bad_inputs(good)
    assert table.num_rows == 0
    assert table.column_names == ["key", "input", "reason", "detail", "source"]
    assert rows_written(good, "drop").all()


def test_a_bad_one_of_several_values_is_a_line_and_the_row_is_written():
    several = rows(["a", "b"], image=[1, 2])
    rejects = [None, [{"reason": "truncated", "detail": "value 2: cut", "source": "x.png"}]]
    status = several.status["image"].append_column("rejects", pa.array(rejects, pa.list_(REJECT)))
    several = Rows(several.views, {"image": status}, several.kept, several.split_columns)
    assert bad_inputs(several).to_pylist() == [
        {"key": "b", "input": "image", "reason": "truncated", "detail": "value 2: cut", "source": "x.png"}
    ]
    assert rows_written(several, "drop").all()


def test_a_value_that_does_not_fit_is_a_line_and_the_row_is_written():
    misfits = {1: {"score": "'many' is not a number"}}
    one = rows(["a", "b"], text=[1, 2])
    one = Rows(one.views, one.status, one.kept, one.split_columns, misfits=misfits, origins=((0, "a.jsonl", 5),))
    before = rows(["x", "y", "z"], text=[1, 2, 3])
    both = concatenate([replace(before, origins=((0, "0.jsonl", 0),)), one])
    assert bad_inputs(both).to_pylist() == [
        {
            "key": "b",
            "input": "score",
            "reason": "wrong_type",
            "detail": "'many' is not a number",
            "source": "a.jsonl#6",
        }
    ]
    assert rows_written(both, "drop").all()


class Hashes:
    """A reader of given key hashes."""

    def __init__(self, parts):
        self.parts = parts

    def key_hashes(self, shard):
        return np.array(self.parts[shard.index], np.uint64)


def test_repeated_keys_are_found_across_shards(monkeypatch):
    parts = [[5, 7, 5], [8], [7, 9, 8, 9]]
    shards = [Shard(str(i), i, "s", "u", 0, len(part)) for i, part in enumerate(parts)]
    monkeypatch.setattr("barycenter.tasks.data.duplicates._ROWS_IN_MEMORY", 3)
    assert repeated_keys(Hashes(parts), shards) == {"0": (2,), "2": (0, 2, 3)}
    assert repeated_keys(Hashes([[1], [2], [3]]), shards[:1]) == {}


def setting_of(schema, keep_aligned=True):
    nothing = cast(Any, None)
    return FuseSetting(
        reader=nothing, storage=nothing, key="id", alignment_id="a", average="mean", weights=None, version="v",
        serialized_schema=schema.serialize().to_pybytes(), partition_by=(), keep_aligned=keep_aligned,
        on_bad_input="keep",
    )  # fmt: skip


def test_the_schema_of_a_setting_survives_pickle():
    schema = feature_schema("id", [pa.field("label", pa.string())], 8, "float32", ["text"], True, {"a": "b"})
    there = pickle.loads(pickle.dumps(setting_of(schema))).schema  # noqa: S301 - our own bytes
    assert there.equals(schema, check_metadata=True)
    assert not there.field("fused").type.value_field.nullable
