import numpy as np
import pytest

from barycenter.fusion.ridge import Spectrum, eigh_of_rank, solve_ridge

RIDGES = (1e-3, 0.1, 10.0)


def system(rank=6, d=6):
    """A (d, d) covariance of the given rank, three right-hand sides within its range, and units of the columns."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, rank)) @ rng.normal(size=(rank, d))
    covariance = rows.T @ rows / len(rows)
    return covariance, covariance @ rng.normal(size=(d, 3)), np.repeat([2.0, 0.5], d // 2)


def spectrum_of(covariance, units):
    values, vectors = eigh_of_rank(covariance / np.sqrt(np.outer(units, units)))
    return Spectrum(vectors, values, units)


@pytest.mark.parametrize("ridge", RIDGES)
def test_both_ways_solve_the_system_that_they_name(ridge):
    covariance, cross, units = system()
    expected = np.linalg.inv(covariance + ridge * np.diag(units)) @ cross
    np.testing.assert_allclose(solve_ridge(covariance, cross, ridge, units), expected, rtol=1e-8)
    np.testing.assert_allclose(spectrum_of(covariance, units).solve(cross, ridge), expected, rtol=1e-8)


def test_by_default_the_ridge_is_relative_to_the_mean_variance():
    covariance, cross, _ = system()
    found = solve_ridge(covariance, cross, 0.1)
    np.testing.assert_allclose(solve_ridge(covariance * 1e6, cross * 1e6, 0.1), found, rtol=1e-9)
    np.testing.assert_allclose((covariance + 0.1 * np.trace(covariance) / 6 * np.eye(6)) @ found, cross)


def test_several_ridges_are_solved_side_by_side():
    covariance, cross, units = system()
    spectrum = spectrum_of(covariance, units)
    together = np.hsplit(spectrum.solve(cross, RIDGES), len(RIDGES))
    for ridge, part in zip(RIDGES, together, strict=True):
        np.testing.assert_array_equal(part, spectrum.solve(cross, ridge))


def test_the_spectrum_is_cut_at_the_numerical_rank():
    covariance, cross, units = system(rank=4)
    spectrum = spectrum_of(covariance, units)
    assert spectrum.rank == 4
    np.testing.assert_allclose(covariance @ spectrum.solve(cross, 0.0), cross, atol=1e-9)
    assert spectrum.leading(2).rank == 2


@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
def test_directions_of_rounding_are_cut_relative_to_the_largest_and_the_width(scale):
    def kept(*smallest, width=10):
        return len(eigh_of_rank(scale * np.diag([1.0] * (width - len(smallest)) + list(smallest)))[0])

    assert kept(3e-12) == 10
    assert kept(3e-13) == 9
    assert kept(1e-6, 1e-15, width=3) == 2
    assert kept(*[-1e-3] * 10) == kept(*[0.0] * 10) == 0


def test_what_rounding_left_indefinite_is_solved_on_the_spectrum():
    covariance, cross, units = system(rank=4)
    rounded = covariance - 1e-6 * np.eye(6)
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(rounded + 1e-9 * np.diag(units))
    found = solve_ridge(rounded, cross, 1e-9, units)
    np.testing.assert_allclose(rounded @ found, cross, atol=1e-5)
    own = solve_ridge(rounded, cross, 1e-9, units, fallback=lambda: spectrum_of(covariance, units).leading(0))
    assert not own.any()


def test_a_covariance_of_zeros_gives_zeros():
    assert not solve_ridge(np.zeros((3, 3)), np.zeros((3, 2)), 0.1).any()
