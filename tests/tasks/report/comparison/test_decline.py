"""A version that scores less than the one before it is not taken without a word."""

import numpy as np
import pytest

from barycenter.tasks.report.comparison.decline import decline
from tests.tasks.report.comparison.test_scores import report, scored

LINEAGE = {"lineage": {"report_id": "r1"}}


@pytest.fixture
def said(outputs, keys, vectors):
    """What is said of a version that predicts some of sixty rows right, after one that predicts some right."""

    def of(before, after):
        reports = [report(right.mean(), 0.13) | LINEAGE for right in (before, after)]
        sides = [outputs.commit(keys, vectors + at, report=each) for at, each in enumerate(reports)]
        for side, right in zip(sides, (before, after), strict=True):
            scored(side, keys, right)
        return decline(outputs.storage, sides[1].manifest, reports[1] | {"version": sides[1].manifest.version})

    return of


def test_fewer_rows_right_is_said_with_its_interval_and_the_way_back(said, outputs):
    right = np.arange(60) % 4 != 0
    (sentence,) = said(right, right & (np.arange(60) % 3 != 0))
    assert sentence.startswith("the fused vector scores less than in version 1: \N{MINUS SIGN}25.0 points (")
    root = outputs.storage.root
    assert sentence.endswith(
        f"on the same 60 rows; `barycenter compare {root}@1 {root}@2` says what changed, "
        f"`barycenter rollback {root} 1` shows readers that version again"
    )


@pytest.mark.parametrize("lost", [0, 1])
def test_what_chance_explains_and_what_is_better_is_not_said(said, lost):
    right = np.arange(60) % 4 != 0
    other = right & (np.arange(60) >= 3 * lost)
    assert said(right, other if lost else np.ones(60, bool)) == []


def test_a_first_version_has_none_before_it(outputs, keys, vectors):
    side = outputs.commit(keys, vectors, report=report(0.5, 0.1) | LINEAGE)
    assert decline(outputs.storage, side.manifest, side.report) == []
