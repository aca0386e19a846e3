import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from barycenter.fusion.average import average

finite = st.floats(-100, 100, width=32)
matrix = arrays(np.float64, (4, 3), elements=finite)


@settings(max_examples=30)
@given(matrix, matrix, st.floats(0.01, 10), st.floats(0.01, 10))
def test_weighted_is_a_convex_combination(a, b, v, w):
    fused = average({"a": a, "b": b}, "weighted", {"a": v, "b": w})
    np.testing.assert_allclose(fused, (v * a + w * b) / (v + w), atol=1e-9)
    np.testing.assert_allclose(average({"a": a, "b": b}), (a + b) / 2, atol=1e-12)


@settings(max_examples=30)
@given(matrix, matrix)
def test_spherical_is_on_the_sphere_and_halfway(a, b):
    a[:, 0], b[:, 0] = 50, 60
    fused = average({"a": a, "b": b}, "spherical")
    np.testing.assert_allclose(np.linalg.norm(fused, axis=1), 1, atol=1e-12)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b)]
    cosines = [(fused * x).sum(axis=1) for x in unit]
    np.testing.assert_allclose(cosines[0], cosines[1], atol=1e-9)


def test_posterior_of_two_is_the_closed_form():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5000, 2))
    u, v = (z + rng.normal(size=z.shape) for _ in range(2))
    fused = average({"u": u, "v": v}, "posterior")
    r = np.array([np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(2)])
    standard = [(x - x.mean(axis=0)) / x.std(axis=0) for x in (u, v)]
    np.testing.assert_allclose(fused, np.sqrt(r) * (standard[0] + standard[1]) / (1 + r), atol=1e-9)


def test_posterior_of_three_downweights_noise():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5000, 1))
    aligned = {m: z + s * rng.normal(size=z.shape) for m, s in (("a", 0.5), ("b", 0.5), ("c", 5.0))}
    exact = aligned["a"] / 0.25 + aligned["b"] / 0.25 + aligned["c"] / 25
    found = average(aligned, "posterior")
    assert np.corrcoef(found[:, 0], exact[:, 0])[0, 1] > 0.995
    assert np.corrcoef(found[:, 0], z[:, 0])[0, 1] > np.corrcoef(average(aligned)[:, 0], z[:, 0])[0, 1] + 0.1


@pytest.mark.parametrize("method", ["mean", "spherical", "posterior"])
def test_types_and_one_input(method):
    values = np.random.default_rng(0).normal(size=(20, 3))
    assert average({"a": values.astype(np.float16)}, method).dtype == np.float32
    assert average({"a": values}, method).shape == (20, 3)


def test_complaints():
    a = np.ones((3, 2))
    with pytest.raises(ValueError, match="differ in width"):
        average({"a": a, "b": np.ones((3, 1))})
    with pytest.raises(ValueError, match="b: row 1 is missing"):
        average({"a": a, "b": np.array([[1, 1], [np.nan, np.nan], [1, 1]])})
    with pytest.raises(ValueError, match="unknown average"):
        average({"a": a}, "mode")
    with pytest.raises(TypeError, match=r"expected \{input name"):
        average([a, a])
    with pytest.raises(TypeError, match="weights must be"):
        average({"a": a, "b": a}, "weighted", [1, 2])
    with pytest.raises(TypeError, match="weights must be numbers"):
        average({"a": a, "b": a}, "weighted", {"a": "1", "b": 2})


def test_a_constant_input_has_no_say_in_the_posterior_mean():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(50, 2)).astype(np.float32)
    constant = np.full((50, 2), 0.1, np.float32)
    fused = average({"a": values, "b": constant}, "posterior")
    np.testing.assert_allclose(fused, average({"a": values}, "posterior"), atol=1e-5)


@given(st.floats(0.1, 10), st.integers(0, 2))
def test_an_input_of_weight_zero_does_not_matter(weight, seed):
    rng = np.random.default_rng(seed)
    given_ = {name: rng.normal(size=(5, 3)) for name in ("a", "b", "c")}
    weights = {"a": weight, "b": 1.0, "c": 0.0}
    kept = {name: given_[name] for name in ("a", "b")}
    for method in ("weighted", "spherical"):
        expected = average(kept, method, {"a": weight, "b": 1.0})
        np.testing.assert_allclose(average(given_, method, weights), expected, atol=1e-12)
