"""Linear alignments of few rows, of columns that hardly vary, and what is refused."""

import warnings

import numpy as np
import pytest

from barycenter.fusion.alignment import CCA, PCA, ClippedDimWarning, Joint, Procrustes
from barycenter.fusion.moments import Moments
from tests.fusion.alignment.test_linear import METHODS, every_method, make_views, quiet, quiet_moments


@pytest.mark.parametrize("columns", ["duplicate", "constant", "few rows", "rank"])
@every_method
def test_degenerate_inputs_go_through_the_rank_cut(method, columns):
    views = make_views(400 if columns != "few rows" else 5)
    if columns == "duplicate":
        views["text"][:, 1] = views["text"][:, 0]
    elif columns == "constant":
        views["image"][:, 2] = 4.0
    elif columns == "rank":
        views["text"] = views["text"][:, :4] @ np.random.default_rng(1).normal(size=(4, 6))
    alignment = METHODS[method](regularization=0.0)
    with pytest.warns(UserWarning, match="rank") if method != "none" else warnings.catch_warnings():
        alignment.fit(views)
    assert min(alignment.rank_.values()) < 6
    for here in (views, {"text": views["text"]}, {"image": views["image"]}):
        fused = alignment.fuse(here)
        assert np.isfinite(fused).all()
        assert np.abs(fused).max() < 30


def test_dim_above_the_rank_is_clipped_with_a_warning():
    views = make_views()
    with pytest.warns(ClippedDimWarning, match="dim 50 clipped to 6"):
        alignment = CCA(dim=50).fit(views)
    assert alignment.dim_ == 6
    assert alignment.dim == 50
    assert Joint().fit(views).dim_ == 12
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert CCA(dim=6).fit(views).dim_ == 6


@pytest.mark.parametrize("cls", [CCA, Procrustes])
def test_one_input_is_too_few_to_align(cls):
    with pytest.raises(ValueError, match="at least 2 inputs"):
        cls().fit(make_views(inputs=1))


def test_one_fold_holds_nothing_out():
    views = make_views()
    a = CCA(dim=2).fit_moments([Moments.of(views)])
    assert a.regularization_ == 0.1
    assert a.heldout_correlations_.shape == (2,)
    assert np.isnan(a.heldout_correlations_).all()
    assert np.isfinite(a.fuse(views, "posterior")).all()
    assert Joint(dim=2, regularization=0.03).fit_moments([Moments.of(views)]).regularization_ == 0.03


def test_two_folds_of_three_rows_are_held_out():
    views = make_views(6)
    folds = [Moments.of({m: v[rows] for m, v in views.items()}) for rows in (slice(3), slice(3, 6))]
    for dim in (1, 2):
        fitted = quiet_moments(Joint(dim=dim), folds)
        assert np.isfinite(fitted.heldout_correlations_).all()
        assert fitted.heldout_correlations_.shape == (dim,)


def test_one_fold_that_could_be_held_out_is_not_enough():
    views = make_views(24)
    parts = [slice(20), slice(20, 22), slice(22, 24)]
    folds = [Moments.of({m: v[part] for m, v in views.items()}) for part in parts]
    assert np.isnan(CCA(dim=2).fit_moments(folds).heldout_correlations_).all()


def test_no_complete_rows_is_an_error():
    views = make_views(10)
    views["text"][:5], views["image"][5:] = np.nan, np.nan
    with pytest.raises(ValueError, match=r"^0 rows have every input \(text 5, image 5\); cca needs at least 2$"):
        CCA().fit(views)


def test_two_rows_are_enough_and_one_is_not():
    views = make_views(2)
    assert quiet(PCA(), views).dim_ == 1
    with pytest.raises(ValueError, match="1 row has every input"):
        quiet(PCA(), {m: v[:1] for m, v in views.items()})


