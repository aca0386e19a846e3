import numpy as np
import pyarrow as pa
import pytest

from tasks.fuse import bad_inputs, rows_written
from tasks.rows import Rows

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
    return Rows(keys, arrays, status, pa.table({"n": range(len(keys))}), keys, np.zeros(len(keys), dtype=bool))


FIVE = rows(["a", "b", "c", None, "a"], text=[1, NAN, NAN, 1, 1], image=[1, 1, NAN, 1, 1])


@pytest.mark.parametrize(
    ("on_bad_input", "expected"), [("keep", [True, True, False, False, False]), ("drop", [True] + 4 * [False])]
)
def test_rows_written(on_bad_input, expected):
    assert rows_written(FIVE, (4,), on_bad_input).tolist() == expected


def test_every_bad_input_is_a_line():
    lines = [(row["key"], row["input"], row["reason"]) for row in bad_inputs(FIVE, (4,)).to_pylist()]
    assert lines == [
        ("b", "text", "null"),
        ("c", "text", "null"),
        ("c", "image", "null"),
        (None, None, "null_key"),
        ("a", None, "duplicate_key"),
    ]


def test_good_rows_give_no_line():
    good = rows(["a", "b"], text=[1, 2], image=[3, 4])
    table = bad_inputs(good, ())
    assert table.num_rows == 0
    assert table.column_names == ["key", "input", "reason", "detail", "source"]
    assert rows_written(good, (), "drop").all()
