"""What holds for every method: any pattern of missing inputs, any float type, degenerate inputs."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barycenter.fusion.alignment import CCA, PCA, Autoencoder, Contrastive, Identity, Joint, KernelCCA, Procrustes

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

MAKERS = {
    "none": lambda: Identity(),
    "pca": lambda: PCA(3),
    "procrustes": lambda: Procrustes(3),
    "cca": lambda: CCA(3),
    "joint": lambda: Joint(3, gamma=0.3),
    "kernel-cca": lambda: KernelCCA(3, n_features=20, folds=2),
    "autoencoder": lambda: Autoencoder(3, width=8, epochs=2),
    "contrastive": lambda: Contrastive(3, width=8, epochs=2),
}
NAMES = ("a", "b", "c")
_FITTED = {}


def make_views(n=120, width=6, seed=0, dtype=np.float32):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 3))
    return {m: (z @ rng.normal(size=(3, width)) + rng.normal(size=(n, width))).astype(dtype) for m in NAMES}


def fitted(method):
    if method not in _FITTED:
        _FITTED[method] = MAKERS[method]().fit(make_views())
    return _FITTED[method]


@pytest.mark.parametrize("method", MAKERS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_pattern_of_missing_inputs(method, data):
    """A row is fused from what it has, whatever other rows lack, and its missing inputs' values do not matter."""
    alignment, views = fitted(method), make_views(12, seed=1)
    patterns = [(1, 1, 1), (1, 1, 0), (1, 0, 1), (0, 1, 1), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    chosen = np.array(data.draw(st.lists(st.sampled_from(patterns), min_size=12, max_size=12)), dtype=bool)
    average = data.draw(st.sampled_from(["mean", "spherical", "posterior"]))
    masked = {m: np.where(chosen[:, i : i + 1], v, np.float32(np.nan)) for i, (m, v) in enumerate(views.items())}
    fused = alignment.fuse(masked, average)
    assert fused.shape == (12, alignment.dim_)
    assert np.isfinite(fused).all()
    for row in range(12):
        alone = {m: views[m][row : row + 1] for i, m in enumerate(NAMES) if chosen[row, i]}
        np.testing.assert_allclose(alignment.fuse(alone, average)[0], fused[row], atol=2e-5)
    for name, aligned in alignment.transform(masked).items():
        assert np.array_equal(np.isfinite(aligned).all(axis=1), chosen[:, NAMES.index(name)])


@pytest.mark.parametrize("method", MAKERS)
def test_float16_is_float32_of_the_same_values(method):
    half = make_views(dtype=np.float16)
    single = {name: values.astype(np.float32) for name, values in half.items()}
    a, b = MAKERS[method]().fit(half).fuse(half), MAKERS[method]().fit(single).fuse(single)
    assert a.dtype == np.float32
    assert np.array_equal(a, b)


@pytest.mark.parametrize("method", MAKERS)
@pytest.mark.parametrize("odd", ["fewer rows than columns", "rank deficient", "copied columns", "constant column"])
def test_degenerate_inputs_are_fused_finitely(method, odd):
    views = make_views(12, width=20) if odd.startswith("fewer") else make_views()
    if odd == "rank deficient":
        views["a"] = np.repeat(views["a"][:, :1], 6, axis=1) * np.arange(1, 7, dtype=np.float32)
    if odd == "copied columns":
        views["b"][:, 3:] = views["b"][:, :3]
    if odd == "constant column":
        views["c"][:, 2] = 5.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alignment = MAKERS[method]().fit(views)
    for names in (NAMES, NAMES[:2], NAMES[2:]):
        fused = alignment.fuse({name: values * 1.1 for name, values in views.items() if name in names})
        assert np.isfinite(fused).all()
        assert np.abs(fused).max() < 1e4


@pytest.mark.parametrize("method", MAKERS)
def test_a_partly_broken_row_is_named(method):
    views = make_views()
    views["b"][17, 2] = np.nan
    with pytest.raises(ValueError, match="b: row 17 is partly NaN or infinite"):
        MAKERS[method]().fit(views)
    with pytest.raises(ValueError, match="b: row 17 is partly NaN or infinite"):
        fitted(method).fuse(views)
    with pytest.raises(ValueError, match="c: fitted on 6 columns, got 5"):
        fitted(method).fuse({"c": views["c"][:, :5]})


@pytest.mark.parametrize("method", MAKERS)
def test_parameters_as_in_scikit_learn(method):
    from sklearn.base import clone

    alignment = MAKERS[method]()
    assert clone(alignment).get_params() == alignment.get_params()
    assert alignment.set_params(folds=4).folds == 4
