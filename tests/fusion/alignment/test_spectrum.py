"""Spectra of the inputs: the scale of ridges, ranks, what rounding adds."""

import numpy as np
import pytest

from barycenter.fusion.alignment.eigenproblems import (
    held_variance,
    mean_variance,
    spectrum,
    stacked,
    units,
)
from barycenter.fusion.moments import Moments
from barycenter.fusion.ridge import solve_ridge
from tests.fusion.alignment.test_eigenproblems import make_views


@pytest.fixture(scope="module")
def moments():
    return Moments.of(make_views(), "float64")


def with_variances(variances, precision, n=1000):
    """One input whose columns are orthogonal and have exactly these variances."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(n, len(variances))))[0]
    basis = np.linalg.qr(basis - basis.mean(axis=0))[0]
    return Moments.of({"a": basis * np.sqrt(np.array(variances) * (n - 1))}, precision)


def test_a_spectrum_solves_with_its_ridge_in_units_of_each_input(moments):
    names = ("a", "b")
    right = np.random.default_rng(1).normal(size=(7, 2))
    matrix = stacked(moments, names, names)
    unit = np.concatenate([np.full(moments.dims[m], np.trace(moments.block(m, m)) / moments.dims[m]) for m in names])
    np.testing.assert_allclose(units(moments, names), unit)
    for ridge in (0.0, 0.1, 3.0):
        expected = np.linalg.solve(matrix + ridge * np.diag(unit), right)
        np.testing.assert_allclose(spectrum(moments, *names).solve(right, ridge), expected, rtol=1e-8)


def test_a_spectrum_is_that_of_the_scaled_covariance(moments):
    found = spectrum(moments, "a")
    matrix = moments.block("a", "a") / mean_variance(moments, "a")
    np.testing.assert_allclose(found.vectors @ np.diag(found.values) @ found.vectors.T, matrix, atol=1e-10)
    assert (np.diff(found.values) < 0).all()
    assert found.rank == 4
    np.testing.assert_allclose(found.leading(2).values, found.values[:2])
    assert found.leading(2).vectors.shape == (4, 2)
    assert found.leading(None) is found


def test_two_copies_of_columns_have_the_rank_of_one():
    views = make_views()
    for precision in ("float32", "float64"):
        twice = Moments.of({"a": np.hstack([views["a"], views["a"]])}, precision)
        assert spectrum(twice, "a").rank == 4


@pytest.mark.parametrize(("precision", "kept", "cut"), [("float32", 3e-7, 3e-8), ("float64", 3e-13, 3e-14)])
def test_a_column_far_below_the_largest_is_cut_and_not_before(precision, kept, cut):
    assert spectrum(with_variances([1.0, 0.05, kept], "float64"), "a").rank == 3
    moments = with_variances([1.0, 0.05, kept], precision)
    moments.precision = precision
    assert spectrum(moments, "a").rank == 3
    moments = with_variances([1.0, 0.05, cut], "float64")
    moments.precision = precision
    assert spectrum(moments, "a").rank == 2


@pytest.mark.parametrize(("precision", "kept", "cut"), [("float32", 3e-6, 3e-7), ("float64", 3e-11, 3e-12)])
def test_a_direction_that_is_rounding_of_its_columns_is_cut_and_not_before(precision, kept, cut):
    """The difference of two columns that are nearly equal, of so small a share of their variance."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(500, 2)))[0]
    basis = np.linalg.qr(basis - basis.mean(axis=0))[0] * np.sqrt(499)
    for share, rank in ((kept, 2), (cut, 1)):
        step = np.sqrt(share / 2)
        columns = np.column_stack([basis[:, 0] + sign * step * basis[:, 1] for sign in (1, -1)])
        moments = Moments.of({"a": columns}, "float64")
        moments.precision = precision
        assert spectrum(moments, "a").rank == rank


def test_there_are_no_more_directions_than_rows_less_one():
    values = np.random.default_rng(0).normal(size=(4, 9))
    for precision in ("float32", "float64"):
        assert spectrum(Moments.of({"a": values}, precision), "a").rank == 3
    assert spectrum(Moments({"a": 3}), "a").rank == 0
    assert spectrum(Moments.of({"a": np.ones((5, 3))}), "a").rank == 0


@pytest.mark.parametrize(("rows", "rank"), [(0, 0), (1, 0), (3, 2), (6, 5), (9, 5)])
def test_what_rounding_adds_to_few_rows_is_no_direction(rows, rank, monkeypatch):
    """The variances are those of many rows: all five would be kept for what they are."""
    moments = with_variances([5.0, 4.0, 3.0, 2.0, 1.0], "float64")
    monkeypatch.setattr(type(moments), "n", rows)
    found = spectrum(moments, "a")
    assert found.rank == rank
    assert (np.diff(found.values) < 0).all()


def test_variances_of_inputs(moments):
    assert mean_variance(moments, "b") == pytest.approx(np.trace(moments.block("b", "b")) / 3)
    still = Moments.of({"a": np.ones((5, 2))})
    assert mean_variance(still, "a") == 1.0
    whole = float(np.trace(moments.block("a", "a")))
    assert held_variance(2.5, moments, "a") == 2.5
    assert held_variance(whole * 1e-10, moments, "a") == whole
    assert held_variance(whole * 1e-8, moments, "a") == whole * 1e-8
    assert held_variance(0.0, still, "a") == 1.0


def test_a_ridge_is_relative_to_the_mean_of_the_diagonal():
    own = np.array([[2.0, 0.5], [0.5, 4.0]])
    cross = np.array([[1.0], [2.0]])
    np.testing.assert_allclose(solve_ridge(own, cross, 0.1), np.linalg.solve(own + 0.3 * np.eye(2), cross))
    np.testing.assert_allclose(own, [[2.0, 0.5], [0.5, 4.0]])
