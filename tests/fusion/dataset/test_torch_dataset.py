import itertools
import json
import pickle
import tempfile
from collections import Counter
from pathlib import Path

import fsspec
import numpy as np
import pyarrow.compute as pc
import pyarrow.fs as pafs
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from barycenter.fusion.dataset import FusedDataset, FusedRows
from barycenter.fusion.dataset.row_ranges import RowGroupSequence, rank_range, worker_range
from barycenter.fusion.errors import RunError
from tests.fusion.features_on_disk import write_features


@pytest.fixture
def out(tmp_path):
    write_features(tmp_path, [25, 13, 7, 31])
    return tmp_path


def keys(batches):
    return [key for batch in batches for key in batch["key"]]


def numbers(batches):
    return [int(key[1:]) for key in keys(batches)]


def rows_of(dataset, **loader):
    return numbers(DataLoader(dataset, batch_size=None, **loader))


def test_a_batch_holds_keys_vectors_masks_and_kept_columns(out):
    batch = next(iter(FusedDataset(out, batch_size=12)))
    assert set(batch) == {"key", "fused", "has", "label", "price", "count"}
    assert batch["key"] == [f"k{i}" for i in range(12)]
    assert batch["fused"].dtype == torch.float32
    torch.testing.assert_close(batch["fused"], torch.arange(12.0)[:, None] + torch.arange(4) / 8)
    assert batch["has"]["text"].tolist() == [i % 2 == 0 for i in range(12)]
    assert batch["label"][:3] == [None, "c1", "c2"]
    assert torch.isnan(batch["price"]).nonzero().ravel().tolist() == [0, 5, 10]
    assert batch["count"].dtype == torch.int64


def test_order_is_that_of_the_files_and_only_the_last_batch_is_short(out):
    dataset = FusedDataset(out, batch_size=9)
    batches = list(dataset)
    assert numbers(batches) == list(range(76))
    assert [len(batch["key"]) for batch in batches] == [9] * 8 + [4]
    assert len(dataset) == 9


def test_a_batch_inside_a_row_group_is_not_copied(out):
    batches = list(FusedDataset(out, columns=["fused"], batch_size=5))
    for first, second in (batches[:2], batches[2:4]):
        assert second["fused"].data_ptr() == first["fused"].data_ptr() + 5 * 4 * 4


def test_no_warning_about_read_only_memory(out, recwarn):
    batch = next(iter(FusedDataset(out, batch_size=12)))
    batch["fused"].add_(1)
    assert not [warning for warning in recwarn if "writable" in str(warning.message)]


def test_columns_are_chosen_and_unknown_ones_named(out):
    assert set(next(iter(FusedDataset(out, columns=["fused", "has"])))) == {"fused", "has"}
    assert list(next(iter(FusedDataset(out, columns=["has_image"])))["has"]) == ["image"]
    with pytest.raises(ValueError, match="no column 'color'; there are id, label"):
        FusedDataset(out, columns=["color"])
    with pytest.raises(TypeError, match=r"columns must be a list of names, not 'fused'"):
        FusedDataset(out, columns="fused")
    with pytest.raises(ValueError, match="rank 0 is not within a world of 0"):
        FusedDataset(out, world_size=0)


def test_aligned_vectors_come_when_asked_for_with_nan_where_the_input_is_missing(tmp_path):
    write_features(tmp_path, [12], aligned=True)
    assert "aligned" not in next(iter(FusedDataset(tmp_path)))
    batch = next(iter(FusedDataset(tmp_path, columns=["aligned", "has"])))
    assert torch.equal(torch.isnan(batch["aligned"]["text"]).all(1), ~batch["has"]["text"])
    assert batch["aligned"]["image"][1, 0] == 2


def test_half_precision_and_partition_columns(tmp_path):
    write_features(tmp_path, [12, 5, 4], dtype="float16", partitions=["a", "b", None])
    batches = list(FusedDataset(tmp_path, batch_size=100))
    assert batches[0]["fused"].dtype == torch.float16
    assert batches[0]["shop"] == ["a"] * 12 + ["b"] * 5 + [None] * 4


