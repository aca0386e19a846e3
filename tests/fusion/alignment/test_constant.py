"""Inputs that never vary: finite vectors, a warning that names them, and the other inputs as if they were alone."""

import warnings

import numpy as np
import pytest

from barycenter import CCA, PCA, AlignmentSearch, Autoencoder, Contrastive, Identity, Joint, KernelCCA, Procrustes
from barycenter.fusion.alignment import Sample, best_space, load
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.moments import FoldMoments, Moments

AVERAGES = ("mean", "spherical", "posterior")
EVERY = [
    PCA(4),
    Procrustes(4),
    CCA(4),
    Joint(4),
    Joint(4, gamma=0.1),
    KernelCCA(4),
    Autoencoder(4, width=8, epochs=2),
    Contrastive(4, width=8, epochs=2),
]


def make_views(n=240, constants=("const",), seed=0):
    """Four classes in one input; the others are the same in every row."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 4
    values = rng.normal(size=(n, 8))
    values[np.arange(n), y] += 3
    known = {"const": np.float32([1, 2, 3, 4]), "zeros": np.zeros(4, np.float32)}
    views = {"v": values.astype(np.float32)} | {name: np.tile(known[name], (n, 1)) for name in constants}
    return views, np.array(list("abcd"))[y]


def halves(views, y):
    n = len(y) // 2
    return {m: v[:n] for m, v in views.items()}, y[:n], {m: v[n:] for m, v in views.items()}, y[n:]


@pytest.mark.parametrize("constants", [("const",), ("const", "zeros"), ("zeros",)])
@pytest.mark.parametrize("alignment", EVERY, ids=lambda a: a.method)
def test_the_input_that_varies_is_not_harmed(alignment, constants, tmp_path):
    train, y, test, held = halves(*make_views(constants=constants))
    alone = LinearHead().fit(train["v"], y).score(test["v"], held)
    with pytest.warns(UserWarning, match=f"{constants[0]}: the same in every complete row"):
        fitted = type(alignment)(**alignment.get_params()).fit(train)
    fitted.save(tmp_path)
    back = load(tmp_path)
    for average in AVERAGES:
        fused = fitted.fuse(test, average)
        assert np.isfinite(fused).all()
        assert np.isfinite(fitted.fuse({name: test[name] for name in constants}, average)).all()
        assert LinearHead().fit(fitted.fuse(train, average), y).score(fused, held) >= alone - 0.04
        assert np.array_equal(back.fuse(test, average), fused)
    assert set(fitted.rank_) == set(train)


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("constants", [("const",), ("const", "zeros")])
def test_the_choice_is_that_of_the_inputs_that_vary(labelled, constants):
    train, y, test, held = halves(*make_views(constants=constants))
    labels = y.tolist() if labelled else None
    with pytest.warns(UserWarning, match="const: the same in every complete row"):
        search = AlignmentSearch(dim=4).fit_moments(FoldMoments.of(train), Sample(train, None, labels))
    assert search.average_weights_ == {"v": 1.0} | dict.fromkeys(constants, 0.0)
    bare = {"v": train["v"]}
    without = AlignmentSearch(dim=4).fit_moments(FoldMoments.of(bare), Sample(bare, None, labels))
    np.testing.assert_allclose(search.fuse(test), without.fuse({"v": test["v"]}), atol=1e-5)
    assert np.isfinite(search.fuse({"const": test["const"]})).all()
    assert LinearHead().fit(search.fuse(train), y).score(search.fuse(test), held) > 0.9


@pytest.mark.parametrize("method", ["joint", "cca", "procrustes", "pca"])
def test_a_given_method_and_average_take_constant_inputs(method):
    train, y, test, held = halves(*make_views())
    with pytest.warns(UserWarning, match="const: the same"):
        search = AlignmentSearch(dim=4, methods=(method,), average="mean").fit_moments(
            FoldMoments.of(train), Sample(train, None, y.tolist())
        )
    assert search.average_weights_ == {"v": 0.5, "const": 0.5}
    assert LinearHead().fit(search.fuse(train), y).score(search.fuse(test), held) > 0.9


def test_two_that_vary_beside_one_that_does_not():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(400, 3))
    views = {m: z @ rng.normal(size=(3, 5)) + 0.3 * rng.normal(size=(400, 5)) for m in ("a", "b")}
    views["c"] = np.ones((400, 3))
    for alignment in (CCA(3), Joint(3), Procrustes(3)):
        with pytest.warns(UserWarning, match="c: the same"):
            both = alignment.fit(views)
        bare = type(alignment)(3).fit({m: views[m] for m in "ab"})
        np.testing.assert_allclose(both.heldout_correlations_[:3] * 3, bare.heldout_correlations_, atol=1e-6)
        aligned, expected = both.transform(views), bare.transform({m: views[m] for m in "ab"})
        for m in "ab":
            np.testing.assert_allclose(aligned[m], expected[m], atol=1e-6)
        assert not aligned["c"].any()
    search = AlignmentSearch(dim=3).fit_moments(FoldMoments.of(views), Sample(views, None, (z[:, 0] > 0).tolist()))
    assert search.average_weights_["c"] == 0
    assert np.isfinite(search.fuse({"c": views["c"]})).all()


def test_equal_widths_are_averaged_with_constants_too():
    train, _, test, _ = halves(*make_views())
    train["const"], test["const"] = (np.hstack([part["const"]] * 2) for part in (train, test))
    with pytest.warns(UserWarning, match="const: the same in every complete row; it moves all vectors alike"):
        fitted = Identity().fit(train)
    for average in AVERAGES:
        assert np.isfinite(fitted.fuse(test, average)).all()


@pytest.mark.parametrize("alignment", [CCA(), PCA(), Joint(), Procrustes()], ids=lambda a: a.method)
def test_inputs_that_are_all_constant_are_refused(alignment):
    views, _ = make_views(constants=("const", "zeros"))
    del views["v"]
    with pytest.warns(UserWarning, match="const"), pytest.raises(ValueError, match="nothing to align: const, zeros"):
        alignment.fit(views)


@pytest.mark.parametrize("alignment", [CCA(1), PCA(1), Joint(1), Procrustes(1)], ids=lambda a: a.method)
def test_a_fold_that_does_not_vary_gives_nothing_to_correlate(alignment):
    """The rows that weights are found on are then constant, and so is what they are tried on."""
    views, _ = make_views(n=60)
    views = {"v": views["v"].astype(float), "w": views["v"][:, :3] + 1.0}
    still = {m: np.tile(v.mean(axis=0), (60, 1)) for m, v in views.items()}
    fitted = type(alignment)(1, regularization=0.1).fit_moments([Moments.of(views), Moments.of(still)])
    assert np.array_equal(fitted.heldout_correlations_, [0.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("value", [0.1, -1e7, 3.3e-9])
def test_a_constant_has_no_variance_at_all(dtype, value):
    values = np.full((20_000, 3), value, dtype)
    moments = Moments.of({"a": values, "b": np.random.default_rng(0).normal(size=(20_000, 2))})
    assert not moments.block("a", "a").any()
    assert not moments.block("a", "b").any()
    assert np.array_equal(moments.mean[:3], values[0].astype(np.float64))
    assert moments.varying == ("b",)


def test_retrieval_space_of_a_constant_input():
    train, _, test, _ = halves(*make_views())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = Joint(4).fit(train)
        space = best_space(FoldMoments.of(train), Sample(train), fitted)
    assert all(np.isfinite(values).all() for values in space.transform(test).values())


def test_a_weight_of_zero_leaves_rows_without_that_input_finite():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(300, 3))
    views = {m: (z @ rng.normal(size=(3, 5)) + rng.normal(size=(300, 5))).astype(np.float32) for m in ("text", "image")}
    sample = Sample(views, None, (z[:, 0] > 0).tolist())
    folds, weights = FoldMoments.of(views), {"text": 1.0, "image": 0.0}
    fitted = Joint(3).fit_moments(folds)
    fitted.fill_for_target(folds.total, sample, weights)
    for present in views:
        assert np.isfinite(fitted.fuse({present: views[present]}, "weighted", weights)).all()
    without = fitted.fuse({"text": views["text"]}, "weighted", weights)
    np.testing.assert_allclose(without, fitted.fuse(views, "weighted", weights), atol=1e-5)
