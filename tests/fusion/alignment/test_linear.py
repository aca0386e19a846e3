import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from barycenter.fusion.alignment import CCA, PCA, ClippedDimWarning, Identity, Joint, Procrustes, load
from barycenter.fusion.alignment._projection import Projection
from barycenter.fusion.moments import FoldMoments, Moments
from barycenter.fusion.splits import fold_of

METHODS = {
    "none": lambda **kw: Identity(**kw),
    "pca": lambda **kw: PCA(**{"dim": 3, **kw}),
    "procrustes": lambda **kw: Procrustes(**{"dim": 3, **kw}),
    "cca": lambda **kw: CCA(**{"dim": 3, **kw}),
    "joint": lambda **kw: Joint(**{"dim": 3, **kw}),
    "joint-half": lambda **kw: Joint(**{"dim": 3, "gamma": 0.5, **kw}),
}
every_method = pytest.mark.parametrize("method", METHODS)


def make_views(n=400, inputs=2, seed=0, widths=(6, 6, 6, 6), noise=0.5):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 3)) * [3, 2, 1]
    names = ["text", "image", "sound", "touch"][:inputs]
    return {
        name: shared @ rng.normal(size=(3, w)) + noise * rng.normal(size=(n, w)) + 1
        for name, w in zip(names, widths, strict=False)
    }


def quiet(alignment, *args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return alignment.fit(*args, **kwargs)


def quiet_moments(alignment, folds):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return alignment.fit_moments(folds)


@every_method
@pytest.mark.parametrize("inputs", [2, 3])
@pytest.mark.parametrize("average", ["mean", "weighted", "spherical", "posterior"])
def test_every_pattern_of_missing_inputs(method, inputs, average, tmp_path):
    views = make_views(inputs=inputs)
    alignment = METHODS[method]().fit(views)
    names = list(views)
    weights = dict.fromkeys(names, 1.0) | {names[0]: 2.0} if average == "weighted" else None
    # Columns that were not aligned have a shared part each, which the factor model hardly finds in one input alone.
    least = 0.7 if (method, average) == ("none", "posterior") else 0.95
    whole = alignment.fuse(views, average, weights)
    assert whole.shape == (400, alignment.dim_)
    alignment.save(tmp_path)
    back = load(tmp_path)
    for code in range(1, 2**inputs):
        here = {name: views[name] for i, name in enumerate(names) if code >> i & 1}
        fused = alignment.fuse(here, average, weights)
        assert np.isfinite(fused).all()
        masked = {name: views[name].copy() for name in names}
        for name in names:
            if name not in here:
                masked[name][:] = np.nan
        np.testing.assert_allclose(alignment.fuse(masked, average, weights), fused, atol=1e-10)
        correlation = np.corrcoef(fused[:, 0], whole[:, 0])[0, 1]
        assert correlation > least, (code, correlation)
        assert np.array_equal(back.fuse(here, average, weights), fused)


@every_method
def test_mixed_patterns_in_one_call_equal_each_on_its_own(method):
    views = make_views(60, inputs=3)
    alignment = METHODS[method]().fit(views)
    masked = {name: values.copy() for name, values in views.items()}
    for i in range(60):
        for j, name in enumerate(views):
            if (i % 7) >> j & 1:
                masked[name][i] = np.nan
    fused = alignment.fuse(masked)
    for i in range(60):
        here = {name: v[i : i + 1] for name, v in masked.items() if not np.isnan(v[i, 0])}
        np.testing.assert_allclose(alignment.fuse(here)[0], fused[i], atol=1e-10)


@every_method
def test_filling_in_equals_imputing_first(method):
    from barycenter.fusion.alignment.imputation import Imputer

    views = make_views(inputs=3)
    folds = FoldMoments.of(views, precision="float64")
    alignment = METHODS[method](regularization=0.1).fit_moments(folds)
    partial = {"text": views["text"], "sound": views["sound"]}
    filled = Imputer(folds.total, 0.1).impute(partial)
    np.testing.assert_allclose(alignment.fuse(filled), alignment.fuse(partial), atol=1e-8)


@every_method
def test_nothing_present_is_an_error_naming_the_row(method):
    views = make_views(50)
    alignment = METHODS[method]().fit(views)
    masked = {name: np.where(np.arange(50)[:, None] == 7, np.nan, v) for name, v in views.items()}
    with pytest.raises(ValueError, match="row 7 has no input"):
        alignment.fuse(masked)
    with pytest.raises(ValueError, match="no inputs"):
        alignment.fuse({})
    assert np.isnan(alignment.transform(masked)["text"][7]).all()


@every_method
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_types(method, dtype):
    views = {name: v.astype(dtype) for name, v in make_views().items()}
    alignment = METHODS[method]().fit(views)
    expected = np.float64 if dtype == np.float64 else np.float32
    assert alignment.fuse(views).dtype == expected
    assert alignment.transform(views)["image"].dtype == expected


@every_method
def test_moments_and_views_give_the_same_fit(method):
    views = make_views()
    groups = np.arange(400) // 4
    a = METHODS[method]().fit(views, groups=groups)
    b = METHODS[method]().fit_moments(list(FoldMoments.of(views, 5, groups)))
    for name in views:
        assert np.array_equal(a.weights_[name], b.weights_[name])
    assert a.regularization_ == b.regularization_
    assert np.array_equal(a.heldout_correlations_, b.heldout_correlations_)


@every_method
def test_cross_validation_equals_refitting_on_raw_folds(method):
    views = make_views(600)
    a = METHODS[method](regularization=0.03, precision="float64").fit(views)
    fold = fold_of(range(600), 5)
    found = []
    for k in range(5):
        train = Moments.of({m: v[fold != k] for m, v in views.items()}, precision="float64")
        held = {m: v[fold == k] for m, v in views.items()}
        t = METHODS[method](regularization=0.03).fit_moments([train]).transform(held)
        x, y = t.values()
        found.append([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(a.dim_)])
    np.testing.assert_allclose(a.heldout_correlations_, np.mean(found, axis=0), atol=1e-10)


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


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 5))
def test_cca_equals_the_svd_of_whitened_data(seed, p, q):
    views = make_views(200, seed=seed, widths=(p, q))
    dim = min(p, q)
    a = CCA(regularization=0.0, precision="float64").fit(views)
    orthonormal = [np.linalg.qr(v - v.mean(axis=0))[0] for v in views.values()]
    expected = np.linalg.svd(orthonormal[0].T @ orthonormal[1], compute_uv=False)
    np.testing.assert_allclose(a.correlations_, expected[:dim], atol=1e-8)
    for values in a.transform(views).values():
        np.testing.assert_allclose(np.cov(values.T).reshape(dim, dim), np.eye(dim), atol=1e-8)