@pytest.mark.parametrize("value", [3, 2.5])
def test_numeric_partition_values_are_numbers(tmp_path, value):
    write_features(tmp_path, [6, 5], partitions=[value, 7])
    batch = next(iter(FusedDataset(tmp_path, batch_size=100)))
    assert batch["shop"].tolist() == [value] * 6 + [7] * 5


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("workers", [0, 2])
def test_filters_on_columns_and_partitions(tmp_path, shuffle, workers):
    write_features(tmp_path, [25, 13, 31], partitions=["a", "b", "a"])
    dataset = FusedDataset(
        tmp_path, filter=[("label", "==", "c1"), ("shop", "==", "a")], batch_size=4, shuffle=shuffle, buffer=8
    )
    expected = [i for i in range(69) if i % 7 and i % 3 == 1 and not 25 <= i < 38]
    assert sorted(rows_of(dataset, num_workers=workers)) == expected
    assert (dataset.rows, len(dataset)) == (len(expected), -(-len(expected) // 4))


def test_files_that_cannot_match_are_not_opened(tmp_path):
    manifest = write_features(tmp_path, [25, 13], partitions=["a", "b"])
    (tmp_path / manifest["files"][1]["path"]).unlink()
    assert rows_of(FusedDataset(tmp_path, filter=pc.field("shop") == "a")) == list(range(25))
    with pytest.raises(RunError, match="not there"):
        FusedDataset(tmp_path)


def test_a_filter_that_nothing_passes_gives_no_batch(out):
    dataset = FusedDataset(out, filter=[("label", "==", "nowhere")], shuffle=True)
    assert (list(dataset), len(dataset), len(FusedRows(out, filter=[("count", "<", 0)]))) == ([], 0, 0)
    with pytest.raises(ValueError, match="filter: No match for FieldRef"):
        FusedDataset(out, filter=[("color", "==", "red")])


def test_shuffling_keeps_rows_whole_and_changes_with_the_epoch(out):
    dataset = FusedDataset(out, batch_size=8, shuffle=True, buffer=30, seed=3)
    batches = list(dataset)
    for batch in batches:
        torch.testing.assert_close(batch["fused"][:, 0], batch["count"].float())
        assert batch["key"] == [f"k{i}" for i in batch["count"].tolist()]
    first = numbers(batches)
    assert sorted(first) == list(range(76))
    assert numbers(dataset) == first
    dataset.set_epoch(1)
    second = numbers(dataset)
    assert sorted(second) == list(range(76))
    assert second != first
    assert numbers(FusedDataset(out, batch_size=8, shuffle=True, buffer=30, seed=4)) != first


def test_a_buffer_of_all_rows_mixes_far_rows(tmp_path):
    write_features(tmp_path, [2000], row_group=100)
    order = np.array(numbers(FusedDataset(tmp_path, shuffle=True, buffer=2000, batch_size=100)))
    assert abs(np.corrcoef(order, np.arange(2000))[0, 1]) < 0.1
    assert np.mean(np.abs(np.diff(order)) < 100) < 0.2


@settings(max_examples=15, deadline=None)
@given(
    files=st.lists(st.integers(1, 45), min_size=1, max_size=6),
    row_group=st.integers(1, 20),
    batch_size=st.integers(1, 20),
    shuffle=st.booleans(),
    even=st.sampled_from(["drop", "pad", "none"]),
)
def test_four_ranks_of_three_workers_cover_the_data_once(files, row_group, batch_size, shuffle, even):
    with tempfile.TemporaryDirectory() as folder:
        write_features(Path(folder), files, row_group=row_group)
        total, per_rank = sum(files), []
        for rank in range(4):
            dataset = FusedDataset(
                folder,
                columns=["id"],
                batch_size=batch_size,
                shuffle=shuffle,
                buffer=16,
                rank=rank,
                world_size=4,
                even=even,
            )
            batches = [b for w in range(3) for b in dataset._batches(0, w, 3, 0, False)]
            assert len(batches) == len(dataset)
            assert all(len(batch["key"]) == batch_size for batch in batches[:-1])
            per_rank.append(numbers(batches))
    seen = Counter(number for rows in per_rank for number in rows)
    sizes = {len(rows) for rows in per_rank}
    if even == "none":
        assert sorted(seen.elements()) == list(range(total))
        assert max(sizes) - min(sizes) <= 1
    elif even == "drop":
        assert set(seen.values()) <= {1}
        assert sizes == {total // 4}
    else:
        assert set(seen) == set(range(total))
        assert sizes == {-(-total // 4)}
        assert seen.total() - total < 4


@given(st.integers(0, 200), st.integers(1, 7), st.integers(1, 5), st.integers(1, 30))
def test_workers_divide_a_rank_without_gap(total, world_size, workers, batch_size):
    for rank in range(world_size):
        start, stop = rank_range(total, rank, world_size, "none")
        parts = [worker_range(start, stop, worker, workers, batch_size) for worker in range(workers)]
        assert (parts[0][0], parts[-1][1]) == (start, stop)
        assert all(one[1] == two[0] for one, two in itertools.pairwise(parts))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 60), st.integers(0, 60))
def test_the_line_wraps_and_visits_every_position_in_order(rows, start, length):
    sequence = RowGroupSequence(np.array(rows), None)
    ends = np.cumsum(rows)
    pieces = list(sequence.row_ranges(start, start + length))
    assert sum(piece.rows for piece in pieces) == length
    visited = [int(ends[p.row_group]) - rows[p.row_group] + i for p in pieces for i in range(p.start, p.stop)]
    assert visited == [position % sum(rows) for position in range(start, start + length)]


@pytest.mark.parametrize("context", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_loader_workers_share_the_rows_and_see_the_epoch(out, context):
    dataset = FusedDataset(out, batch_size=8, shuffle=True, buffer=16)
    loader = DataLoader(
        dataset,
        batch_size=None,
        num_workers=2 if context == "fork" else 1,
        persistent_workers=True,
        multiprocessing_context=context,
    )
    first = numbers(loader)
    assert sorted(first) == list(range(76))
    assert len(loader) == len(dataset) == 10
    dataset.set_epoch(1)
    second = numbers(loader)
    assert sorted(second) == list(range(76))
    assert second != first


@pytest.mark.parametrize("shuffle", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 5, 9, 10])
def test_resuming_gives_the_rest_of_the_epoch_and_then_whole_ones(out, shuffle, stop):
    def new():
        return FusedDataset(out, batch_size=8, shuffle=shuffle, buffer=24, seed=5)

    dataset = new()
    dataset.set_epoch(2)
    iterator = iter(dataset)
    before = [next(iterator) for _ in range(stop)]
    state = json.loads(json.dumps(dataset.state_dict()))
    rest = list(iterator)
    resumed = new()
    resumed.load_state_dict(state)
    assert resumed.state_dict() == state
    again = list(resumed)
    assert keys(again) == keys(rest)
    assert sorted(numbers(before + again)) == list(range(76))
    for one, other in zip(rest, again, strict=True):
        assert torch.equal(one["fused"], other["fused"])
    assert len(numbers(resumed)) == 76


def test_resuming_inside_a_worker_follows_the_stateful_protocol(out, monkeypatch):
    class Info:
        id, num_workers = 1, 3

    monkeypatch.setattr("barycenter.fusion.dataset.torch_dataset.get_worker_info", lambda: Info)
    dataset = FusedDataset(out, batch_size=4, shuffle=True, buffer=8)
    iterator = iter(dataset)
    next(iterator)
    state = dataset.state_dict()
    rest = keys(iterator)
    assert state["workers"] == 3
    other = FusedDataset(out, batch_size=4, shuffle=True, buffer=8)
    other.load_state_dict(state)
    assert keys(other) == rest
    other.load_state_dict(state)
    monkeypatch.setattr("barycenter.fusion.dataset.torch_dataset.get_worker_info", lambda: None)
    with pytest.raises(ValueError, match="3 workers"):
        iter(other)


def test_a_state_of_another_order_is_refused(out):
    state = FusedDataset(out, batch_size=8).state_dict()
    with pytest.raises(ValueError, match="batch_size 8 there, 9 here"):
        FusedDataset(out, batch_size=9).load_state_dict(state)
    dataset = FusedDataset(out, batch_size=8)
    dataset.load_state_dict(state | {"batches": 3})
    dataset.set_epoch(1)
    assert len(list(dataset)) == 10


def test_filesystems_of_pyarrow_fsspec_and_uris(out):
    expected = list(range(76))
    assert rows_of(FusedDataset(f"file://{out}")) == expected
    assert rows_of(FusedDataset("/", filesystem=pafs.SubTreeFileSystem(str(out), pafs.LocalFileSystem()))) == expected
    assert rows_of(FusedDataset(out, filesystem=fsspec.filesystem("file"), batch_size=8), num_workers=2)
    memory = fsspec.filesystem("memory")
    memory.put(str(out), "/bucket/out", recursive=True)
    dataset = FusedDataset("memory://bucket/out", filesystem=memory)
    assert rows_of(dataset) == expected
    memory.rm("/bucket", recursive=True)


def test_a_dataset_travels_pickled(out):
    dataset = FusedDataset(out, filter=pc.field("count") >= 70)
    list(dataset)
    assert rows_of(pickle.loads(pickle.dumps(dataset))) == list(range(70, 76))  # noqa: S301


def test_a_batch_and_a_buffer_may_be_of_one_row(out):
    dataset = FusedDataset(out, batch_size=1, buffer=1, shuffle=True)
    assert len(dataset) == 76
    assert sorted(numbers(dataset)) == list(range(76))


def test_rank_and_world_are_those_of_torch_where_it_runs_on_several_processes(out, monkeypatch):
    for name, value in {"is_initialized": True, "get_world_size": 3, "get_rank": 2}.items():
        monkeypatch.setattr(torch.distributed, name, lambda value=value: value)
    for asked, found in (({}, (2, 3)), ({"rank": 0}, (0, 3)), ({"rank": 0, "world_size": 1}, (0, 1))):
        dataset = FusedDataset(out, **asked)
        assert (dataset.rank, dataset.world_size) == found


@pytest.mark.parametrize("wrong", [{"rank": 4, "world_size": 4}, {"batch_size": 0}, {"buffer": 0}, {"even": "maybe"}])
def test_wrong_settings_are_named(out, wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        FusedDataset(out, **wrong)


def test_arrow_and_files_for_other_libraries(tmp_path):
    write_features(tmp_path, [12, 5], partitions=["a", "b"])
    dataset = FusedDataset(tmp_path)
    assert all(Path(path).is_file() for path in dataset.files)
    assert dataset.arrow().to_table(columns=["shop"], filter=pc.field("shop") == "b").num_rows == 5


@pytest.mark.slow
def test_object_storage_by_uri_and_by_either_filesystem(out, monkeypatch):
    server = pytest.importorskip("moto.server").ThreadedMotoServer(port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {"ACCESS_KEY_ID": "k", "SECRET_ACCESS_KEY": "s", "DEFAULT_REGION": "us-east-1"}.items():
            monkeypatch.setenv(f"AWS_{name}", value)
        endpoint = f"http://{host}:{port}"
        remote = fsspec.filesystem("s3", endpoint_url=endpoint, use_listings_cache=False)
        remote.mkdir("bucket")
        remote.put(str(out), "bucket/out", recursive=True)
        expected = list(range(76))
        uri = f"s3://bucket/out?scheme=http&endpoint_override={host}:{port}&region=us-east-1"
        arrow = pafs.S3FileSystem(scheme="http", endpoint_override=f"{host}:{port}", region="us-east-1")
        for dataset in (
            FusedDataset(uri, batch_size=8),
            FusedDataset("s3://bucket/out", filesystem=remote, batch_size=8),
            FusedDataset("s3://bucket/out", filesystem=arrow, batch_size=8),
        ):
            assert rows_of(dataset) == expected
        assert sorted(rows_of(dataset, num_workers=1, multiprocessing_context="spawn")) == expected
        with pytest.raises(RunError, match="nothing has been committed"):
            FusedDataset("s3://bucket/nowhere", filesystem=remote)
    finally:
        server.stop()
