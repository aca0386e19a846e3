import json
from dataclasses import replace

import numpy as np
import pytest

from barycenter.fusion.evaluation.mistakes import Predictions
from barycenter.fusion.heads.targets import as_objects
from barycenter.tasks.report.examples import ShownRows
from barycenter.tasks.report.mistakes import error_examples, mistakes_section, residual_points

ROWS = np.array([50, 7, 20, 41])


@pytest.fixture
def predictions():
    """Four rows of sixty; 50 and 7 are wrong, 7 more confidently."""
    return Predictions(
        "classification", ROWS, as_objects(["a", "b", "a", "b"]), as_objects(["b", "a", "a", "b"]),
        np.array([0.7, 0.99, 0.8, 0.9]), np.array([0.3, 0.004, 0.8, 0.9]), as_objects([None] * 4),
    )  # fmt: skip


@pytest.fixture
def numbers(predictions):
    said = as_objects([1.0, 2.0, 3.0, 4.0])
    unknown = np.full(4, np.nan)
    return replace(
        predictions, task="regression", labels=as_objects([1.5, 2.0, -7.0, 4.1]), predicted=said, certainty=unknown,
        own=unknown,
    )  # fmt: skip


@pytest.fixture
def shown(run):
    fused = np.ones((60, 3), np.float32)
    labels = as_objects([f"c{row}" for row in range(60)])
    keys = [f"k{row}" for row in range(60)]
    return ShownRows(run.shards, keys, fused, labels, keys, np.ones(60, dtype=bool))


def test_wrong_rows_are_named_by_key_the_surest_first(predictions, shown):
    found = mistakes_section(predictions, shown.keys, shown.keys, crossed=True)
    assert (found["how"], found["n"], found["wrong"]) == ("out of fold", 4, 2)
    assert [line["key"] for line in found["worst"]] == ["k7", "k50"]
    assert found["worst"][0] == {
        "key": "k7", "label": "b", "predicted": "a", "certainty": 0.99, "probability": 0.004
    }  # fmt: skip
    assert found["doubtful"]["n"] == 1
    assert [line["key"] for line in found["doubtful"]["rows"]] == ["k7"]
    assert json.loads(json.dumps(found)) == found
    assert mistakes_section(predictions, shown.keys, shown.keys, crossed=False)["how"] == "held out"


def test_errors_are_shown_with_what_their_row_holds(run, predictions, shown):
    first, second = error_examples(run, shown, predictions)
    assert (first["key"], first["text"], first["label"], first["predicted"]) == ("k7", "row 7", "c7", "a")
    assert first["certainty"] == 0.99
    assert "thumbnail" not in first  # its picture is broken
    assert second["key"] == "k50"
    assert len(second["thumbnail"]) > 100


def test_of_numbers_the_largest_residuals_are_shown(run, numbers, shown):
    found = mistakes_section(numbers, shown.keys, shown.keys, crossed=True)
    assert found["worst"][0] == {"key": "k20", "label": -7.0, "predicted": 3.0, "residual": -10.0}
    assert [line["key"] for line in found["doubtful"]["rows"]] == ["k20"]
    first = error_examples(run, shown, numbers)[0]
    assert (first["key"], first["residual"], first["predicted"]) == ("k20", -10.0, "3")
    assert json.loads(json.dumps(found)) == found


def test_points_of_a_regression_pair_prediction_and_residual(numbers, predictions):
    found = residual_points(numbers)
    assert sorted(zip(found["predicted"], found["residual"], strict=True)) == [
        (1.0, 0.5), (2.0, 0.0), (3.0, -10.0), (4.0, pytest.approx(0.1))
    ]  # fmt: skip
    assert residual_points(predictions) == {}


def test_labels_of_a_set_are_shown_as_one(run, predictions, shown):
    several = replace(
        predictions, task="multilabel", labels=as_objects([["x"], ["x", "y"], [], ["y"]]),
        predicted=as_objects([[], ["x"], [], ["y"]]), part=as_objects(["x", "y", "x", "x"]),
    )  # fmt: skip
    found = mistakes_section(several, shown.keys, shown.keys, crossed=True)
    assert found["worst"][0]["label"] == ["x", "y"]
    assert found["worst"][0]["part"] == "y"
    assert [line["label"] for line in found["labels"]] == ["x", "y"]
    assert error_examples(run, shown, several)[1]["predicted"] == "nothing"
    assert json.loads(json.dumps(found)) == found
