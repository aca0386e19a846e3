import pytest

from barycenter.tasks.report.rendering import judge, verdict
from tests.language.sentences import long_sentences

from .conftest import candidates


def probed(text, image, fused, concat, gain=None, found=True, **more):
    """A probe whose interval of the gain over the best input is ``gain`` wide to each side."""
    scores = candidates(text, image, fused, concat)
    best = max(text, image)
    probe = {"metric": "accuracy", "n_test": 400, "baseline": 0.1, "candidates": scores, "signal": {"found": found}}
    if gain is not None:
        ends = {"mean": fused - best, "low": fused - best - gain, "high": fused - best + gain}
        probe["gaps"] = {"complete, best input": {"against": "text" if text >= image else "image"} | ends}
    return {"probe": probe | more}


def test_everything_is_reported_in_short_sentences(report):
    assert verdict(report) == (
        "Averaging helped: the fused vector has 70.1 % accuracy, 39.4 points (+37.0 to +42.0) above the best single "
        "input (image, 30.7 %). It is level with concatenation within noise (−1.0 point, −1.8 to +0.2). "
        "Without text it is level with image alone. Without image it is level with text alone."
    )
    assert not long_sentences(verdict(report))


def test_sentences_are_short_with_every_interval():
    names = ("a", "b", "c")
    conditions = ["complete", *(f"without {name}" for name in names)]
    scores = {name: dict.fromkeys(conditions, 0.5 - 0.01 * place) for place, name in enumerate(names)}
    against = {"complete, best input": "a", "complete": "concat", "without a": "b", "without b": "a", "without c": "a"}
    gaps = {title: {"against": name, "mean": 0.1, "low": -0.05, "high": 0.2} for title, name in against.items()}
    for name in names:
        scores[name][f"without {name}"] = 0.1
    scores |= {"fused": dict.fromkeys(conditions, 0.6), "concat": dict.fromkeys(conditions, 0.45)}
    sentence = verdict({"probe": {"metric": "accuracy", "gaps": gaps, "candidates": scores}})
    assert sentence.count("within noise") == 5
    assert not long_sentences(sentence)


@pytest.mark.parametrize(
    ("fused", "gain", "tone"),
    [(0.80, 0.05, "good"), (0.51, 0.05, "even"), (0.50, 0.05, "even"), (0.30, 0.05, "bad"), (0.51, 0.005, "good")],
)
def test_tone_follows_what_the_rows_can_show(fused, gain, tone):
    judged = judge(probed(0.5, 0.4, fused, 0.6, gain))
    assert judged.tone == tone
    assert judged.sentence.startswith(judged.headline + ":")


@pytest.mark.parametrize(
    ("gap", "tone", "headline"),
    [((-0.15, -0.02), "bad", "Averaging lost against concatenation"),
     ((-0.15, 0.02), "even", "Averaging made no measurable difference")],
)  # fmt: skip
def test_what_is_level_with_an_input_and_below_concatenation_lost(gap, tone, headline):
    report = probed(0.5, 0.4, 0.51, 0.6, 0.05)
    low, high = gap
    report["probe"]["gaps"]["complete"] = {"against": "concat", "mean": (low + high) / 2, "low": low, "high": high}
    judged = judge(report)
    assert (judged.tone, judged.headline) == (tone, headline)


def test_what_an_interval_cannot_tell_is_called_noise():
    sentence = verdict(probed(0.5, 0.4, 0.51, 0.6, 0.05))
    assert "level with the best single input (text, 50.0 %) within noise (+1.0 point, −4.0 to +6.0)" in sentence


def test_without_an_interval_nothing_is_claimed():
    judged = judge(probed(0.5, 0.4, 0.8, 0.6))
    assert judged.tone == "open"
    assert "helped" not in judged.sentence


