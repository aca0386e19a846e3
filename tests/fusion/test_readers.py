"""The lines of README that read the features, run as they are, and the loader that saves its place."""

import re
from pathlib import Path

import pytest
import torch
from torchdata.stateful_dataloader import StatefulDataLoader

from barycenter.fusion.dataset import FusedDataset
from tests.fusion.features_on_disk import write_features

README = Path(__file__).resolve().parents[2] / "README.md"


def lines():
    block = re.search(r"^    import json; features = .*?(?=^\S)", README.read_text(), re.S | re.M)
    return [line.strip() for line in block.group().splitlines() if line.strip()]


@pytest.fixture(scope="module")
def emoji(tmp_path_factory):
    """A data set at out/emoji of two versions, of which only the newest is to be read."""
    folder = tmp_path_factory.mktemp("readme")
    write_features(folder / "out/emoji", [9, 4], version="old")
    write_features(folder / "out/emoji", [25, 13, 7], version="new", number=2)
    return folder


def test_the_lines_are_those_of_six_libraries():
    assert [re.search(r"\b(json|pandas|polars|duckdb|datasets|barycenter)\b", line).group() for line in lines()] == [
        "json", "pandas", "polars", "duckdb", "datasets", "barycenter",
    ]  # fmt: skip


@pytest.mark.parametrize("library", ["pandas", "polars", "duckdb", "datasets", "barycenter"])
def test_one_line_reads_the_newest_version(library, emoji, monkeypatch):
    monkeypatch.chdir(emoji)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", emoji / "cache")
    found = lines()
    names = {}
    exec(found[0], names)
    line = next(line for line in found[1:] if re.search(rf"\b{library}\b", line))
    exec(line, names)
    table = names["table"]
    if library == "barycenter":
        batches = list(table)
        assert sum(len(batch["fused"]) for batch in batches) == 45
        assert batches[0]["fused"].dtype == torch.float32
        return
    if library == "duckdb":
        table = table.df()
    if library == "datasets":
        table = table["train"].to_pandas()
    if library == "polars":
        table = table.to_pandas()
    assert len(table) == 45
    row = table[table["id"] == "k17"].iloc[0]
    assert [float(value) for value in row["fused"]] == [17, 17.125, 17.25, 17.375]
    assert (row["label"], bool(row["has_text"])) == ("c2", False)


@pytest.mark.parametrize(("workers", "shuffle"), [(0, True), (2, True), (2, False)])
def test_a_stateful_loader_goes_on_in_the_middle_of_an_epoch(tmp_path, workers, shuffle):
    write_features(tmp_path, [25, 13, 7, 31])

    def loader():
        dataset = FusedDataset(tmp_path, batch_size=5, shuffle=shuffle, buffer=20, seed=4)
        return StatefulDataLoader(dataset, batch_size=None, num_workers=workers)

    whole = [batch["key"] for batch in loader()]
    assert sorted(key for keys in whole for key in keys) == sorted(f"k{i}" for i in range(76))
    first = loader()
    iterator = iter(first)
    begun = [next(iterator)["key"] for _ in range(6)]
    state = first.state_dict()
    resumed = loader()
    resumed.load_state_dict(state)
    assert begun + [batch["key"] for batch in resumed] == whole