def test_identity_and_mean_is_the_elementwise_mean():
    views = make_views()
    alignment = Identity().fit(views)
    np.testing.assert_allclose(alignment.fuse(views), (views["text"] + views["image"]) / 2, atol=1e-12)
    single = {name: v.astype(np.float32) for name, v in views.items()}
    np.testing.assert_allclose(alignment.fuse(single), (single["text"] + single["image"]) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="none needs equal widths: text has 6, image has 5"):
        Identity().fit(make_views(widths=(6, 5)))
    with pytest.raises(ValueError, match="needs another method"):
        Identity(dim=3).fit(views)


@pytest.mark.parametrize("cls", [PCA, Joint, Identity])
def test_one_input(cls, tmp_path):
    views = make_views(inputs=1)
    alignment = cls().fit(views)
    assert alignment.fuse(views).shape == (400, 6)
    assert alignment.heldout_correlations_.shape == (0,)
    alignment.save(tmp_path)
    assert np.array_equal(load(tmp_path).fuse(views), alignment.fuse(views))


@pytest.mark.parametrize("cls", [CCA, Procrustes])
def test_one_input_is_too_few_to_align(cls):
    with pytest.raises(ValueError, match="at least 2 inputs"):
        cls().fit(make_views(inputs=1))


@pytest.mark.parametrize("method", sorted(METHODS.keys() - {"none", "pca"}))
def test_rescaling_an_input_changes_nothing(method):
    views = make_views()
    a = METHODS[method]().fit(views)
    scaled = {"text": views["text"] * 100, "image": views["image"]}
    b = METHODS[method]().fit(scaled)
    np.testing.assert_allclose(a.fuse(views), b.fuse(scaled), atol=2e-4)


def test_auto_ridge_is_not_worse_held_out_than_any_of_the_grid():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(150, 2))
    views = {m: np.hstack([z + rng.normal(size=z.shape), rng.normal(size=(150, 40))]) for m in ("a", "b")}
    folds = FoldMoments.of(views)
    auto = CCA(dim=2).fit_moments(folds)
    for ridge in (1e-3, 0.1, 1.0):
        other = CCA(dim=2, regularization=ridge).fit_moments(folds)
        assert auto.heldout_correlations_.sum() >= other.heldout_correlations_.sum() - 1e-12
    assert auto.correlations_[0] > auto.heldout_correlations_[0]


def test_posterior_of_two_inputs_is_probabilistic_cca():
    views = make_views()
    a = CCA(dim=3, regularization=0.01).fit(views)
    r = np.clip(a.heldout_correlations_, 0, 1 - 1e-6)
    t = a.transform(views)
    u, v = (x / x.std(axis=0, ddof=1) for x in t.values())
    np.testing.assert_allclose(a.fuse(views, "posterior"), np.sqrt(r) * (u + v) / (1 + r), atol=1e-5)
    np.testing.assert_allclose(a.fuse({"text": views["text"]}, "posterior"), np.sqrt(r) * u, atol=1e-5)


