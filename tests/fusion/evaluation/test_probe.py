import json
import os
from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from barycenter.fusion.alignment.imputation import Imputer
from barycenter.fusion.evaluation.probe import cross_validated_probe, probe
from barycenter.fusion.heads.targets import as_objects
from barycenter.fusion.moments import FoldMoments, Moments

SHARED = Path(os.environ.get("BARYCENTER_SHARED", Path(__file__).parents[3] / "shared"))
NAMES = ["text", "image", "naive_mean", "pca_mean", "concat", "concat_imputed", "fused"]


def paired(n=600, seed=0, shared=True):
    """Two inputs of unequal width with a shared part; the label needs the private part of both."""
    rng = np.random.default_rng(seed)
    z, a, b = rng.normal(size=(n, 3)), rng.normal(size=(n, 1)), rng.normal(size=(n, 1))
    text = np.hstack([z, a]) @ rng.normal(size=(4, 6)) + 0.05 * rng.normal(size=(n, 6))
    image = np.hstack([z, b]) @ rng.normal(size=(4, 9)) + 0.05 * rng.normal(size=(n, 9))
    labels = np.array([f"{int(u > 0)}{int(v > 0)}" for u, v in zip(a[:, 0], b[:, 0], strict=True)], dtype=object)
    return {"text": text.astype(np.float32), "image": image.astype(np.float32)}, labels


def stacking(imputer):
    moments = imputer.moments

    def fuse(views):
        full = imputer.impute(views)
        return np.hstack([full[m] / np.sqrt(np.trace(moments.block(m, m))).astype(np.float32) for m in moments.names])

    return fuse


def run(views, labels, train, fused=None, groups=None, **options):
    imputer = Imputer(Moments.of({name: view[train] for name, view in views.items()}), 0.01)
    return probe(views, fused or stacking(imputer), labels, groups, train, ~train, imputer=imputer, dim=5, **options)


@pytest.fixture(scope="module")
def first():
    views, labels = paired()
    return views, labels, np.arange(600) % 4 != 0


def test_every_candidate_in_every_condition_ready_for_json(first):
    result = run(*first)
    assert list(result["candidates"]) == NAMES
    for scores in result["candidates"].values():
        assert list(scores) == ["complete", "without text", "without image"]
        assert all(0 <= score <= 1 for score in scores.values())
    assert (result["metric"], result["n_train"], result["n_test"]) == ("accuracy", 450, 150)
    assert json.loads(json.dumps(result)) == result


def test_who_wins_where():
    views, labels = paired(n=4000)
    by = run(views, labels, np.arange(4000) % 2 == 0)["candidates"]
    assert by["concat"]["complete"] > max(by["text"]["complete"], by["image"]["complete"]) + 0.2
    assert by["fused"]["complete"] == by["concat_imputed"]["complete"] == by["concat"]["complete"]
    assert by["text"]["without image"] == by["text"]["complete"]
    assert by["text"]["without text"] < 0.4
    for condition in ("without text", "without image"):
        assert by["concat_imputed"][condition] >= by["concat"][condition]


def test_the_scale_of_an_input_does_not_count_in_a_concatenation(first):
    views, labels, train = first
    by = run(views, labels, train)["candidates"]
    scaled = run(views | {"image": views["image"] * 1000}, labels, train)["candidates"]
    for name in ("concat", "concat_imputed"):
        for condition, score in by[name].items():
            assert scaled[name][condition] == pytest.approx(score, abs=0.01)


def test_an_input_alone_that_is_withheld_says_the_majority(first):
    views, labels, train = first
    result = run(views, labels, train)
    names, counts = np.unique(labels[train].astype(str), return_counts=True)
    majority = float((labels[~train] == names[counts.argmax()]).mean())
    assert result["candidates"]["image"]["without image"] == majority
    assert result["baseline"] == majority


def test_vectors_as_written_by_condition(first):
    views, labels, train = first
    full = stacking(Imputer(Moments.of({name: view[train] for name, view in views.items()})))(views)
    noise = np.random.default_rng(0).normal(size=full.shape)
    fused = {"complete": full, "without text": noise, "without image": full}
    by = run(views, labels, train, fused)["candidates"]
    assert by["fused"]["complete"] == by["concat"]["complete"]
    assert by["fused"]["without text"] < 0.5


