"""A version that scores less than an earlier one is not taken without a word."""

import shlex

import numpy as np
import pytest

from barycenter.infra.versions.commit import promote_version
from barycenter.infra.versions.lease import hold
from barycenter.infra.versions.manifests import report_path, scored_rows_path
from barycenter.tasks.report.comparison.decline import decline
from tests.tasks.report.comparison.conftest import Versions
from tests.tasks.report.comparison.test_scores import report, scored

LINEAGE = {"lineage": {"report_id": "r1"}}
RIGHT = np.arange(60) % 4 != 0
FEWER = RIGHT & (np.arange(60) % 3 != 0)


@pytest.fixture
def outputs(tmp_path):
    return Versions(tmp_path / "an output")


@pytest.fixture
def commit(outputs, keys, vectors):
    """Commits a version that predicts some of sixty rows right; what is said of it, again at each call."""

    def made(right, **more):
        right = np.asarray(right)
        given = report(float(right.mean()), 0.13) | LINEAGE
        side = outputs.commit(keys, vectors + right.sum(), report=given, **more)
        scored(side, keys, right)
        return lambda: decline(outputs.storage, side.manifest, given | {"version": side.manifest.version})

    return made


def test_fewer_rows_right_is_said_with_its_interval_and_a_way_back_that_can_be_pasted(commit, outputs):
    commit(RIGHT)
    (sentence,) = commit(FEWER)()
    assert sentence.startswith("the fused vector has less accuracy than in version 1: \N{MINUS SIGN}25.0 points (")
    root, one, other = (shlex.quote(outputs.storage.root + end) for end in ("", "@1", "@2"))
    assert root[0] == "'"
    assert sentence.endswith(
        f" on the same 60 rows; `barycenter compare {one} {other}` has both side by side, "
        f"`barycenter rollback {root} 1` shows readers that version again"
    )


@pytest.mark.parametrize("other", [RIGHT, RIGHT & (np.arange(60) >= 3), np.ones(60, bool)], ids=["same", "two", "more"])
def test_what_chance_explains_and_what_is_better_is_not_said(commit, other):
    assert commit(RIGHT)() == []
    assert commit(other)() == []


def test_where_readers_do_not_see_it_no_rollback_is_named(commit, outputs):
    commit(RIGHT)
    said = commit(FEWER, promote="manual")
    assert said()[0].endswith("; readers do not see this one")
    with hold(outputs.storage, "test") as lease:
        promote_version(outputs.storage, 2, lease)
    assert said()[0].endswith(" shows readers that version again")


def test_after_a_rollback_the_version_that_it_showed_counts(commit, outputs):
    commit(RIGHT)
    commit(FEWER)
    with hold(outputs.storage, "test") as lease:
        promote_version(outputs.storage, 1, lease)
    (sentence,) = commit(FEWER & (np.arange(60) != 1))()
    assert "than in version 1: " in sentence


@pytest.mark.parametrize("content", [b'{"version": ', b"[1]"])
def test_a_damaged_report_of_the_version_before_is_named_and_no_error(commit, outputs, content):
    commit(RIGHT)
    outputs.storage.write(report_path("v1"), content)
    (sentence,) = commit(FEWER)()
    assert sentence.startswith("whether the fused vector scores less than in the version before is not known: ")
    assert f"{outputs.storage.uri(report_path('v1'))} is damaged" in sentence


def test_without_scores_of_single_rows_nothing_is_said(commit, outputs):
    commit(RIGHT)
    outputs.storage.write(scored_rows_path("v1"), b"PAR1")
    assert commit(FEWER)() == []
