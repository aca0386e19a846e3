import numpy as np
import pytest

from barycenter.tasks.report.comparison.scores import compared_figures, independent_difference


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
    assert (found["metric"], found["how"], found["n"]) == ("accuracy", "held out", [400, 400])
    assert notes == []


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
