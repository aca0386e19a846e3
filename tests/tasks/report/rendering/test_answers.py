import copy
import json

import pytest

from barycenter.tasks.report.rendering import answers
from barycenter.tasks.report.rendering.answers import findings, mistakes_sentence, score_answer


def about(report):
    return {finding["about"]: finding for finding in findings(report)}


def gap(mean, reach=0.01):
    return {"mean": mean, "low": mean - reach, "high": mean + reach}


def test_the_score_stands_beside_the_guess_the_best_input_and_the_ceiling(report):
    found = score_answer(report)
    assert found["sentence"] == (
        "The fused vector gets 70.1 % of the 1,815 rows right (95 % interval 68.0 to 72.0). The most frequent label "
        "alone gets 11.0 %, the best single input (image) 30.7 %. No model can pass 95.0 % here: 52 rows have the "
        "inputs of another row with another label. So it covers 70 % of the way from that guess to the most that is "
        "possible."
    )
    assert (found["score"], found["low"], found["high"], found["n"]) == (0.701, 0.68, 0.72, 1815)
    assert (found["constant"], found["ceiling"]) == (0.11, 0.95)
    assert found["best_input"] == {"name": "image", "score": 0.307}
    assert found["share_of_the_way"] == pytest.approx((0.701 - 0.11) / (0.95 - 0.11))


def test_without_a_known_ceiling_the_way_ends_at_no_mistake(report):
    report["probe"]["ceiling"] = None
    sentence = score_answer(report)["sentence"]
    assert "No model can" not in sentence
    assert sentence.endswith("So it covers 66 % of the way from that guess to no mistake at all.")


def test_copies_that_were_learned_from_are_said_beside_the_score(report):
    assert "copies" not in about(report)
    report["probe"]["copies"] = {"rows": 120, "of": 1815, "score": 0.655}
    assert (
        "120 of these rows have the inputs of a row that was learned from; without them the score is 65.5 %."
        in (score_answer(report)["sentence"])
    )
    start = "Equal rows are learned from and scored, so the score is too good for new rows. To keep them on one side, "
    assert (
        findings(report)[0]["sentence"] == f"{start}name a column that they share in train.group_by (`design` is none)."
    )
    report["split"] = {"by": "fold"}
    assert findings(report)[0]["sentence"] == f"{start}name a column that they share in train.group_by."
    del report["probe"]["cross_validated"]
    assert findings(report)[0]["sentence"].endswith("train.group_by, or give them one value of `fold`.")
    report["probe"]["copies"] = {"rows": 1, "of": 363, "score": None}
    assert " 1 of these rows has the inputs of a row that was learned from." in score_answer(report)["sentence"]
    report["probe"]["copies"] = {"rows": 0, "of": 363, "score": None}
    assert "copies" not in about(report)
    assert "learned from" not in score_answer(report)["sentence"]


def test_no_signal_is_no_better_than_the_guess(report):
    for probe in (report["probe"], report["probe"]["cross_validated"]):
        probe["signal"]["found"] = False
    found = score_answer(report)
    assert found["share_of_the_way"] is None
    assert found["sentence"].endswith("That is no better than the guess.")
    assert set(about(report)) == {"labels"}, "more rows are no promise either"
    report["mistakes"]["doubtful"] = {"n": 0, "rows": []}
    assert about(report) == {}, "a model that knows nothing finds no label right either"


