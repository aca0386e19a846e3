import numpy as np
import pytest

from barycenter.fusion.alignment.imputation import Imputer, choose_regularization
from barycenter.fusion.moments import FoldMoments, Moments


def make_views(n=3000):
    rng = np.random.default_rng(0)
    z = rng.normal(size=(n, 3))
    return {
        m: z @ rng.normal(size=(3, w)) + 0.1 * rng.normal(size=(n, w)) + 5 for m, w in (("a", 4), ("b", 5), ("c", 2))
    }


def test_equals_least_squares_without_a_ridge():
    views = make_views()
    imputer = Imputer(Moments.of(views, "float64"), 0.0)
    design = np.hstack([np.ones((3000, 1)), views["a"], views["c"]])
    expected = design @ np.linalg.lstsq(design, views["b"], rcond=None)[0]
    filled = imputer.impute({"a": views["a"], "c": views["c"]})
    np.testing.assert_allclose(filled["b"], expected, atol=1e-8)
    assert np.array_equal(filled["a"], views["a"])


def test_rows_are_filled_by_what_each_has():
    views = make_views()
    imputer = Imputer(Moments.of(views), 0.01)
    masked = {m: v[:6].copy() for m, v in views.items()}
    masked["a"][[0, 2]], masked["b"][[1, 2]], masked["c"][2] = np.nan, np.nan, np.nan
    filled = imputer.impute(masked)
    np.testing.assert_allclose(filled["a"][0], views["a"][0], atol=1.0)
    np.testing.assert_allclose(filled["b"][1], views["b"][1], atol=1.0)
    np.testing.assert_allclose(filled["a"][2], imputer.moments.mean[:4])
    for m in views:
        assert np.array_equal(filled[m][3:], views[m][3:6])


def test_exact_copies_do_not_matter():
    views = make_views()
    twice = {m: np.hstack([v, v]) if m == "a" else v for m, v in views.items()}
    one = Imputer(Moments.of(views, "float64"), 0.0).impute({"a": views["a"]})
    two = Imputer(Moments.of(twice, "float64"), 0.0).impute({"a": twice["a"]})
    np.testing.assert_allclose(one["b"], two["b"], atol=1e-6)


def test_the_ridge_grows_with_noise():
    rng = np.random.default_rng(0)
    signal = FoldMoments.of(make_views(300))
    noise = FoldMoments.of({m: rng.normal(size=(100, 40)) for m in ("a", "b")})
    assert choose_regularization(signal) < choose_regularization(noise)
    assert Imputer.of_folds(signal).regularization == choose_regularization(signal)


def test_complaints():
    with pytest.raises(ValueError, match="at least 2"):
        Imputer(Moments({"a": 2}))
    imputer = Imputer(Moments.of(make_views()))
    with pytest.raises(ValueError, match="a: expected 4 columns"):
        imputer.impute({"a": np.ones((2, 3))})
    with pytest.raises(ValueError, match="q: expected no such input"):
        imputer.impute({"q": np.ones((2, 3))})
