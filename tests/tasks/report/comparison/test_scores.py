import numpy as np
import pytest

from barycenter.tasks.report.comparison.scores import compared_figures, independent_difference
from barycenter.tasks.report.probing import Probed
from barycenter.tasks.report.scored_rows import write_scored_rows


def report(score, reach, *, metric="accuracy", n=400, r10=0.5):
    probe = {
        "metric": metric,
        "n_test": n,
        "candidates": {"text": {"complete": 0.4}, "fused": {"complete": score, "without text": score - 0.1}},
        "intervals": {"fused": {"complete": [score - reach, score + reach]}},
    }
    return {"probe": probe, "retrieval": {"n": n, "a->b": {"r10": r10}, "chance_r10": 10 / n}}


@pytest.fixture
def sides(outputs, keys, vectors):
    def made(one, other, **more):
        return outputs.commit(keys, vectors, report=one), outputs.commit(keys, vectors + 1, report=other, **more)

    return made


def test_a_difference_within_noise_is_called_so(sides):
    before, after = sides(report(0.70, 0.03), report(0.72, 0.03))
    found = compared_figures(before, after, notes := [])
    entry = found["scores"]["fused"]["complete"]
    assert entry["before"] == [0.70, pytest.approx(0.67), pytest.approx(0.73)]
    assert entry["difference"]["mean"] == pytest.approx(0.02)
    assert entry["difference"]["within_noise"] is True
    assert entry["difference"]["high"] - entry["difference"]["mean"] == pytest.approx(np.hypot(0.03, 0.03))
    assert (found["metric"], found["how"], found["n"], found["paired"]) == ("accuracy", "held out", [400, 400], None)
    (note,) = notes
    assert note.startswith("differences of scores are not paired: scores of single rows, held out, are not kept on")
    assert note.endswith("out@1 and " + after.name + "; `barycenter report` writes them")


def test_a_difference_above_noise_is_none(sides):
    found = compared_figures(*sides(report(0.70, 0.02), report(0.78, 0.02)), [])
    assert found["scores"]["fused"]["complete"]["difference"]["within_noise"] is False
    assert found["scores"]["fused"]["without text"]["difference"] == {
        "mean": pytest.approx(0.08), "low": None, "high": None, "within_noise": None
    }  # fmt: skip


def test_independent_intervals_cover_the_true_difference():
    rng = np.random.default_rng(0)
    n, inside = 400, 0
    for _ in range(500):
        shares = [(rng.random(n) < rate).mean() for rate in (0.6, 0.7)]
        triples = [(s, s - 1.96 * np.sqrt(s * (1 - s) / n), s + 1.96 * np.sqrt(s * (1 - s) / n)) for s in shares]
        found = independent_difference(*triples)
        inside += found["low"] <= 0.1 <= found["high"]
    assert 0.92 <= inside / 500 <= 0.98


def test_out_of_fold_scores_are_taken_where_both_have_them(sides):
    one, other = report(0.7, 0.02), report(0.7, 0.02)
    for each in (one, other):
        each["probe"]["cross_validated"] = report(0.8, 0.01, n=2000)["probe"]
    before, after = sides(one, other)
    assert compared_figures(before, after, [])["how"] == "out of fold"
    del after.report["probe"]["cross_validated"]
    found = compared_figures(before, after, [])
    assert found["how"] == "held out"
    assert found["scores"]["fused"]["complete"]["before"][0] == 0.7


def test_retrieval_is_compared_by_its_shares(sides):
    found = compared_figures(*sides(report(0.7, 0.1, r10=0.5), report(0.7, 0.1, r10=0.8)), [])["retrieval"]
    assert found["a->b"]["before"] == 0.5
    assert found["a->b"]["difference"]["within_noise"] is False
    found = compared_figures(*sides(report(0.7, 0.1, r10=0.5), report(0.7, 0.1, r10=0.52)), [])["retrieval"]
    assert found["a->b"]["difference"]["within_noise"] is True