def test_a_regression_is_explained_variance_and_the_size_of_errors():
    scores = {"text": {"complete": 0.3}, "image": {"complete": 0.2}, "fused": {"complete": 0.6}}
    report = {
        "probe": {"metric": "r2", "task": "regression", "n_test": 200, "baseline": -0.002, "candidates": scores},
        "mistakes": {
            "task": "regression", "how": "held out", "n": 200, "mean_absolute": 2.5, "median_absolute": 1.75,
            "of_mean": 13.2, "doubtful": {"n": 0, "rows": []},
        },
    }  # fmt: skip
    sentence = score_answer(report)["sentence"]
    assert sentence.startswith(
        "The fused vector explains 60.0 % of the target's variance on 200 rows: R² 0.600. Half of the errors are below "
        "1.75; the target spreads by 13.2. Always saying the mean gets −0.002, the best single input (text) 0.300."
    )
    assert mistakes_sentence(report) == "Of 200 held-out rows: predictions are off by 2.5 on average."
    assert about(report)["labels"]["sentence"].startswith("No value looks wrong: none is more than four usual errors")
    report["mistakes"]["doubtful"] = {"n": 1, "rows": [{"key": "k7"}]}
    assert about(report)["labels"]["sentence"] == (
        "Look at the values of 1 row (0.5 %): more than four usual errors away from the prediction. The first: k7. A "
        "model can be wrong, too."
    )


def test_the_most_frequent_confusion_is_named(report):
    assert mistakes_sentence(report) == (
        "Of 1,815 rows, each predicted by a model that never saw it: 543 are wrong (29.9 %). Most often “party” is "
        "taken for “winter dots” (273 times)."
    )
    pair = {"label": "party", "predicted": "winter dots", "n": 1}
    report["mistakes"] = {"task": "classification", "how": "held out", "n": 9, "wrong": 1, "pairs": [pair]}
    assert mistakes_sentence(report) == (
        "Of 9 held-out rows: 1 is wrong (11.1 %). Most often “party” is taken for “winter dots” (once)."
    )
    report["mistakes"] = {"task": "multilabel", "how": "held out", "n": 9, "wrong": 0}
    assert mistakes_sentence(report) == "Of 9 held-out rows: none is wrong."


def test_inputs_that_are_needed_and_one_that_is_not(report):
    needed = about(report)["inputs"]
    assert needed["not_needed"] == []
    assert (
        "Every input is needed. What the score becomes: without text −39.4 points (−42.0 to −37.0)"
        in needed["sentence"]
    )
    report["probe"]["cross_validated"]["worth"]["image"] = gap(0.02, reach=0.03)
    unknown = about(report)["inputs"]
    assert unknown["not_needed"] == []
    assert unknown["sentence"] == (
        "Whether image helps, these rows cannot tell: without image −2.0 points (−5.0 to +1.0)."
    )
    report["probe"]["cross_validated"]["worth"]["image"] = gap(0.001)
    idle = about(report)["inputs"]
    assert idle["not_needed"] == ["image"]
    assert idle["sentence"].startswith(
        "image hardly helps complete rows: without image −0.1 points (−1.1 to +0.9). Without it rows would have less "
        "to go by: "
    )
    report["rows"]["missing"]["text"] = 0
    assert about(report)["inputs"]["sentence"].endswith("A job without it costs less.")
    report["probe"]["cross_validated"]["worth"]["text"] = gap(0.0)
    assert "try without one of them" in about(report)["inputs"]["sentence"]
    report["probe"]["cross_validated"]["worth"]["text"] = gap(0.0, reach=0.1)
    both = about(report)["inputs"]
    assert both["sentence"].startswith("Whether each of these helps, these rows cannot tell: without ")
    assert both["not_needed"] == ["image"]


def test_an_encoder_that_learned_from_nothing_is_named(report):
    report["encoders"] = {"text": "builtin/hashing", "image": "torchvision/resnet18"}
    assert about(report)["encoders"]["sentence"] == (
        "Embedded without a pretrained model: text by builtin/hashing. One would probably help: name it in "
        "inputs.text.encoder."
    )
    report["encoders"] = {"image": "torchvision/resnet18"}
    assert "encoders" not in about(report)


