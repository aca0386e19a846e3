import pyarrow as pa
import pytest

from barycenter.infra.corpus.types.values import infer_column_types, null_as_string, to_arrow


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([1, None, 2], pa.int64()),
        ([1, 2.5], pa.float64()),
        ([True, None], pa.bool_()),
        ([True, 1], pa.string()),
        (["a", 1], pa.string()),
        ([2**70], pa.string()),
        ([{"a": 1}], pa.string()),
        ([[1, 2], [0.5]], pa.list_(pa.float64())),
        ([[], ["a"]], pa.list_(pa.string())),
        ([["a", 1]], pa.list_(pa.string())),
        ([[[1]]], pa.list_(pa.list_(pa.int64()))),
        ([[[[1]]]], pa.string()),
        ([None], pa.string()),
        ([[]], pa.list_(pa.string())),
    ],
)
def test_one_type_for_a_column(values: list[object], kind: pa.DataType) -> None:
    types = infer_column_types([{"x": value} for value in values])
    assert null_as_string(types["x"]) == kind


@pytest.mark.parametrize(
    ("values", "kind", "kept", "wrong"),
    [
        ([1, 1.5, True, "x", None], pa.int64(), [1, None, None, None, None], {1, 2, 3}),
        ([1, 2.5, "x", 2**70], pa.float64(), [1.0, 2.5, None, float(2**70)], {2}),
        (["a", 1, [2, "ä"], True], pa.string(), ["a", "1", '[2, "ä"]', "true"], set()),
        (["a", "\ud800"], pa.string(), ["a", None], {1}),
        ([[1, 2], [1, "x"], 3, [None]], pa.list_(pa.float64()), [[1, 2], None, None, [None]], {1, 2}),
        ([2**70, 1], pa.int64(), [None, 1], {0}),
        ([True, 0], pa.bool_(), [True, None], {1}),
    ],
)
def test_what_does_not_fit_is_null_and_reported(
    values: list[object], kind: pa.DataType, kept: list[object], wrong: set[int]
) -> None:
    array, problems = to_arrow(values, kind)
    assert array.type == kind
    assert array.to_pylist() == kept
    assert set(problems) == wrong


def test_problems_are_in_plain_words() -> None:
    assert to_arrow(["many"], pa.int64())[1] == {0: "'many' is not a whole number"}
    assert to_arrow([3], pa.list_(pa.float64()))[1] == {0: "'3' is not a list of numbers"}
