"""What the order of rows depends on, and to which order a saved position belongs."""

import itertools

import pytest

from barycenter.fusion.dataset import FusedDataset
from tests.fusion.features_on_disk import write_features


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    """Twelve row groups of eight rows."""
    folder = tmp_path_factory.mktemp("order")
    write_features(folder, [48, 48], row_group=8)
    return folder


def numbers(out, epoch=0, **options):
    dataset = FusedDataset(out, **{"columns": ["id"], "shuffle": True, "batch_size": 8, **options})
    dataset.set_epoch(epoch)
    return [int(key[1:]) for batch in dataset for key in batch["key"]]


def row_groups(rows):
    """The row groups that rows come from, each once, in order."""
    return [group for group, _ in itertools.groupby(row // 8 for row in rows)]


def places(rows):
    """The places inside their row groups of the rows of each block of eight."""
    return [tuple(row % 8 for row in rows[start : start + 8]) for start in range(0, len(rows), 8)]


def test_row_groups_are_shuffled_anew_by_seed_and_epoch(out):
    orders = [tuple(row_groups(numbers(out, buffer=8, seed=s, epoch=e))) for s, e in ((0, 0), (0, 1), (1, 0), (0, 2))]
    assert all(sorted(order) == list(range(12)) for order in orders)
    assert len({tuple(range(12)), *orders}) == 5
    assert tuple(row_groups(numbers(out, buffer=8))) == orders[0]


def test_rows_of_a_block_are_shuffled_anew_by_seed_epoch_rank_and_block(out):
    alone = [places(numbers(out, buffer=8, seed=s, epoch=e)) for s, e in ((0, 0), (0, 1), (1, 0))]
    ranks = [places(numbers(out, buffer=8, rank=rank, world_size=2)) for rank in range(2)]
    found = [block for blocks in [*alone, ranks[1]] for block in blocks]
    assert len(set(found)) == len(found) == 3 * 12 + 6
    assert ranks[0] == alone[0][:6], "the first of two ranks begins as a single one"


def test_rows_of_a_block_are_shuffled_anew_by_worker(out):
    dataset = FusedDataset(out, columns=["id"], shuffle=True, batch_size=8, buffer=8)
    workers = [
        places([int(key[1:]) for batch in dataset._batches(0, worker, 2, 0, False) for key in batch["key"]])
        for worker in range(2)
    ]
    found = [block for blocks in workers for block in blocks]
    assert len(set(found)) == len(found) == 12


def test_all_rows_of_a_block_are_mixed_and_no_others(out):
    rows = numbers(out, buffer=24)
    for start in range(0, 96, 24):
        assert len({row // 8 for row in rows[start : start + 24]}) == 3
    assert len({row // 8 for row in rows[:8]}) > 1


def test_a_buffer_is_rounded_up_to_whole_batches(out):
    assert numbers(out, buffer=9) == numbers(out, buffer=16) != numbers(out, buffer=8)


def test_what_is_read_where_nothing_is_said(out):
    dataset = FusedDataset(out)
    assert (dataset.batch_size, dataset.shuffle, dataset.seed, dataset.even) == (1024, False, 0, "drop")
    assert (dataset.rank, dataset.world_size, dataset.epoch) == (0, 1, 0)
    assert FusedDataset(out, shuffle=True).state_dict()["of"]["buffer"] == 65_536


@pytest.mark.parametrize(("rank", "world_size"), [(-1, 2), (2, 2), (0, 0)])
def test_a_rank_outside_its_world_is_refused(out, rank, world_size):
    with pytest.raises(ValueError, match=f"rank {rank} is not within a world of {world_size}"):
        FusedDataset(out, rank=rank, world_size=world_size)


def state_of(out, **options):
    return FusedDataset(out, **options).state_dict()


@pytest.mark.parametrize(
    ("option", "there", "here", "message"),
    [
        ("batch_size", 8, 16, "batch_size 8 there, 16 here"),
        ("buffer", 24, 32, "buffer 24 there, 32 here"),
        ("seed", 1, 2, "seed 1 there, 2 here"),
        ("rank", 0, 1, "rank 0 there, 1 here"),
        ("world_size", 3, 2, "world_size 3 there, 2 here"),
        ("even", "pad", "drop", "even pad there, drop here"),
        ("shuffle", True, False, "buffer 65536 there, None here, seed 0 there, None here"),
        ("filter", [("count", ">", 3)], None, r"filter \(count > 3\) there, None here"),
    ],
)
def test_a_position_in_another_order_is_refused_by_name(out, option, there, here, message):
    common = {"shuffle": True, "batch_size": 8, "world_size": 2, "rank": 0}
    state = state_of(out, **common | {option: there})
    FusedDataset(out, **common | {option: there}).load_state_dict(state)
    with pytest.raises(ValueError, match=rf"^the saved state does not fit this dataset: {message}$"):
        FusedDataset(out, **common | {option: here}).load_state_dict(state)


def test_a_position_in_another_version_is_refused(tmp_path):
    write_features(tmp_path, [5], number=1, version="one")
    write_features(tmp_path, [5], number=2, version="two")
    state = state_of(tmp_path, version=1)
    FusedDataset(tmp_path, version="one").load_state_dict(state)
    with pytest.raises(ValueError, match=r": version one there, two here$"):
        FusedDataset(tmp_path).load_state_dict(state)


def test_what_does_not_matter_to_the_order_of_files_is_not_compared(out):
    state = state_of(out, seed=1, buffer=8)
    FusedDataset(out, seed=2, buffer=16).load_state_dict(state)
