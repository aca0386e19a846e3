import copy

import numpy as np
import pytest
import torch

import barycenter.fusion.heads as heads
from barycenter.fusion.heads import LinearHead, NeuralHead
from barycenter.fusion.heads.networks import KINDS
from barycenter.fusion.training.context import LocalContext
from tests.fusion.calibration import expected_calibration_error

NAMES = ("text", "image")
ALL = sorted(KINDS)


def liars(n=900, dim=12, seed=0):
    """Two inputs that say the class; in half of the rows the second is noise of another kind."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, n)
    centres = np.random.default_rng(99).normal(size=(4, dim))
    text = centres[y] + 1.0 * rng.normal(size=(n, dim))
    image = centres[y] + 0.4 * rng.normal(size=(n, dim))
    lies = rng.random(n) < 0.5
    image[lies] = 3.0 * rng.normal(size=(int(lies.sum()), dim)) + 4.0
    aligned = {"text": text.astype(np.float32), "image": image.astype(np.float32)}
    return (text / 2 + image / 2).astype(np.float32), np.array(["a", "b", "c", "d"])[y], aligned, lies


def cut(aligned, part):
    return {name: values[part] for name, values in aligned.items()}


class Killed(BaseException):
    pass


class Mortal(LocalContext):
    """Keeps every checkpoint and dies at one."""

    def __init__(self, checkpoint=None, die_after=None):
        super().__init__(checkpoint)
        self.saved, self.die_after = [], die_after

    def save(self, checkpoint):
        super().save(checkpoint)
        self.saved.append(checkpoint.step)
        if self.die_after is not None and len(self.saved) >= self.die_after:
            raise Killed


def weights(head):
    return torch.cat([value.flatten().float() for value in head._module.state_dict().values()])


@pytest.mark.parametrize("kind", ["gated", "attention"])
def test_a_head_that_weighs_row_by_row_sees_through_lies(kind):
    X, y, aligned, lies = liars()
    train, test = slice(0, 700), slice(700, None)
    linear = LinearHead().fit(X[train], y[train])
    head = NeuralHead(kind, NAMES, hidden=32, learning_rate=5e-3, epochs=20).fit(
        X[train], y[train], cut(aligned, train)
    )
    assert head.score(X[test], y[test], cut(aligned, test)) > linear.score(X[test], y[test]) + 0.05
    if kind == "gated":
        gates = head.gates(cut(aligned, test))
        assert gates["image"][lies[test]].mean() < gates["image"][~lies[test]].mean() - 0.2
        np.testing.assert_allclose(gates["image"] + gates["text"], 1.0, atol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_every_head_begins_as_the_linear_head_and_masks_what_is_missing(kind):
    X, y, aligned, _ = liars(n=200)
    aligned["image"][:50] = np.nan
    linear = LinearHead(seed=3).fit(X, y)
    head = NeuralHead(kind, NAMES, epochs=1, learning_rate=1e-12, seed=3).fit(X, y, aligned)
    expected = np.log(linear.predict_proba(X))
    found = head.raw_scores(X, aligned)
    np.testing.assert_allclose(found - found[:, :1], expected - expected[:, :1], atol=1e-3)
    head = NeuralHead(kind, NAMES, epochs=5, hidden=16, patience=99, learning_rate=0.01).fit(X, y, aligned)
    before = head.raw_scores(X, aligned)
    assert np.isfinite(before).all()
    stacked = [torch.from_numpy(np.nan_to_num(aligned[name], nan=7.0)) for name in NAMES]
    present = torch.from_numpy(np.stack([~np.isnan(aligned[name][:, 0]) for name in NAMES], axis=1))
    with torch.no_grad():
        after = head._module(torch.from_numpy(X), torch.stack(stacked, dim=1), present).numpy()
    np.testing.assert_allclose(after, before, atol=1e-5)


SHORT = {"hidden": 16, "batch_size": 64, "epochs": 6, "patience": 99, "learning_rate": 5e-3}


@pytest.fixture(scope="module")
def whole_training():
    """A head that was never interrupted, and what it saved on the way."""
    X, y, aligned, _ = liars(n=400)
    context = Mortal()
    return NeuralHead("attention", NAMES, **SHORT).fit(X, y, aligned, context=context, save_every=4), context


@pytest.mark.parametrize("die_after", [3, 9])
def test_a_killed_training_goes_on_as_if_nothing_had_been(die_after, whole_training):
    X, y, aligned, _ = liars(n=400)
    settings = SHORT
    whole, whole_context = whole_training
    assert whole.steps_ > 0
    assert len(whole_context.saved) > 9
    assert any(step % 5 for step in whole_context.saved), "some of the checkpoints are in the middle of an epoch"
    killed = Mortal(die_after=die_after)
    with pytest.raises(Killed):
        NeuralHead("attention", NAMES, **settings).fit(X, y, aligned, context=killed, save_every=4)
    torch.rand(17)
    resumed = Mortal(copy.deepcopy(killed.checkpoint))
    again = NeuralHead("attention", NAMES, **settings).fit(X, y, aligned, context=resumed, save_every=4)
    assert killed.saved + resumed.saved == whole_context.saved, "it went on, it did not begin anew"
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=1e-6)
    np.testing.assert_allclose(again.scores_.slope, whole.scores_.slope, rtol=1e-6)


@pytest.mark.parametrize("kind", ALL)
def test_saved_and_loaded_heads_say_the_same(kind, tmp_path):
    X, y, aligned, _ = liars(n=300)
    head = NeuralHead(kind, NAMES, {"text": 2.0, "image": 1.0}, hidden=16, epochs=3, class_weight={"a": 2.0}).fit(
        X, y, aligned, groups=np.arange(300) // 3
    )
    head.save(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["head.json", "head.safetensors"]
    loaded = heads.load(tmp_path)
    assert isinstance(loaded, NeuralHead)
    np.testing.assert_array_equal(loaded.predict_proba(X, aligned), head.predict_proba(X, aligned))
    assert loaded.class_weight == {"a": 2.0}
    LinearHead().fit(X, y).save(tmp_path)
    assert isinstance(heads.load(tmp_path), LinearHead)


def test_probabilities_are_calibrated_on_held_out_rows():
    X, y, aligned, _ = liars(n=2400)
    train, test = slice(0, 1200), slice(1200, None)
    head = NeuralHead("mlp", NAMES, epochs=40, learning_rate=5e-3).fit(X[train], y[train], cut(aligned, train))
    probabilities = head.predict_proba(X[test], cut(aligned, test))
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, atol=1e-9)
    right = np.array(head.classes_)[probabilities.argmax(axis=1)] == y[test]
    assert expected_calibration_error(probabilities.max(axis=1), right) < 0.06


def test_regression_and_label_sets():
    X, y, aligned, _ = liars(n=600)
    values = 1000.0 + 50.0 * np.abs(aligned["text"][:, 0]) + aligned["text"][:, 1]
    train, test = slice(0, 450), slice(450, None)
    linear = LinearHead("regression").fit(X[train], values[train]).score(X[test], values[test])
    head = NeuralHead("attention", NAMES, hidden=16, learning_rate=1e-2, epochs=30, patience=15)
    head.fit(X[train], values[train], cut(aligned, train))
    assert head.task_ == "regression"
    assert head.score(X[test], values[test], cut(aligned, test)) > linear + 0.2
    sets = [["first", "a or b"] if label == "a" else ["a or b"] if label == "b" else [] for label in y]
    head = NeuralHead("gated", NAMES, hidden=16, epochs=20).fit(X[train], sets[:450], cut(aligned, train))
    assert head.task_ == "multilabel"
    assert set(head.classes_) == {"first", "a or b"}
    assert head.score(X[test], sets[450:], cut(aligned, test)) > 0.7
    assert head.predict_proba(X[test], cut(aligned, test)).shape == (150, 2)


@pytest.mark.parametrize("kind", ALL)
def test_shuffled_labels_give_chance(kind):
    X, y, aligned, _ = liars(n=1200)
    y = np.random.default_rng(1).permutation(y)
    head = NeuralHead(kind, NAMES, hidden=16, epochs=15).fit(X[:600], y[:600], cut(aligned, slice(0, 600)))
    score = head.score(X[600:], y[600:], cut(aligned, slice(600, None)))
    assert abs(score - 0.25) < 3 * np.sqrt(0.25 * 0.75 / 600), score


def test_a_class_that_only_the_held_out_rows_have_and_other_small_corners():
    X, y, aligned, _ = liars(n=60)
    rare = np.where(np.arange(60) == 7, "rare", y)
    for kind in ALL:
        head = NeuralHead(kind, NAMES, hidden=8, epochs=2).fit(X, rare, aligned)
        assert "rare" in head.classes_
        assert np.isfinite(head.predict_proba(X, aligned)).all()
    one_group = NeuralHead("gated", NAMES).fit(X, y, aligned, groups=["same"] * 60)
    assert one_group.steps_ == 0
    alone = {"text": aligned["text"]}
    masked = alone | {"image": np.full_like(aligned["image"], np.nan)}
    head = NeuralHead("gated", NAMES, hidden=8, epochs=2).fit(X, y, alone)
    assert np.array_equal(head.raw_scores(X, alone), head.raw_scores(X, masked))
    with pytest.raises(ValueError, match="unknown head 'deep'"):
        NeuralHead("deep", NAMES).fit(X, y, aligned)


def test_fitting_leaves_torchs_random_state_alone():
    X, y, aligned, _ = liars(n=80)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    NeuralHead("gated", NAMES, hidden=8, epochs=2).fit(X, y, aligned)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_aligned_row_that_is_partly_nan_is_refused():
    X, y, aligned, _ = liars(n=80)
    head = NeuralHead("gated", NAMES, hidden=8, epochs=2).fit(X, y, aligned)
    aligned["image"][7, 3] = np.nan
    for work in (head.predict_proba, head.predict):
        with pytest.raises(ValueError, match="image: row 7 is partly NaN"):
            work(X, aligned)
    with pytest.raises(ValueError, match="image: row 7 is partly NaN"):
        head.gates(aligned)
    with pytest.raises(ValueError, match="has 11 features, but NeuralHead is expecting 12"):
        head.predict(X[:, :11], cut(aligned, slice(None)))


def test_settings_that_do_not_fit_are_named():
    X, y, aligned, _ = liars(n=60)
    with pytest.raises(ValueError, match="hidden must be a multiple of 4 for attention, not 10"):
        NeuralHead("attention", NAMES, hidden=10).fit(X, y, aligned)
    with pytest.raises(ValueError, match="epochs must be a whole number, at least 1, not 0"):
        NeuralHead("mlp", NAMES, epochs=0).fit(X, y, aligned)
    with pytest.raises(ValueError, match="inputs must be a list"):
        NeuralHead("mlp", "text").fit(X, y, aligned)
    with pytest.raises(ValueError, match="weights must be at least 0"):
        NeuralHead("gated", NAMES, shares={"text": 0, "image": 0}).fit(X, y, aligned)


def test_numpy_parameters_are_saved(tmp_path):
    X, y, aligned, _ = liars(n=60)
    head = NeuralHead("mlp", NAMES, hidden=np.int64(8), epochs=np.int64(1), weight_decay=np.float32(0.01))
    head.fit(X, y, aligned).save(tmp_path)
    assert np.array_equal(heads.load(tmp_path).predict(X, aligned), head.predict(X, aligned))


def test_a_first_loss_that_is_not_finite_is_said():
    X, _, aligned, _ = liars(n=80)
    huge = X.astype(np.float64) * 1e30
    with pytest.raises(ValueError, match=r"loss on held-out rows is .* before any training"):
        NeuralHead("mlp", NAMES, hidden=8, epochs=2, task="regression").fit(huge, np.arange(80.0) * 1e140, aligned)
