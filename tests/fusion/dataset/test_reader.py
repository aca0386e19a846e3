"""Which files, row groups and rows are read: by place, version, filter and partition, whatever Arrow makes of them."""

import json
import os
import pickle

import fsspec
import pyarrow as pa
import pyarrow.fs as pafs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barycenter.fusion.dataset import FusedDataset, FusedRows
from barycenter.fusion.dataset.reader import FeatureReader
from barycenter.fusion.dataset.row_ranges import RowRange
from barycenter.fusion.errors import RunError
from tests.fusion.features_on_disk import write_features

FILES = [25, 13, 7, 31]


@pytest.fixture
def out(tmp_path):
    write_features(tmp_path, FILES)
    return tmp_path


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The same files for every example."""
    folder = tmp_path_factory.mktemp("reader")
    write_features(folder, FILES)
    return folder


def numbers(dataset):
    return [int(key[1:]) for batch in dataset for key in batch["key"]]


def cut(batches, lengths):
    """The same rows in batches of other lengths, those across row groups included."""
    table, start = pa.Table.from_batches(batches), 0
    while start < len(table):
        length = lengths[start % len(lengths)]
        yield table.slice(start, length).combine_chunks().to_batches()[0]
        start += length


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 8), st.integers(0, 10), st.integers(0, 10)), min_size=1, max_size=6),
    st.lists(st.integers(1, 25), min_size=1, max_size=5),
)
def test_a_scan_gives_the_rows_asked_for_however_they_are_cut(shared, asked, lengths):
    reader = FeatureReader(shared, None, None, None)
    whole = reader._batches
    reader._batches = lambda *given: cut(list(whole(*given)), lengths)
    ends = reader.row_group_rows.cumsum()
    pieces, expected = [], []
    for group, *bounds in asked:
        rows = int(reader.row_group_rows[group])
        start, stop = sorted(min(bound, rows) for bound in bounds)
        pieces.append(RowRange(group, start, stop))
        expected += range(int(ends[group]) - rows + start, int(ends[group]) - rows + stop)
    found = reader.scan(iter(pieces), ["count"], False)
    assert [row for batch in found for row in batch.column("count").to_pylist()] == expected


@pytest.mark.parametrize("missing", [0, 3])
def test_a_file_that_is_not_there_is_named(out, missing):
    path = sorted((out / "features").rglob("*.parquet"))[missing]
    path.unlink()
    with pytest.raises(RunError, match=f"^{path}: a file of version 1 is not there"):
        FusedDataset(out)


def test_a_file_that_goes_while_it_is_read_is_named(tmp_path):
    write_features(tmp_path, [12])
    dataset = FusedDataset(tmp_path)
    [path] = tmp_path.rglob("*.parquet")
    path.unlink()
    with pytest.raises(RunError) as caught:
        list(dataset)
    assert f"{path}" in str(caught.value).partition(": a file of version 1")[0]
    assert "Detail" not in str(caught.value)


@pytest.mark.parametrize("given", [None, [("count", ">", 3)]])
def test_a_version_without_files_has_no_rows(tmp_path, given):
    manifest = write_features(tmp_path, [])
    assert manifest["files"] == []
    dataset = FusedDataset(tmp_path, filter=given)
    assert (dataset.rows, len(dataset), list(dataset), len(FusedRows(tmp_path, filter=given))) == (0, 0, [], 0)
    assert list(FusedDataset(tmp_path, filter=given, even="pad", rank=1, world_size=2)) == []


def test_a_folder_may_end_with_any_letters_and_a_slash(tmp_path):
    folder = tmp_path / "box"
    write_features(folder, [5])
    local = fsspec.filesystem("file")
    assert FusedDataset(f"{folder}/").rows == FusedDataset(f"file://{folder}/").rows == 5
    assert FusedDataset(f"{folder}/", filesystem=local).rows == FusedDataset(f"{folder}", filesystem=local).rows == 5
    assert FusedDataset(f"{folder}/").files == FusedDataset(f"file://{folder}/").files


def test_the_scheme_is_no_part_of_the_path_on_a_filesystem_that_is_given(tmp_path):
    folder = tmp_path / "http:" / "site"
    write_features(folder, [5])
    local = pafs.LocalFileSystem()
    assert FusedDataset(f"file://{folder}", filesystem=local).rows == 5
    assert FusedDataset(f"file://{tmp_path}/http://site", filesystem=local).rows == 5


def test_what_is_no_manifest_is_named(out):
    (out / "manifest.json").write_text("{}")
    with pytest.raises(RunError, match=f"^{out}/manifest.json: not a manifest of fused features"):
        FusedDataset(out)


def test_of_one_version_committed_twice_the_later_is_read(tmp_path):
    write_features(tmp_path, [5], number=9)
    write_features(tmp_path, [5], number=10)
    assert FusedDataset(tmp_path, version="v1").manifest.number == 10


def test_a_version_is_sought_where_no_manifests_are(tmp_path):
    with pytest.raises(RunError, match="no version v1"):
        FusedDataset(tmp_path, version="v1")


def test_a_partition_of_two_columns_is_read_and_asked_for_by_both(tmp_path):
    manifest = write_features(tmp_path, [4, 5, 6])
    values = [(2024, "a"), (2024, "b"), (2025, "a")]
    for file, (year, shop) in zip(manifest["files"], values, strict=True):
        file["partition"] = {"year": year, "shop": shop}
    manifest["partition_types"] = {"year": "int64", "shop": "string"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    [batch] = FusedDataset(tmp_path)
    assert batch["year"].tolist() == [2024] * 9 + [2025] * 6
    assert batch["shop"] == ["a"] * 4 + ["b"] * 5 + ["a"] * 6
    (tmp_path / manifest["files"][0]["path"]).rename(tmp_path / "away")
    manifest["files"] = manifest["files"][::-1]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert FusedDataset(tmp_path, filter=[("year", "==", 2025)]).rows == 6
    assert FusedDataset(tmp_path, filter=[("shop", "==", "b")]).rows == 5


def test_connections_are_made_anew_once_in_a_forked_process(out, monkeypatch):
    reader = FeatureReader(out, None, None, None)
    here = reader._current_filesystem()
    assert reader._current_filesystem() is here
    own = os.getpid()
    monkeypatch.setattr("barycenter.fusion.dataset.reader.os.getpid", lambda: own + 1)
    there = reader._current_filesystem()
    assert there is not here
    assert reader._current_filesystem() is there
    assert reader.arrow().count_rows() == 76


def test_what_was_opened_or_read_is_not_pickled(out):
    rows = FusedRows(out)
    before = pickle.dumps(rows)
    rows.read()
    assert b"Fragment" not in before
    assert len(pickle.dumps(rows)) == len(before)