def test_rows_that_lack_a_label_or_an_input(first):
    views, labels, train = first
    views = {name: view.copy() for name, view in views.items()}
    labels = labels.copy()
    labels[:40:2], labels[1:40:2] = "", None
    views["text"][100:140] = np.nan
    views["image"][200:220] = np.nan
    views["text"][300:310] = views["image"][300:310] = np.nan
    result = run(views, labels, train)
    rows = np.arange(600)
    labelled = rows >= 40
    nothing = (rows >= 300) & (rows < 310)
    partly = ((rows >= 100) & (rows < 140)) | ((rows >= 200) & (rows < 220)) | nothing
    assert result["n_train"] == int((labelled & train & ~nothing).sum())
    assert result["n_test"] == int((labelled & ~train & ~partly).sum())
    assert result["candidates"]["fused"]["complete"] > 0.7


def test_shuffled_labels_give_chance(first):
    views, labels, train = first
    shuffled = np.random.default_rng(3).permutation(labels)
    by = run(views, shuffled, train)["candidates"]
    assert max(scores["complete"] for scores in by.values()) < 0.4


def test_test_labels_do_not_reach_the_probe(first):
    views, labels, train = first
    total = 0.0
    for name in ("00", "01", "10", "11"):
        all_one = labels.copy()
        all_one[~train] = name
        total += run(views, all_one, train)["candidates"]["concat"]["complete"]
    assert total == pytest.approx(1.0)


def test_regression_is_r2(first):
    views, _, train = first
    target = (views["text"][:, 0] + views["image"][:, 1]).astype(float)
    result = run(views, target, train)
    assert result["metric"] == "r2"
    assert result["candidates"]["concat"]["complete"] > 0.98
    assert result["candidates"]["text"]["without text"] == pytest.approx(0, abs=0.1)


def test_label_sets(first):
    views, labels, train = first
    sets = [[name for name, digit in zip("ab", label, strict=True) if digit == "1"] for label in labels]
    result = run(views, sets, train)
    assert result["task"] == "multilabel"
    assert result["candidates"]["concat"]["complete"] > result["candidates"]["text"]["complete"] + 0.2


def test_one_input_and_three_inputs(first):
    views, labels, train = first
    alone = {"text": views["text"]}
    imputer = Imputer(Moments.of(alone), 0.01)
    result = probe(alone, lambda given: given["text"], labels, None, train, ~train, imputer=imputer, dim=3)
    assert list(result["candidates"]["fused"]) == ["complete"]
    three = views | {"tags": views["text"][:, :2].copy()}
    imputer = Imputer(Moments.of(three), 0.01)
    fuse = lambda given: np.hstack(list(imputer.impute(given).values()))  # noqa: E731
    result = probe(three, fuse, labels, None, train, ~train, imputer=imputer, dim=3)
    assert list(result["candidates"]["tags"]) == ["complete", "without text", "without image", "without tags"]


def test_nothing_to_score_and_nothing_to_learn(first):
    views, labels, train = first
    empty = labels.copy()
    empty[~train] = None
    result = run(views, empty, train)
    assert (result["n_test"], result["candidates"], result["baseline"]) == (0, {}, None)
    with pytest.raises(ValueError, match="nothing to learn from"):
        run(views, np.full(600, "", dtype=object), train)


def fit_stacking(views, labels, groups):
    return stacking(Imputer.of_folds(FoldMoments.of(views, groups=groups)))


def test_cross_validation_fits_everything_inside_the_training_part():
    views, labels = paired(n=300)
    groups = [f"g{i // 3}" for i in range(300)]
    seen = []

    def fit(part, part_labels, part_groups):
        assert len(part_labels) == len(part_groups) == len(part["text"])
        seen.append(set(part_groups))
        return fit_stacking(part, part_labels, part_groups)

    result = cross_validated_probe(views, labels, groups, 4, 2, fit, dim=5)
    assert len(seen) == 8
    assert all(len(part) < 100 for part in seen)
    assert seen[:4] != seen[4:]
    assert result["n_test"] == 300
    assert list(result["candidates"]) == NAMES
    gaps = result["gaps"]
    assert gaps["complete"] == {"against": "concat", "mean": 0.0, "low": 0.0, "high": 0.0}
    assert gaps["complete, best input"]["low"] > 0.1
    assert gaps["without text"]["against"] == "image"
    assert gaps["without text"]["low"] <= gaps["without text"]["mean"] <= gaps["without text"]["high"]
    assert json.loads(json.dumps(result)) == result


