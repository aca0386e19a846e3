"""A loader that saved its place at the end of an epoch, or after the next epoch was set."""

import pytest
from torchdata.stateful_dataloader import StatefulDataLoader

from barycenter.fusion.dataset import FusedDataset
from tests.fusion.features_on_disk import write_features


@pytest.fixture
def out(tmp_path):
    write_features(tmp_path, [25, 13, 7, 31])
    return tmp_path


def dataset(out, **options):
    return FusedDataset(out, **{"batch_size": 5, "shuffle": True, "buffer": 20, "seed": 4} | options)


def keys(batches):
    return [batch["key"] for batch in batches]


def epoch(out, number):
    whole = dataset(out)
    whole.set_epoch(number)
    return keys(whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_resumed_at_the_end_of_an_epoch_reads_the_next_one(out, workers):
    def loader():
        data = dataset(out)
        return data, StatefulDataLoader(data, batch_size=None, num_workers=workers)

    _, first = loader()
    ended = keys(first)
    state = first.state_dict()
    data, resumed = loader()
    resumed.load_state_dict(state)
    data.set_epoch(1)
    then = keys(resumed)
    fresh, whole = loader()
    fresh.set_epoch(1)
    assert then == keys(whole)
    assert then != ended


def test_a_state_names_the_epoch_that_is_read_whatever_was_set_since(out):
    data = dataset(out)
    batches = iter(data)
    begun = [next(batches)["key"] for _ in range(3)]
    data.set_epoch(1)
    state = data.state_dict()
    assert (state["epoch"], state["batches"]) == (0, 3)
    resumed = dataset(out)
    resumed.load_state_dict(state)
    assert begun + keys(resumed) == epoch(out, 0)


def test_a_state_between_two_epochs_begins_the_one_that_was_set(out):
    data = dataset(out)
    assert keys(data) == epoch(out, 0)
    data.set_epoch(1)
    resumed = dataset(out)
    resumed.load_state_dict(data.state_dict())
    assert keys(resumed) == epoch(out, 1)


def test_a_state_in_the_middle_of_an_epoch_wins_over_another_epoch(out):
    data = dataset(out)
    data.set_epoch(2)
    batches = iter(data)
    begun = [next(batches)["key"] for _ in range(4)]
    resumed = dataset(out)
    resumed.set_epoch(0)
    resumed.load_state_dict(data.state_dict())
    assert begun + keys(resumed) == epoch(out, 2)


def test_a_state_taken_before_anything_is_read_begins_the_epoch_that_was_set(out):
    assert (dataset(out).state_dict()["epoch"], dataset(out).state_dict()["batches"]) == (0, 0)
    for asked in (0, 3):
        fresh, resumed = dataset(out), dataset(out)
        fresh.set_epoch(asked)
        resumed.load_state_dict(fresh.state_dict())
        assert keys(resumed) == epoch(out, asked)


def test_a_state_counts_the_batches_of_its_own_epoch(out):
    data = dataset(out)
    list(data)
    data.set_epoch(1)
    batches = iter(data)
    begun = [next(batches)["key"] for _ in range(3)]
    assert data.state_dict()["batches"] == 3
    resumed = dataset(out)
    resumed.load_state_dict(data.state_dict())
    assert begun + keys(resumed) == epoch(out, 1)


def test_setting_the_epoch_of_a_state_keeps_its_place(out):
    data = dataset(out)
    data.set_epoch(2)
    batches = iter(data)
    begun = [next(batches)["key"] for _ in range(3)]
    resumed = dataset(out)
    resumed.load_state_dict(data.state_dict())
    resumed.set_epoch(2)
    assert begun + keys(resumed) == epoch(out, 2)


@pytest.mark.parametrize("batch_size", [4, 19, 5])
@pytest.mark.parametrize("rank", [0, 1])
def test_the_end_of_an_epoch_is_known_on_every_rank(out, batch_size, rank):
    def data():
        return dataset(out, batch_size=batch_size, rank=rank, world_size=2)

    ended, fresh, resumed = data(), data(), data()
    list(ended)
    fresh.set_epoch(1)
    resumed.set_epoch(1)
    resumed.load_state_dict(ended.state_dict())
    assert keys(resumed) == keys(fresh)
