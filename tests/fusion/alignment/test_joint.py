import numpy as np
import pytest

from barycenter.fusion.alignment import CCA, Joint, Sample, load
from barycenter.fusion.moments import FoldMoments
from tests.fusion.alignment.test_linear import make_views


def test_joint_spans_cca_and_the_pca_of_the_scaled_concatenation():
    views = make_views(widths=(6, 5))
    folds = FoldMoments.of(views, precision="float64")
    cca = CCA(dim=3, regularization=0.1).fit_moments(folds)
    zero = Joint(dim=3, regularization=0.1, gamma=0.0).fit_moments(folds)
    for name in views:
        np.testing.assert_allclose(zero.weights_[name], cca.weights_[name], atol=1e-8)
    one = Joint(dim=4, gamma=1.0, regularization=0.1, block_weights={"text": 3.0, "image": 1.0}).fit_moments(folds)
    scaled = [
        np.sqrt(w) * (v - v.mean(axis=0)) / np.sqrt(v.var(axis=0).sum())
        for v, w in zip(views.values(), (3, 1), strict=True)
    ]
    scores = np.linalg.svd(np.hstack(scaled), full_matrices=False)
    expected = scores[0][:, :4] * scores[1][:4]
    fused = one.fuse(views)
    ratio = np.abs(fused) / np.abs(expected)
    np.testing.assert_allclose(ratio, np.broadcast_to(np.median(ratio), ratio.shape), rtol=1e-3)


def test_joint_with_a_target_spans_the_concatenation_and_the_regression_on_it(tmp_path):
    views = {name: values.astype(np.float64) for name, values in make_views(400).items()}
    folds = FoldMoments.of(views, 1, precision="float64")
    y = np.random.default_rng(0).normal(size=(400, 2)) + next(iter(views.values()))[:, :2]
    target = Sample(views, None, y[:, 0].tolist(), "regression").target()
    settings = {"dim": 5, "regularization": 0.1, "gamma": 1.0}
    faint = Joint(**settings, target_share=1e-9).fit_moments(folds, target)
    for name, block in Joint(**settings).fit_moments(folds).weights_.items():
        np.testing.assert_allclose(faint.weights_[name], block, atol=1e-5)
    strong = Joint(**settings, target_share=1 - 1e-9, target_ridge=1e-9).fit_moments(folds, target)
    stack = np.hstack([values - values.mean(axis=0) for values in views.values()])
    expected = stack @ np.linalg.lstsq(stack, y[:, 0], rcond=None)[0]
    first = strong.fuse(views)[:, 0]
    assert abs(np.corrcoef(first, expected)[0, 1]) > 1 - 1e-6
    with pytest.raises(ValueError, match="needs a target"):
        Joint(target_share=0.5).fit(views)
    with pytest.raises(ValueError, match="below 1"):
        Joint(target_share=1.0).fit_moments(folds, target)
    strong.save(tmp_path)
    loaded = load(tmp_path)
    assert np.array_equal(loaded.fuse(views), strong.fuse(views))
    for name, block in strong._solve(folds.total, 0.1, 5).items():
        assert np.array_equal(loaded._solve(folds.total, 0.1, 5)[name], block)
