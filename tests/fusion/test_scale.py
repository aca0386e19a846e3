"""Scales, types and names of inputs that a float32 product, or a saved file, would change in silence."""

import warnings

import numpy as np
import pytest

from barycenter.fusion.alignment import CCA, PCA, Procrustes
from barycenter.fusion.alignment.imputation import Imputer
from barycenter.fusion.alignment.joint import Joint
from barycenter.fusion.metrics import accuracy, r2, retrieval
from barycenter.fusion.moments import Moments


def views(n=120, seed=0):
    rng = np.random.default_rng(seed)
    shared = rng.normal(size=(n, 3))
    return {
        "text": shared @ rng.normal(size=(3, 6)) + 0.3 * rng.normal(size=(n, 6)),
        "image": shared @ rng.normal(size=(3, 5)) + 0.3 * rng.normal(size=(n, 5)),
    }


@pytest.mark.parametrize("scale", [1e-30, 1e-20, 1e20, 1e30, 1e37])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [CCA, Procrustes, Joint])
def test_the_scale_of_one_input_or_all_changes_nothing(kind, dtype, scale):
    plain = {name: values.astype(dtype) for name, values in views().items()}
    expected = kind(dim=4).fit(plain)
    for names in (["text"], ["text", "image"]):
        scaled = plain | {name: (views()[name] * scale).astype(dtype) for name in names}
        found = kind(dim=4).fit(scaled)
        assert np.allclose(found.heldout_correlations_, expected.heldout_correlations_, atol=1e-3)
        assert np.allclose(found.fuse(scaled), expected.fuse(plain), atol=1e-3)
        for average in ("spherical", "posterior"):
            assert np.isfinite(found.fuse(scaled, average=average)).all()


@pytest.mark.parametrize("kind", [CCA, Joint, Procrustes])
def test_what_varies_too_little_for_a_float_is_refused_by_name(kind):
    tiny = views() | {"image": (views()["image"] * 1e-42).astype(np.float32)}
    with pytest.raises(ValueError, match=r"image: its columns vary by .* too little; rescale"):
        kind().fit(tiny)


@pytest.mark.parametrize("scale", [1e90, 1e150, 1e300])
def test_what_is_too_large_to_multiply_is_refused(scale):
    warnings.simplefilter("error")
    with pytest.raises(ValueError, match="cannot be multiplied; rescale"):
        PCA().fit({"a": views()["text"] * scale})


def test_a_masked_value_is_missing():
    given = views()
    masked = {name: np.ma.array(values, mask=False) for name, values in given.items()}
    masked["text"][:10] = np.ma.masked
    hidden = given | {"text": np.where(np.arange(120)[:, None] < 10, np.nan, given["text"])}
    found, expected = CCA(dim=2).fit(masked), CCA(dim=2).fit(hidden)
    assert found.n_ == 110
    assert np.array_equal(found.fuse(masked), expected.fuse(hidden))
    masked["image"][3, 1] = np.ma.masked
    with pytest.raises(ValueError, match="image: row 3 is partly NaN"):
        CCA().fit(masked)
    whole = {name: np.ma.array((values * 9).astype(int), mask=np.arange(120)[:, None] < 7 * np.ones(values.shape[1]))
             for name, values in given.items()}  # fmt: skip
    assert Moments.of(whole).n == 113


def test_names_of_inputs_are_text():
    with pytest.raises(TypeError, match="names of inputs must be text, not 0"):
        CCA().fit(dict(enumerate(views().values())))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CCA(regularization=None), "regularization must be"), (lambda: CCA(folds=0), "folds must be"),
        (lambda: CCA(regularization=np.nan), "regularization must be"), (lambda: Joint(gamma="x"), "gamma must be"),
        (lambda: Joint(gamma=np.nan), "gamma must be"), (lambda: CCA(regularization=-1), "regularization must be"),
        (lambda: CCA(dim=2.0), "dim must be"),
    ],
)  # fmt: skip
def test_parameters_are_refused_by_name(make, message):
    with pytest.raises(ValueError, match=message):
        make().fit(views())


@pytest.mark.parametrize("ridge", [-1, np.nan, "x", None])
def test_an_imputer_needs_a_ridge(ridge):
    with pytest.raises(ValueError, match="regularization must be"):
        Imputer(Moments.of(views()), ridge)


def test_figures_need_as_many_predictions_as_values():
    with pytest.raises(ValueError, match="2 true values and 1 predictions"):
        accuracy(["a", "b"], ["a"])
    with pytest.raises(ValueError, match=r"shape \(3,\) and predictions of shape \(3, 1\)"):
        r2(np.arange(3.0), np.arange(3.0)[:, None])
    assert retrieval(np.eye(3).tolist(), np.eye(3).tolist())["r1"] == 1.0
    with pytest.raises(ValueError, match="temperature"):
        retrieval(np.eye(3), np.eye(3), np.nan)
