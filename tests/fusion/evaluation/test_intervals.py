import json

import numpy as np
import pytest
from scipy import stats

from barycenter.fusion.evaluation.intervals import evidence

INPUTS = ["text", "image"]
CONDITIONS = ["complete", "without text", "without image"]


def scored(rates, n=400, seed=0):
    """Right or wrong at random, at a rate by candidate."""
    rng = np.random.default_rng(seed)
    return {
        name: {condition: (rng.random(n) < rate).astype(float) for condition in CONDITIONS}
        for name, rate in rates.items()
    }


def constant(rate, n=400, seed=99):
    return (np.random.default_rng(seed).random(n) < rate).astype(float)


def test_every_score_lies_in_its_interval_and_gaps_follow_the_pairs():
    scores = scored({"text": 0.3, "image": 0.5, "concat": 0.8, "fused": 0.8})
    result = evidence(scores, constant(0.1), INPUTS, range(400))
    for name, by in scores.items():
        for condition, values in by.items():
            low, high = result["intervals"][name][condition]
            assert low < values.mean() < high
            assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    gaps = result["gaps"]
    assert [gap["against"] for gap in gaps.values()] == ["concat", "image", "image", "text"]
    gain = gaps["complete, best input"]
    assert gain["low"] > 0.2
    assert gain["mean"] == pytest.approx((scores["fused"]["complete"] - scores["image"]["complete"]).mean(), abs=1e-12)
    assert result["signal"]["found"]
    assert json.loads(json.dumps(result)) == result


def test_rows_that_go_together_widen_the_interval():
    scores = {name: {"complete": np.repeat(by["complete"][:100], 4)} for name, by in scored({"a": 0.5}).items()}
    scores |= {"fused": scores["a"], "concat": scores["a"]}
    alone = evidence(scores, constant(0.1), ["a"], range(400))["intervals"]["a"]["complete"]
    grouped = evidence(scores, constant(0.1), ["a"], np.arange(400) // 4)["intervals"]["a"]["complete"]
    assert grouped[1] - grouped[0] == pytest.approx(2 * (alone[1] - alone[0]), rel=0.1)


def test_the_best_of_many_noises_is_no_signal():
    rates = dict.fromkeys(["text", "image", "naive_mean", "pca_mean", "concat", "concat_imputed", "fused"], 0.1)
    found = [
        evidence(scored(rates, 300, seed), constant(0.1, 300, 1000 + seed), INPUTS, range(300))["signal"]["found"]
        for seed in range(100)
    ]
    assert sum(found) <= 7
    assert (
        evidence(scored(rates | {"fused": 0.25}), constant(0.1), INPUTS, range(400))["signal"]["candidate"] == "fused"
    )


def test_a_target_without_variance_has_no_evidence():
    scores = {name: {"complete": np.full(5, np.nan)} for name in ("a", "concat", "fused")}
    assert evidence(scores, np.full(5, np.nan), ["a"], range(5)) == {}


def test_a_single_group_is_no_evidence():
    scores = scored({"text": 0.3, "image": 0.5, "concat": 0.8, "fused": 0.8})
    assert evidence(scores, constant(0.1), INPUTS, ["same"] * 400) == {}
    assert evidence(scores, constant(0.1), INPUTS, ["one", *["other"] * 399])["intervals"]


def test_an_input_is_worth_what_is_lost_without_it():
    scores = scored({"text": 0.3, "image": 0.5, "concat": 0.8, "fused": 0.8})
    scores["fused"]["without text"] = scores["fused"]["complete"]
    scores["fused"]["without image"] = scores["image"]["complete"] * 0
    worth = evidence(scores, constant(0.1), INPUTS, range(400))["worth"]
    assert worth["text"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
    assert worth["image"]["mean"] == pytest.approx(scores["fused"]["complete"].mean())
    assert 0 < worth["image"]["low"] < worth["image"]["mean"] < worth["image"]["high"]


def test_one_input_has_no_worth_beside_others():
    scores = {
        name: {"complete": by["complete"]} for name, by in scored({"a": 0.5, "concat": 0.5, "fused": 0.5}).items()
    }
    assert evidence(scores, constant(0.1), ["a"], range(400))["worth"] == {}


@pytest.mark.parametrize("groups", [5, 100])
def test_without_a_mistake_the_interval_is_that_of_wilson(groups):
    right, wrong = {"complete": np.ones(200)}, {"complete": np.zeros(200)}
    scores = {"a": right, "concat": wrong, "fused": right}
    result = evidence(scores, np.zeros(200), ["a"], np.arange(200) % groups)
    reach = stats.binomtest(0, groups).proportion_ci(method="wilson").high
    assert result["intervals"]["fused"]["complete"] == pytest.approx([1 - reach, 1.0])
    assert result["intervals"]["concat"]["complete"] == pytest.approx([0.0, reach])
    gap = result["gaps"]["complete"]
    assert (gap["mean"], gap["high"]) == (1.0, 1.0)
    assert gap["low"] == pytest.approx(max(-1, 1 - 2**0.5 * reach))
    assert result["signal"]["found"]


def test_the_difference_of_two_scores_without_a_mistake_has_a_width():
    right = {condition: np.ones(50) for condition in CONDITIONS}
    result = evidence(dict.fromkeys(["text", "image", "concat", "fused"], right), constant(0.5, 50), INPUTS, range(50))
    reach = stats.binomtest(0, 50).proportion_ci(method="wilson").high
    assert result["worth"]["text"] == pytest.approx({"mean": 0.0, "low": -reach, "high": reach})