def test_few_held_out_rows_say_nothing_of_dimensions_and_rows(report):
    report["probe"]["n_test"] = 19
    found = about(report)
    assert "dimensions" not in found
    assert found["rows"] == {
        "about": "rows",
        "sentence": "Whether other dimensions or more rows would help, 19 held-out rows are too few to say.",
        "set": {},
    }
    report["probe"]["n_test"] = 100
    assert "dimensions" in about(report)


def test_a_curve_that_still_rises_asks_for_more_dimensions(report):
    found = about(report)["dimensions"]
    assert found["set"] == {"alignment.dim": 512}
    assert found["sentence"] == (
        "More dimensions may help: from 64 to 256 dimensions the score changed by +4.6 points (+2.6 to +6.6)."
    )
    report["alignment"]["most_dim"] = 256
    found = about(report)["dimensions"]
    assert found["set"] == {}
    assert found["sentence"].startswith("The 256 dimensions are all that these inputs allow")


def test_a_flat_curve_asks_for_fewer(report):
    report["probe"]["dimensions"][1]["loss"] = gap(0.002)
    found = about(report)["dimensions"]
    assert found["set"] == {"alignment.dim": 64}
    assert found["sentence"].startswith("64 of 256 dimensions do as well: −0.2 points (−1.2 to +0.8).")


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (gap(0.05), "More labeled rows would probably help: from 726 to 1,452 rows the score changed by +5.0 points"),
        (gap(0.002), "More rows like these would hardly help"),
        (gap(0.02, 0.05), "Whether more rows would help, these cannot tell"),
    ],
)
def test_the_last_doubling_of_the_rows_says_whether_more_would_help(report, loss, words):
    report["probe"]["learning"][-2]["loss"] = loss
    assert about(report)["rows"]["sentence"].startswith(words)


def test_a_curve_that_fell_before_it_rose_cannot_tell(report):
    report["probe"]["learning"][0]["loss"] = gap(-0.02)
    assert about(report)["rows"]["sentence"].startswith("Whether more rows would help, these cannot tell")


def test_labels_to_look_at_are_named(report):
    assert about(report)["labels"]["sentence"] == (
        "Look at the labels of 31 rows (1.7 %): the model is as sure of another label as it is where that one is "
        "given, and gives theirs at most a tenth of that. The first: item-9. A model can be wrong, too."
    )
    report["mistakes"]["doubtful"] = {"n": 0, "rows": []}
    assert about(report)["labels"]["sentence"] == (
        "No label looks wrong: in no row is the model as sure of another label as it is where that one is given, and "
        "of the row's own a tenth of that."
    )


def test_an_input_that_is_often_missing_is_named_with_what_it_costs(report):
    text, image = (finding["sentence"] for finding in findings(report) if finding["about"] == "missing")
    assert text == (
        "text is missing in 81 rows (4.1 %). A row without it scores 39.4 points less (37.0 to 42.0). rejects/ says "
        "why each is missing."
    )
    assert image.startswith("image is missing in 112 rows (5.6 %)")
    report["rows"]["missing"] = {"text": 3, "image": 0}
    assert "missing" not in about(report)


def test_without_a_target_one_is_asked_for(report):
    del report["probe"], report["mistakes"]
    found = answers(report)
    assert found["score"] is None
    assert found["mistakes"] is None
    assert [finding["about"] for finding in found["help"]] == ["target"]
    assert "train.target" in found["help"][0]["sentence"]


def test_what_was_not_learned_asks_for_nothing():
    assert findings({"head": {"notes": []}, "retrieval": {}}) == []


def test_answers_are_plain_data_and_hold_whatever_is_absent(report):
    found = answers(report)
    assert json.loads(json.dumps(found)) == found
    assert found["verdict"]["tone"] == "good"
    for name in report:
        without = copy.deepcopy(report)
        del without[name]
        assert json.dumps(answers(without))
    for name in report["probe"]:
        without = copy.deepcopy(report)
        del without["probe"][name]
        assert json.dumps(answers(without))
    assert answers({})["score"] is None
