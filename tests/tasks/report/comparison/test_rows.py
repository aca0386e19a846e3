import numpy as np
import pytest

from barycenter.tasks.report.comparison import rows
from barycenter.tasks.report.comparison.rows import compare_keys, key_changes, moved_rows


@pytest.fixture(params=[4_000_000, 25])
def at_once(request, monkeypatch):
    """All keys at once, and some at a time."""
    monkeypatch.setattr(rows, "KEYS_AT_ONCE", request.param)


@pytest.mark.usefixtures("at_once")
def test_keys_that_came_and_went_are_counted_and_some_are_named(outputs, keys, vectors):
    before = outputs.commit(keys[:50], vectors[:50])
    after = outputs.commit(keys[20:], vectors[20:], files=3)
    found = compare_keys(before, after)
    assert (found.kept, found.added, found.removed) == (30, 10, 20)
    assert len(found.sample) == 30
    changes = key_changes(before, after, found)
    assert sorted(changes["examples"]["added"]) == keys[50:]
    assert len(changes["examples"]["removed"]) == 10
    assert set(changes["examples"]["removed"]) < set(keys[:20])


def test_buckets_change_nothing(outputs, keys, vectors, monkeypatch):
    before, after = outputs.commit(keys[:50], vectors[:50]), outputs.commit(keys[20:], vectors[20:])
    whole = compare_keys(before, after, sample=12)
    monkeypatch.setattr(rows, "KEYS_AT_ONCE", 9)
    parts = compare_keys(before, after, sample=12)
    assert whole.sample.tolist() == parts.sample.tolist()
    assert whole.first_removed.tolist() == parts.first_removed.tolist()
    assert len(whole.sample) == 12


def test_in_one_space_the_rows_that_turned_most_come_first(outputs, keys, vectors):
    turned = vectors.copy()
    turned[7] *= -1
    turned[33] += 0.5
    turned[11] *= 3  # longer, in the same direction
    before, after = outputs.commit(keys, vectors), outputs.commit(keys[::-1], turned[::-1], files=3)
    found = moved_rows(before, after, compare_keys(before, after), notes := [])
    assert (found["by"], found["sample"], found["of"]) == ("cosine", 60, 60)
    assert [row["key"] for row in found["rows"]] == ["k07", "k33"]
    assert found["rows"][0]["cosine"] == -1.0
    cosine = float(vectors[33] @ turned[33] / np.linalg.norm(vectors[33]) / np.linalg.norm(turned[33]))
    assert found["rows"][1]["cosine"] == pytest.approx(cosine, abs=1e-6)
    assert found["unmoved"] == pytest.approx(58 / 60)
    assert notes == []


def test_across_two_spaces_neighbors_are_compared(outputs, keys, vectors):
    rotation = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))[0]
    rotated = vectors @ rotation
    before, after = outputs.commit(keys, vectors), outputs.commit(keys, rotated, alignment="a2")
    found = moved_rows(before, after, compare_keys(before, after), notes := [])
    assert found["by"] == "neighbors"
    assert found["overlap"] == 1.0
    assert found["rows"] == []
    assert "alignments differ" in notes[0]
    rotated[7] = -rotated[7]
    other = outputs.commit(keys, rotated, alignment="a3")
    found = moved_rows(before, other, compare_keys(before, other), [])
    assert found["rows"][0]["key"] == "k07"
    assert found["rows"][0]["shared"] < 5
    assert 0.8 < found["overlap"] < 1


def test_shuffled_vectors_share_neighbors_by_chance(outputs, vectors):
    rng = np.random.default_rng(2)
    keys, many = [f"k{row}" for row in range(1500)], rng.normal(size=(1500, 4))
    before = outputs.commit(keys, many)
    after = outputs.commit(keys, rng.permutation(many), alignment="a2")
    found = moved_rows(before, after, compare_keys(before, after), [])
    assert found["chance"] == pytest.approx(10 / 1499)
    assert found["overlap"] == pytest.approx(found["chance"], abs=0.003)


def test_of_many_rows_a_sample_is_looked_at(outputs, keys, vectors, monkeypatch):
    monkeypatch.setattr(rows, "MOVED_ROWS", 20)
    before, after = outputs.commit(keys, vectors), outputs.commit(keys, vectors + 0.1)
    found = moved_rows(before, after, compare_keys(before, after), [])
    assert (found["sample"], found["of"]) == (20, 60)


def test_no_row_in_both_is_said(outputs, keys, vectors):
    before, after = outputs.commit(keys[:30], vectors[:30]), outputs.commit(keys[30:], vectors[30:])
    assert moved_rows(before, after, compare_keys(before, after), notes := []) is None
    assert notes == ["0 rows in both, too few to say which moved"]


def test_three_rows_still_have_neighbors(outputs, keys, vectors):
    before = outputs.commit(keys[:3], vectors[:3])
    after = outputs.commit(keys[:3], vectors[:3], alignment="a2")
    found = moved_rows(before, after, compare_keys(before, after), [])
    assert (found["nearest"], found["overlap"]) == (1, 1.0)
