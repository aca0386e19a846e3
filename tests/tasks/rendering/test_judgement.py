import pytest

from tasks.rendering import judge, verdict

from .conftest import candidates


def probed(text, image, fused, concat, n=400, **more):
    scores = candidates(text, image, fused, concat)
    return {"probe": {"metric": "accuracy", "n_test": n, "baseline": 0.1, "candidates": scores, **more}}


def test_everything_is_told_in_one_sentence(report):
    assert verdict(report) == (
        "Averaging helped: the fused vector has 70.1 % accuracy, 39.4 points above the best single input "
        "(image, 30.7 %) and 1.0 point below concatenation; without text it is level with image alone; "
        "without image it is level with text alone."
    )


@pytest.mark.parametrize(
    ("fused", "n", "tone"),
    [(0.80, 400, "good"), (0.51, 400, "even"), (0.50, 400, "even"), (0.30, 400, "bad"), (0.51, 100_000, "good")],
)
def test_tone_follows_what_the_rows_can_show(fused, n, tone):
    judged = judge(probed(0.5, 0.4, fused, 0.6, n))
    assert judged.tone == tone
    assert judged.sentence.startswith(judged.headline + ":")


def test_an_interval_decides_where_there_is_one():
    scores = candidates(0.5, 0.4, 0.51, 0.5)
    gaps = {"complete": {"against": "text", "mean": 0.01, "low": 0.002, "high": 0.02}}
    crossed = {"n_test": 400, "candidates": scores, "gaps": gaps}
    assert judge(probed(0.5, 0.4, 0.51, 0.5, cross_validated=crossed)).tone == "good"
    gaps["complete"]["low"] = -0.002
    assert judge(probed(0.5, 0.4, 0.51, 0.5, cross_validated=crossed)).tone == "even"


def test_chance_is_no_win():
    judged = judge(probed(0.09, 0.11, 0.12, 0.11))
    assert judged.tone == "none"
    assert judged.sentence.startswith("No signal: nothing does better than the most frequent label alone (10.0 %)")


def test_regression_on_noise_is_no_win():
    report = {
        "probe": {"metric": "r2", "n_test": 400, "baseline": -0.01, "candidates": candidates(-0.02, 0.0, 0.01, -0.3)}
    }
    assert verdict(report) == (
        "No signal: nothing does better than the mean, neither an input alone nor any average; "
        "the best reaches 0.010 R²."
    )


def test_regression_tells_r2_without_per_cent():
    report = {"probe": {"metric": "r2", "n_test": 400, "candidates": candidates(0.2, 0.3, 0.6, 0.6)}}
    sentence = verdict(report)
    assert "0.600 R², 0.300 above the best single input (image, 0.300) and level with concatenation" in sentence
    assert "%" not in sentence


def test_one_input_is_not_called_an_average():
    report = {
        "probe": {"metric": "accuracy", "n_test": 9, "candidates": {"text": {"complete": 1}, "fused": {"complete": 1}}}
    }
    assert verdict(report) == "There is one input, so nothing was averaged: the fused vector has 100.0 % accuracy."


def test_without_target_retrieval_is_told(report):
    del report["probe"]
    judged = judge(report)
    assert judged.tone == "open"
    assert (
        "79.0 % of the time text → image and 77.5 % of the time image → text, at least 28 times chance"
        in judged.sentence
    )


def test_retrieval_at_chance_is_no_signal():
    judged = judge({"retrieval": {"n": 400, "a->b": {"r10": 0.03}, "b->a": {"r10": 0.02}, "chance_r10": 0.025}})
    assert judged.tone == "none"
    assert "no better than chance (2.5 %)" in judged.sentence


@pytest.mark.parametrize(
    "report", [{}, {"probe": None}, {"probe": {"candidates": {}}}, {"retrieval": {"chance_r10": 1}}]
)
def test_an_empty_report_claims_nothing(report):
    assert judge(report).tone == "open"
