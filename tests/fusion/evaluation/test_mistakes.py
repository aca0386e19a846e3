import numpy as np
import pytest

from barycenter.fusion.evaluation.mistakes import Predictions, mistakes
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.heads.targets import as_objects

ROWS = np.arange(400)


def predictions(task, labels, predicted, certainty=None, own=None):
    n = len(labels)
    unknown = np.full(n, np.nan)
    return Predictions(
        task, np.arange(n), as_objects(labels), as_objects(predicted),
        unknown if certainty is None else np.array(certainty), unknown if own is None else np.array(own),
        as_objects([None] * n),
    )  # fmt: skip


@pytest.fixture(scope="module")
def flipped():
    """A head that learned from good labels, and what it says of rows of which ten have the wrong label."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 800)
    features = (np.eye(3)[true] * 4 + rng.normal(size=(800, 3))).astype(np.float32)
    names = np.array(["ant", "bee", "cat"])
    head = LinearHead().fit(features[400:], names[true[400:]])
    labels = as_objects(names[true[:400]].tolist())
    wrong = np.arange(0, 400, 40)
    labels[wrong] = names[(true[wrong] + 1) % 3]
    return Predictions.of(head, features[:400], ROWS + 7, labels), wrong


def test_labels_that_are_wrong_are_the_least_likely(flipped):
    found, wrong = flipped
    doubtful = found.doubtful()
    assert set(doubtful[: len(wrong)]) == set(wrong.tolist())
    assert len(doubtful) <= len(wrong) + 2
    assert (np.diff(found.own[doubtful]) >= 0).all()


def out_of_fold(classes, spread, rows=600, width=64, wrong=(), task="classification"):
    """What heads say of rows of some classes around random centers, each fold by a head that has not seen it."""
    rng = np.random.default_rng(1)
    true = rng.integers(0, classes, rows)
    features = (rng.normal(size=(classes, width))[true] * spread + rng.normal(size=(rows, width))).astype(np.float32)
    true[list(wrong)] = (true[list(wrong)] + 1) % classes
    sets = [[f"c{label}", "any"] if at % 2 else [f"c{label}"] for at, label in enumerate(true)]
    labels = as_objects(sets if task == "multilabel" else [f"c{label}" for label in true])
    fold = np.arange(rows) % 4
    parts = []
    for number in range(4):
        learn, score = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        head = LinearHead(task=task).fit(features[learn], labels[learn])
        parts.append(Predictions.of(head, features[score], score, labels[score]))
    return Predictions.joined(parts)


def test_of_many_classes_without_a_wrong_label_none_is_looked_at():
    found = out_of_fold(100, 1.5)
    assert 0.8 < found.right.mean() < 1
    assert (found.own < 0.05).sum() > 20  # of a hundred classes that is no sign
    assert found.doubtful() == []


def test_of_many_classes_the_wrong_labels_are_found():
    wrong = range(0, 600, 40)
    found = out_of_fold(20, 1.0, wrong=wrong)
    named = {int(found.rows[at]) for at in found.doubtful()}
    assert len(named & set(wrong)) >= 13
    assert len(named - set(wrong)) <= 1


def test_a_model_that_knows_nothing_doubts_no_label():
    for classes in (2, 50):
        found = out_of_fold(classes, 0.0, width=8)
        assert not found.right.mean() > 0.6
        assert found.doubtful() == []


def test_a_label_is_doubtful_by_the_thresholds_of_both_classes():
    labels, said = list("aaaabb"), list("baaabb")
    certainty, own = [0.8, 0.9, 0.9, 0.9, 0.7, 0.8], [0.05, 0.9, 0.9, 0.9, 0.7, 0.8]
    assert predictions("classification", labels, said, certainty, own).doubtful() == [0]
    below = [0.74, *certainty[1:]]  # b is given 0.75 where it is right
    assert predictions("classification", labels, said, below, own).doubtful() == []
    hardly = [0.09, *own[1:]]  # more than a tenth of 0.8
    assert predictions("classification", labels, said, certainty, hardly).doubtful() == []
    unsure = [0.05, 0.01, 0.01, 0.01, 0.7, 0.8]  # a is usually given 0.02
    assert 0 not in predictions("classification", labels, said, certainty, unsure).doubtful()


def test_of_label_sets_a_wrong_label_is_found():
    wrong = range(0, 600, 60)
    found = out_of_fold(6, 1.0, width=24, wrong=wrong, task="multilabel")
    named = {int(found.rows[at]) for at in found.doubtful()}
    assert len(named & set(wrong)) >= 9
    assert len(named - set(wrong)) <= 3


def test_probabilities_are_those_of_the_predicted_and_of_the_own_class(flipped):
    found, _ = flipped
    right = found.right
    assert found.certainty[right] == pytest.approx(found.own[right])
    assert (found.own[~right] <= 1 - found.certainty[~right] + 1e-9).all()


def test_the_most_confident_errors_are_errors_in_order(flipped):
    found, _ = flipped
    worst = found.most_confident_errors(5)
    assert len(worst) == 5
    assert not found.right[worst].any()
    assert found.certainty[worst].tolist() == sorted(found.certainty[~found.right], reverse=True)[:5]


def test_of_near_copies_one_error_is_enough(flipped):
    found, _ = flipped
    worst = found.most_confident_errors(400)
    groups = ["copies" if row - 7 in worst[:3] else row for row in range(407)]
    assert found.most_confident_errors(400, groups) == [worst[0], *worst[3:]]


def test_a_class_that_was_never_seen_is_not_called_doubtful():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(60, 2)).astype(np.float32)
    head = LinearHead().fit(features, ["a", "b"] * 30)
    found = Predictions.of(head, features[:2], ROWS[:2], as_objects(["new", "a"]))
    assert np.isnan(found.own[0])
    assert 0 not in found.doubtful()
    assert not found.right[0]


def test_the_matrix_counts_labels_down_and_predictions_across():
    found = mistakes(predictions("classification", list("aaabbc"), list("aabbbb")))
    assert (found["n"], found["wrong"]) == (6, 2)
    assert found["confusion"] == {"labels": ["a", "b", "c"], "counts": [[2, 1, 0], [0, 2, 0], [0, 1, 0]]}
    assert found["pairs"] == [{"label": "a", "predicted": "b", "n": 1}, {"label": "c", "predicted": "b", "n": 1}]
    by = {line["label"]: line for line in found["classes"]}
    assert by["a"] == {"label": "a", "n": 3, "predicted": 2, "recall": pytest.approx(2 / 3), "precision": 1.0}
    assert by["c"] == {"label": "c", "n": 1, "predicted": 0, "recall": 0.0, "precision": None}


def test_of_many_classes_the_rare_ones_are_one_line_and_one_column():
    labels = [number for number in range(25) for _ in range(30 - number)]
    predicted = [24 if label == 0 else 0 if label == 23 else label for label in labels]
    found = mistakes(predictions("classification", labels, predicted))["confusion"]
    counts = np.array(found["counts"])
    assert found["labels"] == [*range(20), None]
    assert counts.sum() == len(labels)
    assert counts[0, -1] == 30  # 0 was taken for one of the rare ones
    assert counts[-1, 0] == 7  # 23, a rare one, for 0
    assert counts[-1, -1] == 10 + 9 + 8 + 6


def test_each_label_of_sets_has_its_own_figures():
    labels, predicted = [["x", "y"], ["x"], [], ["y"]], [["x"], ["x", "y"], [], []]
    found = mistakes(predictions("multilabel", labels, predicted))
    assert (found["n"], found["wrong"]) == (4, 3)
    by = {line["label"]: line for line in found["labels"]}
    assert by["x"] | {"label": 0} == {"label": 0, "n": 2, "predicted": 2, "recall": 1.0, "precision": 1.0, "f1": 1.0}
    assert by["y"] | {"label": 0} == {"label": 0, "n": 2, "predicted": 1, "recall": 0.0, "precision": 0.0, "f1": 0.0}


def test_the_doubtful_part_of_a_set_is_named():
    rng = np.random.default_rng(0)
    features = rng.normal(size=(500, 2)).astype(np.float32)
    sets = as_objects([[name for name, value in zip("xy", row, strict=True) if value > 0] for row in features])
    head = LinearHead(task="multilabel").fit(features[100:], sets[100:])
    far = np.array([[3.0, -3.0]], np.float32)
    found = Predictions.of(head, far, ROWS[:1], as_objects([["x", "y"]]))
    assert found.predicted[0] == ["x"]
    assert found.part[0] == "y"
    assert found.own[0] < 0.05
    assert found.certainty[0] == pytest.approx(1 - found.own[0])
    assert found.most_confident_errors(3) == [0]


def test_a_regression_has_sizes_of_errors_and_the_largest_first():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=100) * 10
    said = labels - rng.normal(size=100)
    said[17] -= 40
    found = predictions("regression", labels.tolist(), said.tolist())
    figures = mistakes(found)
    assert figures["mean_absolute"] == pytest.approx(np.abs(labels - said).mean())
    assert figures["median_absolute"] == pytest.approx(np.median(np.abs(labels - said)))
    assert figures["of_mean"] == pytest.approx(labels.std())
    assert figures["r2"] == pytest.approx(1 - ((labels - said) ** 2).sum() / ((labels - labels.mean()) ** 2).sum())
    assert found.most_confident_errors(1) == [17]
    assert found.doubtful() == [17]
    assert found.residuals[17] > 0


def test_rows_of_several_heads_follow_each_other(flipped):
    found, _ = flipped
    both = Predictions.joined([found, found.of_rows(np.arange(1000))])
    assert both.rows.tolist() == [*found.rows, *found.rows]
    assert mistakes(both)["n"] == 800
