from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.errors import JobError
from tests.infra.corpus.helpers import opened, read, refusal


def table(rows: int, start: int = 0) -> pa.Table:
    numbers = np.arange(start, start + rows)
    vectors = np.repeat(numbers[:, None], 3, axis=1).astype(np.float32)
    return pa.table(
        {
            "id": pa.array([f"k{number}" for number in numbers]),
            "n": pa.array(numbers),
            "v": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), 3),
            "image": pa.array([{"bytes": b"\x89PNG", "path": None}] * rows),
        }
    )


@pytest.mark.parametrize("rows", [3, 10, 64, 4096])
@pytest.mark.parametrize("order", [1, -1, 2])
def test_rows_come_in_any_order_of_shards_whatever_the_row_groups(tmp_path: Path, rows: int, order: int) -> None:
    pq.write_table(table(100), tmp_path / "a.parquet", row_group_size=33)
    corpus = opened(tmp_path / "a.parquet", key="id")
    for shard in corpus.shards(rows)[::order]:
        part = corpus.read(shard, ["v", "n", "image"])
        assert part.column_names == ["v", "n", "image", "__keys__", "__bad__", "__misfits__"]
        assert part.column("n").to_pylist() == list(range(shard.start, shard.stop))
        assert part.column("v").to_pylist() == [[n] * 3 for n in range(shard.start, shard.stop)]
        assert part.column("image")[0].as_py()["bytes"] == b"\x89PNG"


def test_vectors_are_numpy_able(tmp_path: Path) -> None:
    pq.write_table(table(10), tmp_path / "a.parquet")
    corpus = opened(tmp_path / "a.parquet")
    column = corpus.read(corpus.shards(4)[1], ["v"]).column("v").combine_chunks()
    assert column.flatten().to_numpy().reshape(-1, 3).tolist() == [[n] * 3 for n in range(4, 8)]


def test_files_are_read_in_the_order_of_their_names_with_one_schema(tmp_path: Path) -> None:
    pq.write_table(table(4), tmp_path / "a.parquet")
    second = pa.table({"n": pa.array([4, 5], pa.int8()), "id": pa.array(["k4", "k5"]).dictionary_encode()})
    pq.write_table(second, tmp_path / "b.parquet")
    corpus = opened(tmp_path, key="id")
    values = read(corpus, ["n", "v"], 3)
    assert values["n"] == [0, 1, 2, 3, 4, 5]
    assert values["v"][3:] == [[3.0] * 3, None, None]
    assert values[""] == [f"k{number}" for number in range(6)]
    assert corpus.columns["n"] == pa.int64()
    kinds = {corpus.read(shard, ["id", "n", "v"]).schema for shard in corpus.shards(3)}
    assert len(kinds) == 1


def test_folders_named_column_value_add_text_columns(tmp_path: Path) -> None:
    for lang in ("de", "a%2Fb", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / f"lang={lang}" / "year=2024"
        folder.mkdir(parents=True)
        pq.write_table(table(2), folder / "part-0.parquet")
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "_temporary").mkdir()
    pq.write_table(table(2), tmp_path / "_temporary/part-9.parquet")
    corpus = opened(tmp_path)
    assert corpus.columns["lang"] == corpus.columns["year"] == pa.string()
    values = read(corpus, ["lang", "year"])
    assert values["lang"] == [None, None, "a/b", "a/b", "de", "de"]
    assert set(values["year"]) == {"2024"}
    assert values[""][0] == "lang=__HIVE_DEFAULT_PARTITION__/year=2024/part-0.parquet#0"


def test_a_column_of_two_types_is_an_error_where_it_is_needed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "x": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"id": [2], "x": ["one"]}), tmp_path / "b.parquet")
    corpus = opened(tmp_path)
    corpus.check_columns({"corpus.key": "id"})
    with pytest.raises(JobError) as caught:
        corpus.check_columns({"corpus.keep": ["id", "x"]})
    assert str(caught.value) == (
        "corpus.keep: column 'x' is int64 in a.parquet and string in b.parquet; give it one type"
    )
    assert read(corpus, ["id"])["id"] == [1, 2]


def test_absent_columns_only_still_give_all_rows(tmp_path: Path) -> None:
    pq.write_table(table(5), tmp_path / "a.parquet")
    assert read(opened(tmp_path / "a.parquet"), ["nothing"], 2)["nothing"] == [None] * 5


def test_damaged_files_are_named(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        pq.write_table(table(5), tmp_path / f"{name}.parquet")
    whole = (tmp_path / "b.parquet").read_bytes()
    (tmp_path / "b.parquet").write_bytes(whole[:-20])
    (tmp_path / "c.parquet").write_bytes(b"")
    message = refusal(tmp_path)
    assert message.startswith("corpus.path: b.parquet is not a whole Parquet file (")
    assert message.endswith("(and 1 more such files)")


def test_a_name_that_two_columns_have_is_named(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array([1]), pa.array([2]), pa.array([3])], names=["a", "twice", "twice"])
    pq.write_table(table, tmp_path / "a.parquet")
    assert "has two columns named 'twice'" in refusal(tmp_path)
