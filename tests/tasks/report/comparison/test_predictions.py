import pytest

from barycenter.fusion.errors import JobError
from barycenter.tasks.report.comparison.predictions import changed_predictions


@pytest.fixture
def sides(outputs, keys, vectors):
    groups = [f"g{row // 10}" for row in range(60)]
    return outputs.commit(keys, vectors, groups=groups), outputs.commit(keys, vectors + 1, groups=groups)


def rows(keys, labels, said):
    return list(zip(keys, labels, said, strict=True))


def test_rows_that_became_right_or_wrong_are_counted(outputs, sides, keys):
    before, after = sides
    outputs.train(before, rows(keys[:5], "aabbc", "aabba"))
    outputs.train(after, rows(keys[1:6], "abbca", "bbaca"))
    found = changed_predictions(before, after, None, notes := [])
    assert (found["n"], found["changed"], found["gained"], found["lost"]) == (4, 3, 1, 2)
    assert found["relabeled"] == 0
    assert [row["key"] for row in found["rows"]] == ["k01", "k03", "k04"]
    assert found["rows"][0] == {"key": "k01", "target": "a", "before": "a", "after": "b"}
    assert found["rows"][2] == {"key": "k04", "target": "c", "before": "a", "after": "c"}
    assert found["difference"]["mean"] == pytest.approx(-0.25)
    assert found["difference"]["within_noise"] is True
    assert notes == []


def test_rows_whose_true_value_is_another_are_counted(outputs, sides, keys):
    before, after = sides
    outputs.train(before, rows(keys[:4], "aabb", "aabb"))
    outputs.train(after, rows(keys[:4], "abba", "aabb"))
    found = changed_predictions(before, after, None, [])
    assert (found["changed"], found["lost"], found["relabeled"]) == (0, 2, 2)


def test_near_copies_are_no_independent_evidence(outputs, sides, keys):
    before, after = sides
    said = ["b"] * 20 + ["a"] * 40  # twenty rows became right, of two groups
    for grouped in (None, "group"):
        outputs.train(before, rows(keys, "a" * 60, said), group_by=grouped)
        outputs.train(after, rows(keys, "a" * 60, "a" * 60), group_by=grouped)
        found = changed_predictions(before, after, None, [])["difference"]
        assert found["mean"] == pytest.approx(1 / 3)
        assert found["within_noise"] is (grouped is not None)


def test_sets_of_labels_are_compared_without_order(outputs, sides, keys):
    before, after = sides
    sets = [["x", "y"], ["x"]]
    outputs.train(before, rows(keys[:2], sets, [["y", "x"], []]), task="multilabel")
    outputs.train(after, rows(keys[:2], sets, [["x", "y"], ["x"]]), task="multilabel")
    found = changed_predictions(before, after, None, [])
    assert (found["changed"], found["gained"], found["relabeled"]) == (1, 1, 0)


def test_of_numbers_the_largest_changes_come_first(outputs, sides, keys):
    before, after = sides
    outputs.train(before, rows(keys[:3], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0]), task="regression")
    outputs.train(after, rows(keys[:3], [1.0, 2.0, 3.0], [1.5, 2.0, -3.0]), task="regression")
    found = changed_predictions(before, after, None, [])
    assert [row["key"] for row in found["rows"]] == ["k02", "k00"]
    assert found["mean_change"] == pytest.approx(6.5 / 3)
    assert "gained" not in found


def test_the_head_of_the_same_settings_is_taken(outputs, sides, keys):
    before, after = sides
    outputs.train(before, rows(keys[:2], "aa", "ab"), name="h1")
    outputs.train(after, rows(keys[:2], "aa", "bb"), name="h2", kind="mlp")
    outputs.train(after, rows(keys[:2], "aa", "aa"), name="h1")
    assert changed_predictions(before, after, None, [])["changed"] == 1
    outputs.train(before, rows(keys[:2], "aa", "ab"), name="h3")
    outputs.train(after, rows(keys[:2], "aa", "bb"), name="h3", kind="mlp")
    with pytest.raises(JobError, match="there are several, name one by its kind"):
        changed_predictions(before, after, None, [])


def test_what_is_not_there_is_said(outputs, sides, keys):
    before, after = sides
    assert changed_predictions(before, after, None, notes := []) is None
    assert notes[0].startswith("no head is trained on")
    outputs.train(before, rows(keys[:2], "aa", "ab"))
    outputs.train(after, [])
    assert changed_predictions(before, after, None, notes := []) is None
    assert "has no held-out rows" in notes[0]
    outputs.train(after, rows(keys[5:7], "aa", "ab"))
    assert changed_predictions(before, after, None, notes := []) is None
    assert "no row was held out from both" in notes[0]
    outputs.train(after, rows(keys[:2], "aa", "ab"), target="other")
    assert changed_predictions(before, after, None, notes := []) is None
    assert "different targets" in notes[0]


def test_a_kind_of_head_that_is_not_there_is_an_error(outputs, sides, keys):
    before, after = sides
    with pytest.raises(
        JobError, match=r"out@1 has no head of kind 'mlp'; it has no head; `barycenter train` makes one"
    ):
        changed_predictions(before, after, "mlp", [])
    outputs.train(before, rows(keys[:2], "aa", "ab"), kind="mlp")
    outputs.train(after, rows(keys[:2], "aa", "bb"))
    with pytest.raises(JobError, match=r"--head: .*out@2 has no head of kind 'mlp'; its heads are of kind linear"):
        changed_predictions(before, after, "mlp", [])