def test_what_is_recorded_is_what_was_scored(first):
    views, labels, train = first
    held_out, out_of_fold = [], []
    result = run(views, labels, train, record=held_out.append)
    (found,) = held_out
    assert found.rows.tolist() == np.flatnonzero(~train).tolist()
    assert found.labels.tolist() == labels[~train].tolist()
    assert found.right.mean() == pytest.approx(result["candidates"]["fused"]["complete"])
    crossed = cross_validated_probe(views, labels, None, 4, 1, fit_stacking, dim=5, record=out_of_fold.append)
    assert len(out_of_fold) == 4
    assert sorted(row for part in out_of_fold for row in part.rows) == list(range(600))
    right = np.concatenate([part.right for part in out_of_fold])
    assert right.mean() == pytest.approx(crossed["candidates"]["fused"]["complete"])


def test_folds_on_threads_change_nothing():
    views, labels = paired(n=300)
    with threadpool_limits(1):
        one, three = (
            cross_validated_probe(views, labels, None, 4, 2, fit_stacking, dim=5, threads=threads) for threads in (1, 3)
        )
    assert one == three


@pytest.mark.parametrize(
    "label", [lambda row: f"class {row % 3}", lambda row: [[], ["x", "y"][:: 1 - 2 * (row % 2)], ["x"]][row % 3]]
)
def test_a_constant_out_of_fold_scores_what_the_most_frequent_label_does(label):
    views, _ = paired(n=90)
    labels = as_objects([label(row) for row in range(90)])
    result = cross_validated_probe(views, labels, None, 5, 1, fit_stacking, dim=5)
    assert result["baseline"] == pytest.approx(1 / 3)


def test_cross_validated_gap_of_a_useless_fusion_is_reported():
    views, labels = paired(n=300)
    result = cross_validated_probe(views, labels, None, 3, 1, lambda *_: lambda v: v["text"][:, :1] * 0, dim=5)
    assert result["gaps"]["complete"]["high"] < -0.2


@pytest.mark.shared
@pytest.mark.skipif(not (SHARED / "data/uci_mfeat").is_dir(), reason="no shared assets at the repository")
def test_figures_on_digits_are_those_that_are_known():
    def view(name):
        table = np.loadtxt(SHARED / f"data/uci_mfeat/mfeat-{name}.csv", delimiter=",", skiprows=1)
        return table[:, :-1].astype(np.float32), table[:, -1].astype(int)

    (text, y), (image, _) = view("fac"), view("fou")
    views = {"text": text, "image": image}
    by = cross_validated_probe(views, [f"d{v}" for v in y], None, 3, 1, fit_stacking, dim=50)["candidates"]
    assert 0.97 < by["text"]["complete"] < 0.99
    assert 0.76 < by["image"]["complete"] < 0.84
    assert by["concat"]["complete"] > by["text"]["complete"]
    assert by["concat_imputed"]["without text"] == pytest.approx(by["image"]["complete"], abs=0.01)
    assert by["concat"]["without text"] < by["image"]["complete"] - 0.05


def test_labels_groups_and_masks_are_one_a_row():
    views, labels, train = {"a": np.eye(6)}, list("ababab"), np.arange(6) < 4
    imputer = Imputer(Moments.of(views))

    def scored(labels=labels, groups=None, train=train, test=~train):
        return probe(views, lambda given: given["a"], labels, groups, train, test, imputer=imputer, dim=2)

    assert scored()["n_test"] == 2
    for wrong, message in (
        ({"labels": labels[:5]}, "5 labels for 6 rows"), ({"groups": [1, 2]}, "2 groups for 6 rows"),
        ({"train": train[:4]}, "4 train for 6 rows"), ({"test": np.arange(2)}, "2 test for 6 rows"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=message):
            scored(**wrong)
    with pytest.raises(TypeError, match=r"train must be .* true or false, not int64"):
        scored(train=np.arange(6))
    with pytest.raises(ValueError, match="5 labels for 6 rows"):
        cross_validated_probe(views, labels[:5], None, 2, 1, lambda *_: lambda given: given["a"], dim=2)