def test_posterior_of_three_inputs_trusts_the_clean_ones():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4000, 2))
    views = {m: z + s * rng.normal(size=z.shape) for m, s in (("a", 0.3), ("b", 0.3), ("c", 3.0))}
    a = CCA(dim=2).fit(views)
    posterior, mean = a.fuse(views, "posterior"), a.fuse(views, "mean")

    def explained(fused):
        rest = z - fused @ np.linalg.lstsq(fused, z, rcond=None)[0]
        return 1 - rest.var() / z.var()

    assert explained(posterior) > 0.95
    assert explained(posterior) > explained(mean)


def test_three_inputs_report_the_mean_over_pairs():
    views = make_views(inputs=3)
    a = CCA(dim=2, regularization=0.01, precision="float64").fit(views)
    t = list(a.transform(views).values())
    pairs = [(0, 1), (0, 2), (1, 2)]
    expected = [np.mean([np.corrcoef(t[i][:, k], t[j][:, k])[0, 1] for i, j in pairs]) for k in range(2)]
    np.testing.assert_allclose(a.correlations_, expected, atol=1e-10)
    assert CCA.dim_limit([5, 3, 4]) == 7


@every_method
@pytest.mark.parametrize("inputs", [1, 2, 3])
def test_what_is_read_back_is_written_as_it_was(method, inputs):
    if inputs == 1 and method in ("cca", "procrustes"):
        return
    fitted = METHODS[method]().fit(make_views(inputs=inputs))
    arrays = fitted.projection_.to_arrays()
    back = Projection.from_arrays(list(fitted.n_features_in_), arrays)
    again = back.to_arrays()
    assert arrays.keys() == again.keys()
    for name, values in arrays.items():
        np.testing.assert_array_equal(values, again[name], err_msg=name)
    del back.posterior  # it is found again from what was read
    np.testing.assert_allclose(back.posterior.loadings, fitted.projection_.posterior.loadings, atol=1e-9)


def test_a_posterior_is_read_as_it_was_written_not_found_again():
    fitted = CCA(dim=2).fit(make_views())
    arrays = fitted.projection_.to_arrays()
    other = arrays | {"loadings": arrays["loadings"] / 2, "noise": arrays["noise"] * 2}
    found = Projection.from_arrays(list(fitted.n_features_in_), other).posterior
    assert np.array_equal(found.loadings, other["loadings"])
    assert np.array_equal(found.noise, other["noise"])


def test_a_projection_that_has_its_maps_lets_go_of_the_moments():
    views = make_views(inputs=3)
    folds = FoldMoments.of(views)
    fitted = CCA(dim=2).fit_moments(folds)
    expected = fitted.fuse({"image": views["image"]})
    fitted.projection_.precompute_missing_maps()
    assert b"Moments" not in pickle.dumps(fitted.projection_)
    assert np.array_equal(fitted.fuse({"image": views["image"]}), expected)
    assert fitted.fuse({"text": views["text"]}).shape == (400, 2)


@pytest.mark.parametrize("weights", [None, {"text": 3.0, "image": 1.0}])
def test_the_module_of_an_alignment_gives_what_it_fuses(weights):
    views = make_views()
    fitted = Joint(dim=3).fit(views)
    module = fitted.as_module(weights=weights)
    found = module({name: torch.from_numpy(values) for name, values in views.items()})
    np.testing.assert_allclose(found.numpy(), fitted.fuse(views, weights=weights), atol=1e-5)


def test_four_inputs_have_fourteen_patterns():
    views = make_views(inputs=4)
    a = Joint(dim=5).fit(views)
    assert len(a.projection_.patterns()) == 14
    assert a.fuse({"touch": views["touch"]}).shape == (400, 5)


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
    with pytest.raises(ValueError, match="1 rows have every input"):
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


def test_scikit_learn_manners():
    from sklearn.exceptions import NotFittedError

    a = Joint(dim=4, gamma=0.3)
    assert a.get_params()["gamma"] == 0.3
    assert clone(a).set_params(dim=2).dim == 2
    with pytest.raises(NotFittedError, match="not fitted"):
        a.fuse(make_views())


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


def test_auto_is_weighted_with_weights():
    views = make_views(50)
    a = CCA(dim=2).fit(views)
    t = a.transform(views)
    np.testing.assert_allclose(a.fuse(views, weights={"text": 3, "image": 1}), 0.75 * t["text"] + 0.25 * t["image"])
    np.testing.assert_allclose(a.fuse(views), a.fuse(views, "mean"))
