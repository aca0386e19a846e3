"""Fused rows by their number."""

import pytest
from torch.utils.data import DataLoader

from barycenter.fusion.dataset import FusedRows
from tests.fusion.dataset.test_torch_dataset import numbers
from tests.fusion.features_on_disk import write_features


@pytest.fixture
def out(tmp_path):
    write_features(tmp_path, [25, 13, 7, 31])
    return tmp_path


def test_rows_by_number(out):
    rows = FusedRows(out, cached_row_groups=2)
    assert len(rows) == 76
    for row, key in ((0, "k0"), (1, "k1"), (75, "k75"), (-1, "k75"), (-76, "k0")):
        assert rows[row]["key"] == key
    for row in (76, -77):
        with pytest.raises(IndexError):
            rows[row]
    batch = rows.take([70, 3, 3, 26])
    assert batch["key"] == ["k70", "k3", "k3", "k26"]
    assert batch["fused"][:, 0].tolist() == [70, 3, 3, 26]
    assert len(rows._cache) == 2
    for wanted, row in (([76], 76), ([3, 76], 76), ([-1, 3], -1)):
        with pytest.raises(IndexError, match=f"row {row} of 76"):
            rows.take(wanted)
    assert numbers([rows.read()]) == list(range(76))
    assert rows.take([])["fused"].shape == (0, 4)


@pytest.mark.parametrize(("asked", "held"), [(0, 1), (1, 1), (2, 2)])
def test_the_row_groups_asked_for_last_are_held(out, monkeypatch, asked, held):
    rows = FusedRows(out, columns=["count"], cached_row_groups=asked)
    scanned, scan = [], rows._reader.scan
    monkeypatch.setattr(rows._reader, "scan", lambda *given, **options: scanned.append(1) or scan(*given, **options))

    def reads(row):
        before = len(scanned)
        assert rows[row]["count"] == row
        return len(scanned) - before

    for row in (0, 10, 0, 20):  # three row groups, the first one asked for again
        reads(row)
    assert len(rows._cache) == held
    assert (reads(21), reads(1), reads(11)) == (0, 0 if held == 2 else 1, 1)


def test_rows_feed_a_loader_with_a_sampler(out):
    loader = DataLoader(FusedRows(out, columns=["fused", "count"]), batch_size=10, shuffle=True)
    batches = list(loader)
    assert batches[0]["fused"].shape == (10, 4)
    assert sorted(i for batch in batches for i in batch["count"].tolist()) == list(range(76))
