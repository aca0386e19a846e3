from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from barycenter.fusion.encoders.input_validation import check_input_values


@pytest.mark.parametrize(
    ("kind", "values", "error", "message"),
    [
        ("text", "a crab", TypeError, "expected one value a row in a list, got str"),
        ("image", b"png", TypeError, "expected one value a row in a list, got bytes"),
        ("image", Path("a.png"), TypeError, "got PosixPath"),
        ("text", {"a": 1}, TypeError, "got dict"),
        ("text", 3, TypeError, "got int"),
        ("text", iter(["a"]), TypeError, "got list_iterator"),
        ("text", ["a", 3], TypeError, "row 1: expected a text, got int 3"),
        ("text", ["a", b"b"], TypeError, "row 1: expected a text, got bytes"),
        ("text", ["a", ["b", 3]], TypeError, "row 1: expected a text, got int 3"),
        ("image", [b"png", 7], TypeError, "row 1: expected a path, encoded bytes or a PIL image, got int 7"),
        ("vector", ["a crab"], TypeError, "row 0: expected a list of numbers, got str 'a crab'"),
        ("vector", [1.0, 2.0, 3.0], TypeError, "row 0: expected a list of numbers, got float"),
        ("vector", [[1.0, 2.0, 3.0], [1.0, 2.0]], ValueError, "row 1: a vector of 2 numbers, .* made with 3"),
        ("vector", [[1.0, "b", 3.0]], TypeError, "row 0: expected a list of numbers"),
        ("vector", [[1.0, None, 3.0]], TypeError, "row 0: expected a list of numbers"),
        ("vector", [[1.0, np.nan, 3.0]], ValueError, "row 0 is partly NaN or infinite"),
        ("vector", [[1.0, np.inf, 3.0]], ValueError, "row 0 is partly NaN or infinite"),
        ("vector", [[[1.0, 2.0, 3.0], [1.0]]], ValueError, "row 0: a vector of 1 numbers"),
    ],
)
def test_wrong_arguments_are_named(kind, values, error, message):
    with pytest.raises(error, match=f"^mine: .*{message}|^mine: {message}"):
        check_input_values("mine", kind, values, 3)


def test_columns_of_every_library_are_taken():
    for column in (["a", None], pd.Series(["a", pd.NA], dtype="string"), pa.array(["a", None]), np.array(["a", None])):
        assert check_input_values("text", "text", column, 0) == ["a", None]
    matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
    for column in (matrix, matrix.tolist(), torch.from_numpy(matrix), pa.array(matrix.tolist()), list(matrix)):
        assert np.array_equal(np.stack(check_input_values("v", "vector", column, 3)), matrix)


def test_missing_and_several_values():
    assert check_input_values("v", "vector", [None, [np.nan] * 3, float("nan")], 3) == [None, None, None]
    first, second = check_input_values("v", "vector", [[[1, 2, 3], None]], 3)[0]
    assert first.tolist() == [1, 2, 3]
    assert second is None
    assert check_input_values("t", "text", [["a", None], []], 0) == [["a", None], []]
    assert check_input_values("t", "text", [["a", 3]], 0, joined=True) == [["a", 3]]
