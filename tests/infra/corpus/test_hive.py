"""Columns that some files of a corpus hold and the folder names of others."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.infra.corpus import open_corpus
from barycenter.infra.corpus.base import KEYS, misfits_by_row
from barycenter.infra.corpus.hive import partition_values
from barycenter.infra.job.models import CorpusJob, LimitsJob


def opened(path: Path, key: str | None = "id"):
    return open_corpus(CorpusJob(path=str(path), key=key), LimitsJob())


def whole(corpus, columns: list[str]) -> pa.Table:
    return pa.concat_tables([corpus.read(shard, columns) for shard in corpus.shards(100)])


def write(path: Path, rows: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_a_folder_gives_the_value_that_its_file_lacks(tmp_path: Path, ending: str) -> None:
    write(tmp_path / f"a.{ending}", [{"id": "a", "year": 2022}])
    write(tmp_path / f"year=2020/b.{ending}", [{"id": "b"}, {"id": "c"}])
    write(tmp_path / f"year=2021/c.{ending}", [{"id": "d", "year": 1999}, {"id": "e", "year": None}])
    write(tmp_path / f"year=__HIVE_DEFAULT_PARTITION__/d.{ending}", [{"id": "f"}])
    corpus = opened(tmp_path)
    assert corpus.columns["year"] == pa.int64()
    assert whole(corpus, ["year"]).column("year").to_pylist() == [2022, 2020, 2020, 1999, 2021, None]


def test_a_folder_that_does_not_fit_the_type_is_a_misfit_of_its_rows(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{"id": "a", "year": 2022}])
    write(tmp_path / "year=unknown/b.parquet", [{"id": "b"}])
    table = whole(opened(tmp_path), ["year"])
    assert table.column("year").to_pylist() == [2022, None]
    assert misfits_by_row(table) == {1: {"year": "the value 'unknown' in the folder name does not fit int64"}}


def test_a_key_in_a_folder_name_names_the_rows_of_its_files(tmp_path: Path) -> None:
    write(tmp_path / "a.parquet", [{"id": "a", "text": "x"}])
    write(tmp_path / "id=b/b.parquet", [{"text": "y"}])
    assert whole(opened(tmp_path), ["text"]).column(KEYS).to_pylist() == ["a", "b"]


def test_where_a_column_stands_belongs_to_how_it_is_read(tmp_path: Path) -> None:
    write(tmp_path / "year=2020/b.parquet", [{"id": "b"}])
    assert opened(tmp_path).describe_columns(["year"])[0][1] == "folders"
    write(tmp_path / "a.parquet", [{"id": "a", "year": "2022"}])
    assert opened(tmp_path).describe_columns(["year"])[0][1] == "column year, else folders"


def test_names_and_values_are_unescaped() -> None:
    assert partition_values("a%20b=c%2Fd/x") == {"a b": "c/d"}
