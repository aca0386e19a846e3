import numpy as np
import pytest

from barycenter.fusion.alignment import CCA, KernelCCA


def make_views(n=1500):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    return {"x": x, "y": np.stack([x[:, 0] ** 2, np.sin(2 * x[:, 1])], axis=1) + 0.1 * rng.normal(size=(n, 2))}


def small(**params):
    return KernelCCA(**{"dim": 2, "n_features": 100, **params})


def test_finds_what_linear_cca_cannot():
    views = make_views()
    linear = CCA(dim=2).fit(views).heldout_correlations_.sum()
    kernel = small().fit(views).heldout_correlations_.sum()
    assert kernel > 1.7 > linear + 0.5


def test_the_seed_decides():
    views = make_views(300)
    a, b, c = (small(seed=s).fit(views).fuse(views) for s in (1, 1, 2))
    assert np.array_equal(a, b)
    assert not np.allclose(a, c)


def test_missing_inputs_are_filled_in_feature_space():
    views = make_views()
    views["y"][:100] = np.nan
    a = small().fit(views)
    assert a.n_ == 1400
    fused = a.fuse(views)
    alone = a.fuse({"x": views["x"]})
    np.testing.assert_allclose(fused[:100], alone[:100], atol=1e-8)
    assert np.corrcoef(alone[100:, 0], fused[100:, 0])[0, 1] > 0.95
    assert np.isnan(a.transform(views)["y"][:100]).all()


def test_three_inputs():
    views = make_views()
    views["z"] = np.abs(views["x"])
    a = small(n_features=40).fit(views)
    assert a.heldout_correlations_[0] > 0.8
    for name in views:
        assert np.isfinite(a.fuse({name: views[name]})).all()


def test_held_out_correlations_foretell_new_rows():
    views = make_views(3000)
    a = small().fit({m: v[:1500] for m, v in views.items()})
    x, y = a.transform({m: v[1500:] for m, v in views.items()}).values()
    fresh = [np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(2)]
    np.testing.assert_allclose(a.heldout_correlations_, fresh, atol=0.05)


@pytest.mark.filterwarnings("ignore:.*rank")
def test_constant_inputs_and_bad_rows():
    views = make_views(50)
    views["y"][3, 0] = np.inf
    with pytest.raises(ValueError, match="y: row 3"):
        small().fit(views)
    views["y"][:] = 1.0
    assert np.isfinite(small().fit(views).fuse(views)).all()


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"regularization": 0}, "above 0"),
        ({"n_features": 7}, "even"),
        ({"bandwidth": 0.0}, "bandwidth"),
    ],
)
def test_wrong_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        small(**params).fit(make_views(20))


def test_moments_of_raw_views_are_refused():
    with pytest.raises(ValueError, match="fitted from views"):
        small().fit_moments([])