def test_what_cannot_be_compared_is_said(sides):
    assert compared_figures(*sides(report(0.7, 0.1), None), notes := []) is None
    assert "no report on" in notes[0]
    found = compared_figures(*sides(report(0.7, 0.1), report(0.7, 0.1, metric="r2")), notes := [])
    assert "scores" not in found
    assert notes == ["the metrics are accuracy and r2, so scores are not compared"]
    found = compared_figures(*sides(report(0.7, 0.1), {"retrieval": {}}), notes := [])
    assert "has no scores" in notes[0]
    before, after = sides(report(0.7, 0.1), report(0.7, 0.1))
    before.manifest.settings["train"] = {"target": "label"}
    after.manifest.settings["train"] = {"target": "price"}
    compared_figures(before, after, notes := [])
    assert notes == ["the targets are label and price, so scores are not compared"]


def scored(side, keys, right, *, crossed=False, report_id="r1", groups=None):
    """Scores of single rows behind the report of a side."""
    side.report["lineage"] = {"report_id": report_id}
    figures = {"cross_validated": {}} if crossed else {}
    scores = {"fused": {"complete": np.asarray(right, float)}}
    probed = Probed(figures, None, np.arange(len(keys)), scores)
    report = {"lineage": {"report_id": "r1"}}
    write_scored_rows(side.storage, side.manifest.version, report, probed, keys, groups or keys)


def test_on_the_same_rows_the_difference_is_paired(sides, keys):
    before, after = sides(report(0.5, 0.13), report(0.6, 0.13))
    right = np.arange(60) % 2 == 0
    scored(before, keys, right)
    scored(after, keys[::-1], (right | (np.arange(60) % 10 == 1))[::-1])
    found = compared_figures(before, after, notes := [])
    assert (found["paired"], notes) == (60, [])
    gap = found["scores"]["fused"]["complete"]["difference"]
    assert gap["mean"] == pytest.approx(0.1)
    assert 0 < gap["low"] < gap["high"] < 0.2
    assert gap["within_noise"] is False
    independent = independent_difference((0.5, 0.37, 0.63), (0.6, 0.47, 0.73))
    assert independent["within_noise"] is True
    assert found["scores"]["fused"]["without text"]["difference"]["low"] is None


def test_rows_of_one_group_are_drawn_together(sides, keys):
    before, after = sides(report(0.5, 0.13), report(0.6, 0.13))
    gained = np.arange(60) < 6
    reach = []
    for groups in (keys, [f"g{row // 6}" for row in range(60)]):
        scored(before, keys, np.zeros(60), groups=groups)
        scored(after, keys, gained, groups=groups)
        gap = compared_figures(before, after, [])["scores"]["fused"]["complete"]["difference"]
        reach.append(gap["high"] - gap["low"])
    assert reach[1] > 2 * reach[0]


def test_where_few_rows_are_the_same_nothing_is_paired(sides, keys):
    before, after = sides(report(0.5, 0.13), report(0.6, 0.13))
    scored(before, keys, np.ones(60))
    scored(after, keys[35:] + [f"new {at}" for at in range(35)], np.ones(60))
    found = compared_figures(before, after, notes := [])
    assert found["paired"] is None
    assert notes == ["differences of scores are not paired: of 60 and 60 scored rows only 25 are the same"]


def test_scores_of_another_report_or_of_other_folds_are_not_paired(sides, keys):
    before, after = sides(report(0.5, 0.13), report(0.6, 0.13))
    scored(before, keys, np.ones(60))
    scored(after, keys, np.ones(60), report_id="r2")
    assert compared_figures(before, after, notes := [])["paired"] is None
    assert f"are not kept on {after.name};" in notes[0]
    scored(after, keys, np.ones(60), crossed=True)
    assert compared_figures(before, after, [])["paired"] is None
    scored(after, keys, np.ones(60))
    assert compared_figures(before, after, [])["paired"] == 60
    write_scored_rows(after.storage, after.manifest.version, {}, None, keys, keys)
    assert compared_figures(before, after, [])["paired"] is None
