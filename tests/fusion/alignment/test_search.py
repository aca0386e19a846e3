import json
import warnings

import numpy as np
import pytest

from barycenter.fusion.alignment import (
    CHOICES,
    AlignmentSearch,
    Joint,
    KernelCCA,
    Sample,
    labeled_moments,
    load,
)
from barycenter.fusion.alignment._stepwise import StepwiseSearch
from barycenter.fusion.alignment._trial import ProbeTrials
from barycenter.fusion.alignment.eigenproblems import joint
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.metrics import accuracy
from barycenter.fusion.moments import FoldMoments
from barycenter.fusion.splits import fold_of


def make_views(n=600, seed=0, noise=0):
    """Two inputs with a shared part and a private one; the label needs both private parts."""
    rng = np.random.default_rng(seed)
    z, a, b = rng.normal(size=(n, 3)), rng.normal(size=(n, 2)), rng.normal(size=(n, 2))
    views = {
        "text": np.hstack([z, a]) @ rng.normal(size=(5, 8)) + 0.2 * rng.normal(size=(n, 8)),
        "image": np.hstack([z, b]) @ rng.normal(size=(5, 12)) + 0.2 * rng.normal(size=(n, 12)),
    }
    if noise:
        views["noise"] = rng.normal(size=(n, noise))
    labels = [f"{int(u > 0)}{int(v > 0)}" for u, v in zip(a[:, 0], b[:, 0], strict=True)]
    return {name: values.astype(np.float32) for name, values in views.items()}, labels


def chosen(views, labels=None, groups=None, **options):
    return AlignmentSearch(**options).fit_moments(FoldMoments.of(views, 5, groups), Sample(views, groups, labels))


@pytest.fixture(scope="module")
def with_target():
    views, labels = make_views()
    return views, labels, chosen(views, labels, dim=10)


def test_the_account_of_what_was_tried_is_complete_and_ready_for_json(with_target):
    views, labels, search = with_target
    summary = json.loads(json.dumps(search.to_dict()))
    assert {trial["method"] for trial in summary["tried"]} == set(CHOICES)
    assert sum(trial.get("chosen", False) for trial in summary["tried"]) == 1
    scores = [trial["score"] for trial in summary["tried"]]
    assert scores == sorted(scores, reverse=True)
    for trial in summary["tried"]:
        assert {"complete", "without text", "without image", "weights", "dim"} <= set(trial)
        assert sum(trial["weights"].values()) == pytest.approx(1, abs=1e-3)
    assert "probe" in summary["chosen_by"]
    assert summary["significant"]["components"] == 3
    for name, other in (("text", "image"), ("image", "text")):
        alone = LinearHead().fit(views[other], np.array(labels), groups=list(range(600))).ridge_
        assert summary["fill_ridges"][name] == pytest.approx(alone, rel=1e-3), "that of a head on the other input"


def test_what_is_chosen_is_fitted_fuses_and_is_saved(with_target, tmp_path):
    views, _, search = with_target
    fused = search.fuse(views)
    assert fused.shape == (600, search.best_estimator_.dim_)
    search.best_estimator_.save(tmp_path)
    back = load(tmp_path)
    assert back.get_params() == search.best_estimator_.get_params()
    for part in (views, {"text": views["text"]}):
        assert np.array_equal(back.fuse(part), search.best_estimator_.fuse(part))