def test_inputs_of_one_column_are_aligned():
    views = make_views(widths=(1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = CCA().fit(views)
    correlation = np.corrcoef(views["text"][:, 0], views["image"][:, 0])[0, 1]
    np.testing.assert_allclose(fitted.correlations_, [abs(correlation)], atol=1e-4)


def test_a_rank_of_one_is_warned_of_and_that_of_a_constant_is_not():
    views = make_views()
    views["text"] = np.outer(views["text"][:, 0], np.arange(1.0, 7.0))
    views["image"][:] = 3
    with pytest.warns(UserWarning, match="^text: rank 1 of 6") as caught:
        Joint().fit(views)
    messages = [str(one.message) for one in caught]
    assert [message[:12] for message in messages if "rank" in message] == ["text: rank 1"]


def test_a_column_that_follows_from_others_is_not_warned_of():
    views = make_views(widths=(11, 5))
    views["text"][:, 0] = views["text"][:, 1]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Joint().fit(views).rank_["text"] == 10


def test_columns_that_vary_too_little_to_be_scaled_are_named():
    """A column that never varies has no weight: it is not what is too large."""
    views = make_views(widths=(3, 3))
    views["text"] = (views["text"] - views["text"].mean(axis=0)) * [2e-50, 1e-50, 0]
    message = r"^text: its columns vary by (.*) at most, too little; rescale them$"
    with pytest.raises(ValueError, match=message) as caught:
        quiet(CCA(regularization=0.0, precision="float64"), views)
    spread = float(str(caught.value).split(" by ")[1].split(" at ")[0])
    assert spread == pytest.approx(views["text"].std(axis=0, ddof=1).max(), rel=0.1)


def test_a_constant_input_is_left_out():
    views = make_views()
    views["image"][:] = 3
    left_out = "^image: the same in every complete row; it gets no weight, and the other inputs are aligned without it$"
    with pytest.warns(UserWarning, match=left_out):
        assert not CCA().fit(views).weights_["image"].any()


def test_rows_far_from_zero_are_centered_as_in_float64():
    """The mean 1/3 + 1000 is no float32: what is left of it would move every vector by the same."""
    views = {m: (v + 1000 + 1 / 3) for m, v in make_views().items()}
    fitted = CCA(dim=2).fit(views)
    narrow = {m: v.astype(np.float32) for m, v in views.items()}
    exact = fitted.fuse({m: v.astype(np.float64) for m, v in narrow.items()})
    found = fitted.fuse(narrow)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.mean(axis=0), exact.mean(axis=0), atol=2e-7)


def test_bad_rows_and_shapes_are_named():
    views = make_views()
    a = CCA(dim=2).fit(views)
    broken = {name: v.copy() for name, v in views.items()}
    broken["image"][11, 2] = np.inf
    with pytest.raises(ValueError, match="image: row 11"):
        a.fuse(broken)
    with pytest.raises(ValueError, match="sound: unknown input"):
        a.fuse({"sound": views["text"]})
    with pytest.raises(ValueError, match="text: fitted on 6 columns, got 5"):
        a.transform({"text": views["text"][:, :5]})
    with pytest.raises(ValueError, match="differ in rows"):
        a.fuse({"text": views["text"], "image": views["image"][:3]})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"dim": 0}, "^dim must be"),
        ({"folds": 0}, "^folds must be"),
        ({"regularization": -1.0}, "regularization must be"),
        ({"regularization": "much"}, "regularization must be"),
        ({"regularization": float("nan")}, "regularization must be"),
        ({"gamma": 1.5}, "gamma must be"),
        ({"block_weights": {"text": 1.0}}, "block_weights must name"),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        Joint(**params).fit(make_views(50))


@pytest.mark.parametrize(
    ("average", "weights", "message"),
    [
        ("median", None, "unknown average"),
        ("weighted", None, "needs weights"),
        ("mean", {"text": 1, "image": 1}, "takes no weights"),
        ("weighted", {"text": 1}, "expected one for each"),
        ("weighted", {"text": 0, "image": 0}, "not all 0"),
        ("weighted", {"text": -1, "image": 3}, "at least 0"),
    ],
)
def test_wrong_averages(average, weights, message):
    views = make_views(50)
    with pytest.raises(ValueError, match=message):
        CCA(dim=2).fit(views).fuse(views, average, weights)
