import numpy as np
import pytest

from barycenter.fusion.evaluation.ceiling import ceiling
from barycenter.fusion.heads.targets import as_objects

VIEWS = {"text": np.array([[0.0], [0.0], [0.0], [1.0], [2.0]]), "image": np.array([[5.0], [5.0], [5.0], [5.0], [5.0]])}
ALL = np.arange(5)


def test_equal_inputs_with_different_labels_cannot_all_be_right():
    assert ceiling(VIEWS, as_objects(list("aabab")), ALL, "classification") == {"score": 0.8, "rows": 3}


def test_an_input_that_separates_them_lifts_the_ceiling():
    apart = VIEWS | {"image": np.arange(5.0)[:, None]}
    assert ceiling(apart, as_objects(list("aabab")), ALL, "classification") is None


def test_of_equal_inputs_with_equal_labels_nothing_is_known():
    assert ceiling(VIEWS, as_objects(list("aaabb")), ALL, "classification") is None


def test_rows_that_are_not_scored_do_not_count():
    assert ceiling(VIEWS, as_objects(list("aabab")), np.array([0, 1, 3]), "classification") is None


def test_a_missing_input_equals_a_missing_input():
    gone = VIEWS | {"text": np.full((5, 1), np.nan)}
    assert ceiling(gone, as_objects(list("aaabb")), ALL, "classification") == {"score": 0.6, "rows": 5}


def test_of_numbers_the_spread_among_equal_inputs_is_lost():
    labels = as_objects([1.0, 2.0, 3.0, 8.0, 11.0])
    variance = np.var([1.0, 2.0, 3.0, 8.0, 11.0])
    found = ceiling(VIEWS, labels, ALL, "regression")
    assert found["score"] == pytest.approx(1 - np.var([1.0, 2.0, 3.0]) * 3 / 5 / variance)
    assert ceiling(VIEWS, as_objects([4.0] * 5), ALL, "regression") is None


def test_sets_are_compared_without_their_order():
    labels = as_objects([["x", "y"], ["y", "x"], ["x"], [], []])
    assert ceiling(VIEWS, labels, ALL, "multilabel") == {"score": 0.8, "rows": 3}
