"""Rows that lack inputs predict the target as a ridge regression on what they have; the probe is that of whole rows."""

from itertools import combinations

import numpy as np
import pytest

from barycenter.fusion.alignment import Joint
from barycenter.fusion.alignment.eigenproblems import units
from barycenter.fusion.alignment.sample import Sample
from barycenter.fusion.alignment.target_fill import (
    fused_covariance,
    head_fill_ridges,
    head_ridge,
    maps_for_target,
    probe_of,
)
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.moments import Moments


def make_rows(widths, n=400):
    rng = np.random.default_rng(2)
    z = rng.normal(size=(n, 3))
    views = {
        m: z @ rng.normal(size=(3, w)) + 0.5 * rng.normal(size=(n, w))
        for m, w in zip("abc", widths, strict=False)
    }  # fmt: skip
    return views, z @ [1.0, -2.0, 0.5] + 0.1 * rng.normal(size=n)


def ridge_of(values, y):
    return LinearHead(task="regression").fit(values, y, groups=range(len(y))).ridge_


@pytest.mark.parametrize("shares", [None, {"a": 3.0, "b": 1.0, "c": 2.0}])
@pytest.mark.parametrize("widths", [(4, 5), (4, 3, 5)])
@pytest.mark.parametrize("own", [False, True])
def test_what_is_filled_in_predicts_what_the_inputs_present_predict(widths, shares, own):
    views, y = make_rows(widths)
    moments, sample = Moments.of(views, "float64"), Sample(views, None, y).complete()
    ridges = {m: 0.05 * (number + 1) for number, m in enumerate(views)}
    fitted = Joint(dim=3, fill_ridges=ridges).fit_moments([moments])
    given = None if shares is None else {m: shares[m] for m in views}
    asked = {"own_ridges": True} if own else {}
    maps, ridge = maps_for_target(fitted.projection_, moments, sample, given, **asked)

    share = {m: 1 / len(views) if given is None else given[m] / sum(given.values()) for m in views}
    blocks = {m: fitted.projection_.weights[m] * share[m] for m in views}
    fused = sum((views[m] - views[m].mean(axis=0)) @ blocks[m] for m in views)
    covariance = np.cov(fused.T)
    np.testing.assert_allclose(fused_covariance(moments, blocks), covariance, rtol=1e-8, atol=1e-12)
    assert ridge == pytest.approx(ridge_of(fused, y), rel=1e-6)
    centered = y - y.mean()
    cross = {m: (views[m] - views[m].mean(axis=0)).T @ centered / (len(y) - 1) for m in views}
    mean = np.trace(covariance) / 3
    probe = np.linalg.solve(covariance + ridge * mean * np.eye(3), sum(blocks[m].T @ cross[m] for m in views))
    np.testing.assert_allclose(
        probe_of(moments, blocks, sample.target(), ridge, covariance)[:, 0], probe, rtol=1e-6, atol=1e-9
    )
    if len(widths) == 2:
        heads = {"a": ridge_of(views["b"], y), "b": ridge_of(views["a"], y)}
        assert head_fill_ridges(sample) == heads
        ridges = ridges if own else heads

    patterns = {names for count in range(1, len(views)) for names in combinations(views, count)}
    assert set(maps) == patterns
    for present in patterns:
        missing = [m for m in views if m not in present]
        own_covariance = np.cov(np.hstack([views[m] for m in present]).T)
        lift = max(ridges[m] for m in missing) * np.diag(units(moments, present))
        expected = np.linalg.solve(own_covariance + lift, np.concatenate([cross[m] for m in present]))
        parts = np.split(maps[present], len(missing), axis=1)
        filled = sum(part * share[m] for part, m in zip(parts, missing, strict=True))
        whole = np.vstack([blocks[m] for m in present]) + filled
        np.testing.assert_allclose(whole @ probe, expected, rtol=1e-6, atol=1e-8)
        before = fitted.projection_.missing_map(present)
        change = (maps[present] - before).reshape(len(before), len(missing), 3)
        np.testing.assert_allclose(change, change[:, :1].repeat(len(missing), axis=1), atol=1e-12)
        along = (
            change[:, 0]
            - np.outer(change[:, 0] @ (covariance @ probe), covariance @ probe) / np.square(covariance @ probe).sum()
        )
        np.testing.assert_allclose(along, 0, atol=1e-9), "rows are moved along the target's direction only"


@pytest.mark.parametrize("own", [False, True])
def test_an_alignment_fills_in_by_the_maps_for_the_target(own):
    views, y = make_rows((4, 5))
    moments, sample = Moments.of(views, "float64"), Sample(views, None, y)
    fitted = Joint(dim=3, fill_ridges={"a": 0.1, "b": 0.2} if own else None).fit_moments([moments])
    maps, ridge = maps_for_target(fitted.projection_, moments, sample.complete(), None, own)
    whole = fitted.fuse(views)
    assert fitted.fill_for_target(moments, sample) == ridge
    for present, coefficients in maps.items():
        np.testing.assert_array_equal(fitted.projection_.missing_map(present), coefficients)
    np.testing.assert_array_equal(fitted.fuse(views), whole)


def test_an_input_without_weight_is_not_filled_in():
    views, y = make_rows((4, 5))
    moments = Moments.of(views, "float64")
    fitted = Joint(dim=3).fit_moments([moments])
    maps, _ = maps_for_target(fitted.projection_, moments, Sample(views, None, y), {"a": 1.0, "b": 0.0})
    assert set(maps) == {("b",)}


def test_the_ridge_of_a_head_is_that_of_its_groups():
    views, y = make_rows((4, 5), 60)
    noisy = y + 5 * np.random.default_rng(0).normal(size=60)
    groups = np.arange(60) // 15
    grouped = LinearHead(task="regression").fit(views["a"], noisy, groups=groups).ridge_
    assert head_ridge(views["a"], Sample(views, groups, noisy)) == grouped
