import numpy as np
import pytest

from barycenter.fusion.alignment import imputation
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


def least_squares(views, target, names):
    """What the inputs ``names`` say of ``target`` in every row."""
    design = np.hstack([np.ones((len(views[target]), 1)), *(views[name] for name in names)])
    return design @ np.linalg.lstsq(design, views[target], rcond=None)[0]


def test_rows_are_filled_by_what_each_has():
    views = make_views()
    imputer = Imputer(Moments.of(views, "float64"), 0.0)
    masked = {m: v[:6].copy() for m, v in views.items()}
    masked["a"][[0, 2]], masked["b"][[1, 2]], masked["c"][2] = np.nan, np.nan, np.nan
    masked["a"][5], masked["c"][5] = np.nan, np.nan
    filled = imputer.impute(masked)
    np.testing.assert_allclose(filled["a"][0], least_squares(views, "a", "bc")[0], atol=1e-8)
    np.testing.assert_allclose(filled["b"][1], least_squares(views, "b", "ac")[1], atol=1e-8)
    np.testing.assert_allclose(filled["a"][5], least_squares(views, "a", "b")[5], atol=1e-8)
    np.testing.assert_allclose(filled["c"][5], least_squares(views, "c", "b")[5], atol=1e-8)
    for m in views:
        np.testing.assert_allclose(filled[m][2], imputer.moments.means[m])
        assert np.array_equal(filled[m][3:5], views[m][3:5])
        assert filled[m].dtype == np.float64
    assert np.array_equal(filled["b"][5], views["b"][5])


@pytest.mark.parametrize("ridge", [0.1, 2.0])
def test_a_ridge_is_relative_to_the_mean_variance_of_each_input(ridge):
    views = make_views()
    moments = Moments.of(views, "float64")
    present, x = ("a", "c"), np.hstack([views["a"], views["c"]])
    unit = np.repeat([views[m].var(axis=0, ddof=1).mean() for m in present], [views[m].shape[1] for m in present])
    cov = np.cov(np.hstack([x, views["b"]]).T)
    expected = np.linalg.solve(cov[:6, :6] + ridge * np.diag(unit), cov[:6, 6:])
    np.testing.assert_allclose(Imputer(moments, ridge).coefficients(present), expected, rtol=1e-6)


def test_the_smallest_ridge_that_keeps_four_fifths_of_the_best_score_is_chosen(monkeypatch):
    folds = FoldMoments.of(make_views(100))
    ridges = (0.1, 0.2, 0.4, 0.8)
    for scores, ridge in (
        ([0.1, 0.79, 0.81, 1.0], 0.4),
        ([0.1, 0.8, 0.9, 1.0], 0.2),
        ([0.85, 0.2, 1.0, 0.2], 0.1),
        ([-1.3, -1.19, -1.0, -2.0], 0.2),
    ):
        monkeypatch.setattr(imputation, "imputation_scores", lambda *_, scores=scores: np.array(scores))
        assert choose_regularization(folds, ridges) == ridge


def test_too_few_rows_or_inputs_to_tell_give_a_tenth():
    assert choose_regularization(FoldMoments.of({"a": np.random.default_rng(0).normal(size=(50, 2))})) == 0.1
    few = {m: v[:4] for m, v in make_views(50).items()}
    assert choose_regularization(FoldMoments.of(few, folds=2)) == 0.1
    one = FoldMoments([Moments.of(make_views(50))])
    assert choose_regularization(one) == 0.1


def test_without_a_ridge_nothing_is_made_of_a_direction_that_may_be_rounding():
    x, rest = np.random.default_rng(0).normal(size=(2, 1000, 1))
    nearly_twice = Moments.of({"a": np.hstack([x, x + 1e-7 * rest]), "b": x + rest}, "float64")
    np.testing.assert_allclose(Imputer(nearly_twice, 0.0).coefficients(("a",)), [[0.5], [0.5]], atol=0.05)


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((20, 2), set()),
        ((2, 2, 20), {(4, 20)}),
        ((3, 20), {(20, 3), (3, 20)}),
        ((3, 4, 2), {(6, 3), (5, 4)}),
    ],
)
def test_folds_of_three_rows_are_held_out_where_three_are_left(monkeypatch, sizes, expected):
    ends = np.cumsum(sizes)
    views, tried = make_views(int(ends[-1])), set()
    folds = FoldMoments(
        [Moments.of({m: v[e - n : e] for m, v in views.items()}) for n, e in zip(sizes, ends, strict=True)]
    )
    monkeypatch.setattr(
        imputation, "imputation_scores", lambda train, held, _: tried.add((train.n, held.n)) or np.array([0.0, 1.0])
    )
    assert choose_regularization(folds, (0.5, 2.0)) == (2.0 if expected else 0.1)
    assert tried == expected


def test_what_follows_exactly_is_filled_in_nearly_exactly():
    x = np.random.default_rng(0).normal(size=(500, 3))
    views = {"a": x, "b": x @ [[1.0], [2.0], [-1.0]] + 5}
    found = Imputer.of_folds(FoldMoments.of(views, precision="float64")).impute({"a": x})["b"]
    assert np.abs(found - views["b"]).max() < 3e-4 * np.ptp(views["b"])


def test_without_a_choice_the_ridge_is_that_of_too_few_rows():
    moments = Moments.of({m: v[:2] for m, v in make_views(50).items()})
    assert Imputer(moments).regularization == choose_regularization(FoldMoments([moments]))


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
    assert choose_regularization(signal) < 0.1 < choose_regularization(noise)
    assert Imputer.of_folds(signal).regularization == choose_regularization(signal)


def test_complaints():
    with pytest.raises(ValueError, match="at least 2"):
        Imputer(Moments({"a": 2}))
    with pytest.raises(ValueError, match="1 row has every input"):
        Imputer(Moments.of({"a": np.ones((1, 2))}))
    with pytest.raises(ValueError, match=r"^regularization"):
        Imputer(Moments.of(make_views()), -1.0)
    imputer = Imputer(Moments.of(make_views()))
    with pytest.raises(ValueError, match="a: expected 4 columns"):
        imputer.impute({"a": np.ones((2, 3))})
    with pytest.raises(ValueError, match="q: expected no such input"):
        imputer.impute({"q": np.ones((2, 3))})
