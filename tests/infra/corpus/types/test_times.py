import pyarrow as pa
import pytest

from barycenter.infra.corpus.types.casting import cast_column


@pytest.mark.parametrize(
    ("kind", "fine", "beyond"),
    [
        (pa.date32(), [-719162, 2932896], [-719163, 2932897, 2**31 - 1]),
        (pa.date64(), [-62135596800000, 253402214400000], [253402300800000]),
        (pa.timestamp("s"), [-62135596800, 253402300799], [-62135596801, 253402300800]),
        (pa.timestamp("us"), [253402300799999999], [2**63 - 1]),
        (pa.timestamp("ns"), [2**63 - 1, -(2**63) + 1], []),
        (pa.timestamp("s", "Europe/Berlin"), [-62135510400], [-62135596800]),
        (pa.duration("s"), [9223372036854], [9223372036855, 2**62]),
        (pa.duration("ns"), [2**63 - 1], [-(2**63)]),
    ],
)
def test_times_that_no_reader_holds_are_recorded(kind: pa.DataType, fine: list[int], beyond: list[int]) -> None:
    numbers = pa.array([*fine, *beyond, None], pa.int32() if kind == pa.date32() else pa.int64())
    array = numbers.view(kind)
    found, wrong = cast_column(pa.chunked_array([array]), kind)
    assert list(wrong) == list(range(len(fine), len(fine) + len(beyond)))
    assert found.slice(0, len(fine)).equals(pa.chunked_array([array.slice(0, len(fine))]))
    assert found.null_count == len(beyond) + 1
    found.to_pylist()


def test_times_inside_nested_values_are_looked_at() -> None:
    far = pa.array([5, 2**31 - 1, None], pa.int32()).view(pa.date32())
    rows = pa.array([0, 1, 2, 3], pa.int32())
    for array in (
        pa.ListArray.from_arrays(rows, far),
        pa.StructArray.from_arrays([far], ["d"]),
        pa.MapArray.from_arrays(rows, pa.array(["a", "b", "c"]), far),
    ):
        found, wrong = cast_column(pa.chunked_array([array]), array.type)
        assert list(wrong) == [1]
        assert "years 1 to 9999" in wrong[1]
        assert found[0].equals(array[0])