def quiet_label(n=1500, seed=0):
    """Three classes in the two directions of least variance of ten loud ones, half of them in either input."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, n)
    corners = np.array([[0, 1.5], [1.3, -0.75], [-1.3, -0.75]])[label]
    views = {}
    for at, name in enumerate(("text", "image")):
        loud = rng.normal(size=(n, 10)) * 4
        views[name] = np.hstack([loud, corners[:, at : at + 1] + 0.3 * rng.normal(size=(n, 1))]).astype(np.float32)
    return views, [f"class {number}" for number in label]


def test_half_the_columns_keep_what_says_classes_apart():
    views, labels = quiet_label(3000)
    train = {name: values[:1500] for name, values in views.items()}
    test = {name: values[1500:] for name, values in views.items()}
    search = chosen(train, labels[:1500], dim=11)
    assert search.to_dict()["target_share"] > 0
    blind = Joint(dim=11, regularization=0.1).fit(train)
    figures = [
        accuracy(labels[1500:], LinearHead().fit(fuse(train), np.array(labels[:1500])).predict(fuse(test)))
        for fuse in (search.fuse, blind.fuse, lambda part: np.hstack(list(part.values())))
    ]
    assert figures[0] >= figures[2] - 0.01
    assert figures[0] >= figures[1] + 0.1


def test_labels_without_meaning_are_not_sought():
    views, labels = quiet_label()
    np.random.default_rng(1).shuffle(labels)
    search = chosen(views, labels, dim=11)
    best = next(trial for trial in search.tried_ if trial.get("chosen"))
    assert best["complete"] == pytest.approx(1 / 3, abs=0.05)


def test_trials_foretell_a_head_on_new_rows():
    new, new_labels = make_views(3000)
    first = {name: values[:600] for name, values in new.items()}
    fitted = AlignmentSearch(dim=10).fit_moments(FoldMoments.of(first), Sample(first, None, new_labels[:600]))
    head = LinearHead().fit(fitted.fuse(first), np.array(new_labels[:600]))
    trial = next(trial for trial in fitted.tried_ if trial.get("chosen"))
    rest = {name: values[600:] for name, values in new.items()}
    assert accuracy(new_labels[600:], head.predict(fitted.fuse(rest))) == pytest.approx(trial["complete"], abs=0.05)
    alone = {"image": rest["image"]}
    assert accuracy(new_labels[600:], head.predict(fitted.fuse(alone))) == pytest.approx(
        trial["without text"], abs=0.06
    )


def test_a_trial_scores_what_a_fitted_head_would():
    views, labels = make_views(300)
    folds = FoldMoments.of(views, 3, precision="float64")
    trials = ProbeTrials(folds, Sample(views, None, labels))
    ours = (
        trials.score(lambda moments, _: joint(moments, 1.0, dict.fromkeys(views, 1.0), 0.1, 6)).rows["complete"].mean()
    )
    fold = fold_of(range(300), 3)
    right = []
    for number in range(3):
        part = {name: values[fold != number].astype(float) for name, values in views.items()}
        a = Joint(dim=6, regularization=0.1, folds=1).fit(part)
        head = LinearHead(ridge=0.01).fit(a.fuse(part), np.array(labels)[fold != number])
        held = {name: values[fold == number] for name, values in views.items()}
        right.append(head.predict(a.fuse(held)) == np.array(labels)[fold == number])
    assert ours == pytest.approx(np.concatenate(right).mean(), abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_an_input_of_noise_gets_a_small_weight(seed):
    views, labels = make_views(seed=seed, noise=40)
    search = chosen(views, labels, dim=12)
    assert search.average_weights_["noise"] <= 0.1
    assert search.average_ == "weighted"
    without = chosen({name: views[name] for name in ("text", "image")}, labels, dim=12)
    best, bare = (next(t for t in c.tried_ if t.get("chosen")) for c in (search, without))
    assert best["complete"] >= bare["complete"] - 0.05


def test_a_given_average_keeps_the_weights_equal():
    views, labels = make_views(300, noise=40)
    search = chosen(views, labels, dim=12, average="mean")
    assert search.average_ == "mean"
    assert len(set(search.average_weights_.values())) == 1


def test_one_method_alone():
    views, labels = make_views(300)
    for method in CHOICES:
        search = chosen(views, labels, dim=5, methods=(method,))
        assert search.best_estimator_.method == method
        assert {trial["method"] for trial in search.tried_} == {method}


@pytest.mark.parametrize("labels", [None, "random"])
def test_pure_noise_claims_nothing_and_stays_near_the_concatenation(labels):
    rng = np.random.default_rng(0)
    views = {name: rng.normal(size=(400, 120)).astype(np.float32) for name in ("a", "b")}
    given = None if labels is None else rng.integers(0, 2, 400).tolist()
    search = chosen(views, given, dim=80)
    assert search.significance_.n_significant == 0
    assert search.to_dict()["significant"]["components"] == 0
    assert search.best_estimator_.method == "joint"
    assert search.best_estimator_.gamma_ == 1.0
    if labels is None:
        assert "no correlation" in search.chosen_by_
        assert search.average_ == "mean"


def test_without_a_target_inputs_that_correlate():
    views, _ = make_views()
    search = chosen(views, dim=8)
    assert "retrieval" in search.chosen_by_
    for trial in search.tried_:
        assert 0 <= trial["retrieval"] <= 1
        assert trial["kept"] <= 1
    assert search.significance_.n_significant == 3


def test_without_an_input_the_head_does_as_well_as_the_other_alone():
    rng = np.random.default_rng(0)
    n = 3000
    label = rng.integers(0, 3, n)
    loud = rng.normal(size=(n, 4)) * 5
    views = {
        "text": np.hstack([loud + 0.1 * rng.normal(size=(n, 4)), np.eye(3)[label] * 4 + rng.normal(size=(n, 3))]),
        "image": np.hstack([loud + 0.1 * rng.normal(size=(n, 4)), np.eye(3)[label] + 0.5 * rng.normal(size=(n, 3))]),
    }
    train, test = ({m: v[rows] for m, v in views.items()} for rows in (slice(2000), slice(2000, None)))
    y, held = label[:2000], label[2000:]
    search = chosen(train, y.tolist(), dim=7)
    head = LinearHead().fit(search.fuse(train), y)
    alone = LinearHead().fit(train["image"], y).score(test["image"], held)
    assert alone > 0.6
    assert head.score(search.fuse({"image": test["image"]}), held) >= alone - 0.02
    blind = Joint(dim=7, regularization=0.1).fit(train)
    head = LinearHead().fit(blind.fuse(train), y)
    assert head.score(blind.fuse({"image": test["image"]}), held) < alone - 0.02


def test_alignments_with_features_fill_in_for_a_target_too():
    rng = np.random.default_rng(0)
    n = 1500
    label = rng.integers(0, 3, n)
    loud = rng.normal(size=(n, 3)) * 5
    views = {
        name: np.hstack([loud + 0.1 * rng.normal(size=(n, 3)), np.eye(3)[label] + spread * rng.normal(size=(n, 3))])
        for name, spread in (("text", 0.3), ("image", 0.5))
    }
    train, test = ({m: v[rows] for m, v in views.items()} for rows in (slice(1000), slice(1000, None)))
    y, held = label[:1000], label[1000:]
    alignment = KernelCCA(dim=3, n_features=60).fit(train)
    head = LinearHead().fit(alignment.fuse(train), y)
    before = head.score(alignment.fuse({"image": test["image"]}), held)
    features = alignment.feature_moments(train)
    whole = alignment.fuse(test)
    assert alignment.fill_for_target(features.total, Sample(train, None, y.tolist())) > 0
    assert np.array_equal(alignment.fuse(test), whole), "complete rows stay as they are"
    after = head.score(alignment.fuse({"image": test["image"]}), held)
    alone = LinearHead().fit(train["image"], y).score(test["image"], held)
    assert after >= max(before + 0.05, alone - 0.1)


def test_groups_stay_together():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(60), 10)
    views = {m: rng.normal(size=(60, 30))[groups] + 0.01 * rng.normal(size=(600, 30)) for m in ("a", "b")}
    labels = rng.integers(0, 2, 60)[groups].tolist()
    search = chosen(views, labels, groups.tolist(), dim=20)
    assert search.tried_[0]["complete"] < 0.75


@pytest.mark.parametrize("task", ["regression", "multilabel"])
def test_other_targets(task):
    views, labels = make_views(400)
    y = views["text"][:, 0].astype(float).tolist() if task == "regression" else [list(set(label)) for label in labels]
    search = chosen(views, y, dim=10)
    best = search.tried_[0]
    if task == "regression":
        assert best["complete"] == pytest.approx(1, abs=0.01)
        assert best["without image"] == pytest.approx(1, abs=0.01)
    else:
        assert best["complete"] > 0.7
        assert best["without image"] < best["complete"] - 0.15
    assert best["without text"] < best["complete"] - 0.15
    assert search.best_estimator_.dim_ == 10


def test_one_input_and_almost_no_rows():
    views, labels = make_views(200)
    one = chosen({"text": views["text"]}, labels, dim=4)
    assert one.best_estimator_.method == "joint"
    assert one.average_weights_ == {"text": 1.0}
    few = {name: values[:4] for name, values in views.items()}
    with pytest.warns(UserWarning, match="rank"):
        tiny = chosen(few, None, dim=4)
    assert "default" in tiny.chosen_by_
    assert np.isfinite(tiny.fuse(few)).all()


def test_rows_that_lack_an_input_or_a_label_are_left_out():
    views, labels = make_views(400)
    views["text"][:50] = np.nan
    labels[50:100] = [None] * 50
    search = chosen(views, labels, dim=8)
    assert np.isfinite(search.fuse(views)).all()


def test_labeled_rows_are_fitted_on_where_they_are_the_most():
    views, _ = make_views(100)
    some, rest = ({m: v[rows] for m, v in views.items()} for rows in (slice(60), slice(60, None)))
    most = labeled_moments(FoldMoments.of(some), FoldMoments.of(rest))
    assert most.total.n == 60
    assert labeled_moments(FoldMoments.of(rest), FoldMoments.of(some)).total.n == 100


def test_a_lead_over_few_groups_is_less_sure():
    views, labels = make_views(200)
    groups = [str(row % 4) for row in range(200)]
    search = StepwiseSearch(FoldMoments.of(views, 2, groups), Sample(views, groups, labels), 4, "auto", "mean")
    gap = np.array([float(group) for group in search.trials.groups])
    each = np.array([gap[search.groups == g].mean() for g in range(search.groups.max() + 1)])
    assert search._mean(gap)[1] == pytest.approx(each.std(ddof=1) / np.sqrt(len(each)), rel=1e-6)
    search.groups = np.zeros(len(gap), dtype=int)
    assert search._mean(gap)[1] == np.inf


def test_no_warning_names_an_input_that_the_user_does_not_have():
    rng = np.random.default_rng(0)
    a, c = rng.normal(size=(400, 3)), rng.normal(size=(400, 2))
    views = {"a": a, "b": np.hstack([a[:, :1], rng.normal(size=(400, 1))]), "c": c}
    labels = ["yes" if value > 0 else "no" for value in a[:, 0]]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        AlignmentSearch(dim=2).fit(views, labels)
    assert [str(each.message) for each in caught if "others" in str(each.message)] == []
