import numpy as np
import pytest

from barycenter.fusion.evaluation.copies import copies
from barycenter.fusion.evaluation.mistakes import Predictions
from barycenter.fusion.heads.targets import as_objects

N = 60


def views(rows):
    numbers = np.array(rows, dtype=np.float32)[:, None]
    return {"text": numbers, "image": -numbers}


def predictions(rows, right):
    unknown = np.full(len(rows), np.nan)
    said = as_objects(["a" if each else "b" for each in right])
    labels, nothing = as_objects(["a"] * len(rows)), as_objects([None] * len(rows))
    return Predictions("classification", np.array(rows), labels, said, unknown, unknown, nothing)


def found(given, *, learn=None, part=None, right=None):
    part = np.arange(N) % 2 if part is None else part
    learn = np.ones(N, dtype=bool) if learn is None else learn
    return copies(views(given), learn, part, predictions(range(N), np.ones(N, dtype=bool) if right is None else right))


def test_rows_of_different_inputs_are_no_copies():
    assert found(range(N)) == {"rows": 0, "of": N, "score": None}


def test_equal_rows_of_two_parts_are_copies_those_of_one_part_are_not():
    given = np.arange(N)
    given[1] = given[0]
    given[4] = given[2]
    assert found(given)["rows"] == 2


def test_one_input_that_differs_makes_another_row():
    given = views(np.zeros(N))
    given["image"] = np.arange(N, dtype=np.float32)[:, None]
    everyone = np.ones(N, dtype=bool)
    assert copies(given, everyone, np.arange(N) % 2, predictions(range(N), everyone))["rows"] == 0


def test_a_copy_that_nothing_learns_from_is_no_copy():
    given = np.arange(N)
    given[1] = given[0]
    learn = np.ones(N, dtype=bool)
    learn[1] = False
    assert found(given, learn=learn)["rows"] == 1  # row 1 is scored by a model of row 0


def test_the_score_of_the_others_is_given_where_they_are_enough():
    given, right = np.arange(N), np.zeros(N, dtype=bool)
    given[1:20] = given[0]
    right[:20] = True
    assert found(given, right=right) == {"rows": 20, "of": N, "score": 0.0}
    given[:41] = 0
    assert found(given, right=right) == {"rows": 41, "of": N, "score": None}
    assert found(np.zeros(N), part=np.zeros(N))["rows"] == 0


@pytest.mark.parametrize("value", [3.0, np.nan])
def test_numbers_without_variance_have_no_score(value):
    given = np.arange(N)
    given[1] = given[0]
    unknown, nothing = np.full(N, np.nan), as_objects([None] * N)
    labels = as_objects([value] * N)
    said = Predictions("regression", np.arange(N), labels, as_objects([1.0] * N), unknown, unknown, nothing)
    assert copies(views(given), np.ones(N, dtype=bool), np.arange(N) % 2, said)["score"] is None
