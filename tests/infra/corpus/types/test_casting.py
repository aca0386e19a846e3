from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus.types import casting
from barycenter.infra.corpus.types.casting import cast_column
from tests.infra.corpus.helpers import opened, read, refusal


def invalid(values: list[bytes]) -> pa.Array:
    return pa.Array.from_buffers(pa.string(), len(values), pa.array(values, pa.binary()).buffers())


def test_invalid_text_costs_its_own_row_alone(tmp_path: Path) -> None:
    column = invalid([b"a", b"\xff", b"c"])
    pq.write_table(pa.table({"id": column, "text": column, "list": pa.array([["a"]] * 3)}), tmp_path / "a.parquet")
    values = read(opened(tmp_path / "a.parquet", key="id"), ["text", "list"])
    assert values["text"] == values[""] == ["a", None, "c"]
    assert values["list"] == [["a"]] * 3
    assert values["__bad__"] == [None] * 3
    assert values["__misfits__"] == [None, '{"text": "not UTF-8 text", "id": "not UTF-8 text"}', None]


@pytest.mark.parametrize("kind", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_every_form_of_text_is_text(kind: pa.DataType) -> None:
    array = pa.array(["a", None, "b" * 20], kind)
    for column in (array, pa.StructArray.from_arrays([array], ["s"]).slice(1)):
        want = casting.logical_type(column.type)
        found, wrong = cast_column(pa.chunked_array([column]), want)
        assert (found.to_pylist(), wrong) == (column.to_pylist(), {})


def test_runs_are_values() -> None:
    runs = pa.RunEndEncodedArray.from_arrays([2, 3], ["x", "y"])
    assert cast_column(pa.chunked_array([runs]), pa.string())[0].to_pylist() == ["x", "x", "y"]


def test_numbers_that_do_not_fit_the_common_type_are_recorded(tmp_path: Path) -> None:
    pq.write_table(pa.table({"n": pa.array([2**53 + 1, 2])}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"n": pa.array([0.5])}), tmp_path / "b.parquet")
    values = read(opened(tmp_path), ["n"])
    assert values["n"] == [None, 2.0, 0.5]
    assert "n" in values["__misfits__"][0]


@pytest.mark.parametrize("kind", [pa.decimal64(15, 4), pa.decimal128(38, 4), pa.decimal256(60, 4)])
def test_a_decimal_is_the_nearest_fraction_or_does_not_fit(kind: pa.DataType) -> None:
    values = [Decimal("3937637243.7805"), None, Decimal("-0.0100")]
    found, wrong = cast_column(pa.chunked_array([pa.array(values, kind)]), pa.float64())
    assert (found.to_pylist(), wrong) == ([3937637243.7805, None, -0.01], {})
    many = pa.array([Decimal("12345678901.2345"), Decimal("12345678901234567890.1234")], pa.decimal128(38, 4))
    found, wrong = cast_column(pa.chunked_array([many]), pa.float64())
    assert (found.to_pylist(), list(wrong)) == ([12345678901.2345, None], [1])


UUIDS = pa.array([b"0" * 16, b"1" * 16, b"\xff" * 16], pa.uuid())
OF_UUIDS = {
    "list": pa.ListArray.from_arrays(pa.array([0, 1, 1, 3, 3]), UUIDS, mask=pa.array([False, True, False, False])),
    "large_list": pa.LargeListArray.from_arrays(pa.array([0, 1, 3]), UUIDS),
    "list_view": pa.ListViewArray.from_arrays([0, 1, 0], [1, 2, 0], UUIDS, mask=pa.array([False, False, True])),
    "fixed_list": pa.FixedSizeListArray.from_arrays(pa.concat_arrays([UUIDS, UUIDS]), 2),
    "map": pa.MapArray.from_arrays(pa.array([0, 1, 3], pa.int32()), UUIDS, pa.array([1, 2, 3])),
    "list<struct>": pa.ListArray.from_arrays(pa.array([0, 1, 3]), pa.StructArray.from_arrays([UUIDS], ["u"])),
}


@pytest.mark.parametrize("array", OF_UUIDS.values(), ids=OF_UUIDS)
def test_uuids_inside_lists_and_maps_are_text(array: pa.Array) -> None:
    def texts(value: object) -> object:
        if isinstance(value, list | tuple):
            return [texts(part) for part in value]
        return {"u": str(value["u"])} if isinstance(value, dict) else str(value) if hasattr(value, "hex") else value

    for part in (array, array.slice(1)):
        found, wrong = cast_column(pa.chunked_array([part]), casting.logical_type(part.type))
        found.validate(full=True)
        assert (texts(found.to_pylist()), wrong) == (texts(part.to_pylist()), {})


def test_lists_as_views_are_lists() -> None:
    values = [["a"], None, ["b", None], []]
    for kind in (pa.list_view(pa.string_view()), pa.large_list_view(pa.large_string())):
        found, wrong = cast_column(pa.chunked_array([pa.array(values, kind)]), pa.list_(pa.string()))
        assert (found.to_pylist(), wrong) == (values, {})


def test_digits_inside_lists_are_kept_or_recorded() -> None:
    column = pa.chunked_array([pa.array([[1, None], [2**53 + 1], None])])
    found, wrong = cast_column(column, pa.list_(pa.float64()))
    assert (found.to_pylist(), list(wrong)) == ([[1.0, None], None, None], [1])


def test_many_bytes_are_cast_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(casting, "_MAX_CAST_BYTES", 100)
    values = [bytes([row]) * 30 for row in range(20)]
    found, wrong = cast_column(pa.chunked_array([pa.array(values, pa.large_binary())]), pa.binary())
    assert (found.to_pylist(), wrong) == (values, {})
    assert found.num_chunks > 3


def test_structs_beside_dotted_columns(tmp_path: Path) -> None:
    table = pa.table({"a": [{"b": 1, "c": 2}], "a.b": ["x"]})
    pq.write_table(table, tmp_path / "a.parquet")
    for names in (["a"], ["a.b"], ["a.b", "a"]):
        values = read(opened(tmp_path / "a.parquet"), names)
        assert {name: values[name] for name in names} == {name: table.column(name).to_pylist() for name in names}


def test_damage_is_named_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"n": list(range(1000))}), path, write_page_checksum=True, compression="none")
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with pytest.raises(RunError, match=r"a.parquet is damaged: rows 0 to 1000 cannot be read \(.*(CRC|checksum)"):
        read(opened(path), ["n"])
    path.write_bytes(b"PAR1" + b"x" * 100 + b"PAR1")
    assert "a.parquet is not a whole Parquet file (" in refusal(path)


def test_short_columns_are_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"n": list(range(10))}), tmp_path / "a.parquet")
    corpus = opened(tmp_path / "a.parquet")
    whole = pq.ParquetFile.iter_batches
    monkeypatch.setattr(
        pq.ParquetFile, "iter_batches", lambda *args, **options: (b.slice(0, 4) for b in whole(*args, **options))
    )
    with pytest.raises(RunError, match="is damaged: its columns hold 4 of the 10 rows"):
        corpus.read(corpus.shards(4096)[0], ["n"])