def test_the_cross_validated_evidence_decides():
    crossed = probed(0.5, 0.4, 0.51, 0.5, 0.005)["probe"]
    assert judge(probed(0.5, 0.4, 0.51, 0.5, 0.05, cross_validated=crossed)).tone == "good"
    assert judge(probed(0.5, 0.4, 0.51, 0.5, 0.005, cross_validated={"candidates": {}})).tone == "good"


def test_chance_is_no_win():
    judged = judge(probed(0.09, 0.11, 0.14, 0.11, 0.01, found=False))
    assert judged.tone == "none"
    assert judged.sentence == (
        "No signal: neither an input alone nor any average does better than the most frequent label alone (10.0 %); "
        "what the best of them reaches (fused, 14.0 %) is within chance."
    )


def test_regression_on_noise_is_no_win():
    report = probed(-0.02, 0.0, 0.01, -0.3, 0.005, found=False, metric="r2")
    assert verdict(report) == (
        "No signal: neither an input alone nor any average does better than the mean; "
        "what the best of them reaches (fused, 0.010) is within chance."
    )


def test_regression_says_r2_without_per_cent():
    sentence = verdict(probed(0.2, 0.3, 0.6, 0.6, 0.1, metric="r2"))
    assert "0.600 R², 0.300 (+0.200 to +0.400) above the best single input (image, 0.300). It is level with" in sentence
    assert "%" not in sentence


def test_many_inputs_withheld_are_reported_in_one_clause():
    names = ["a", "b", "c", "d"]
    conditions = ["complete", *(f"without {name}" for name in names)]
    scores = {name: dict.fromkeys(conditions, 0.5) for name in [*names, "concat"]}
    scores["fused"] = dict.fromkeys(conditions, 0.7) | {"without b": 0.4}
    gaps = {c: {"against": "a", "mean": 0.2, "low": 0.1, "high": 0.3} for c in conditions[1:]}
    gaps["without b"] = {"against": "a", "mean": -0.1, "low": -0.2, "high": -0.05}
    sentence = verdict({"probe": {"metric": "accuracy", "candidates": scores, "gaps": gaps}})
    assert sentence.endswith(
        "With one of the 4 inputs withheld it keeps at least 40.0 %, above the best input left in 3 of 4 cases "
        "and below it in 1."
    )


def test_labels_that_no_complete_row_has_leave_retrieval_to_tell(report):
    report["probe"] = {"metric": "accuracy", "n_test": 0, "candidates": {}, "baseline": None}
    assert verdict(report).startswith("No labeled held-out row has all inputs, so only retrieval can tell")


def test_one_input_is_not_called_an_average():
    report = {
        "probe": {"metric": "accuracy", "n_test": 9, "candidates": {"text": {"complete": 1}, "fused": {"complete": 1}}}
    }
    assert verdict(report) == "There is one input, so nothing was averaged: the fused vector has 100.0 % accuracy."


def test_of_one_input_it_is_said_what_a_smaller_dimension_costs():
    scores = {"text": {"complete": 0.72}, "concat": {"complete": 0.72}, "fused": {"complete": 0.7}}
    report = {
        "probe": {
            "metric": "accuracy", "n_test": 900, "candidates": scores,
            "gaps": {"complete": {"against": "concat", "mean": -0.02, "low": -0.03, "high": -0.01}},
        },
        "alignment": {"dim": 16, "variance_kept": {"input": "text", "of": 64, "share": 0.931}},
    }  # fmt: skip
    kept = "16 dimensions keep 93.1 % of the variance of text's 64"
    assert verdict(report) == (
        "There is one input, so nothing was averaged: the fused vector has 70.0 % accuracy. "
        f"Its {kept}; the score is 2.0 points (−3.0 to −1.0) below that of the whole text vector."
    )
    del report["probe"]
    assert verdict(report) == (
        f"Nothing to judge by: no target was given, and there is no retrieval. The fused vector's {kept}."
    )


def test_without_target_retrieval_is_reported(report):
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
