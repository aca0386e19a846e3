import numpy as np

from barycenter.fusion._posterior import FactorModel


def model(inputs=3, k=2, seed=0):
    """Loadings and noise of standardised inputs, and the correlations that they imply."""
    rng = np.random.default_rng(seed)
    loadings = [np.diag(rng.uniform(0.5, 0.9, k)) for _ in range(inputs)]
    noise = [np.eye(k) - w.T @ w for w in loadings]
    together = np.hstack(loadings)
    matrix = together.T @ together
    for m in range(inputs):
        matrix[m * k : (m + 1) * k, m * k : (m + 1) * k] += noise[m]
    return loadings, noise, matrix


def likelihood(found, matrix):
    together = np.hstack(list(found.loadings))
    implied = together.T @ together
    k = found.loadings.shape[1]
    for m, noise in enumerate(found.noise):
        implied[m * k : (m + 1) * k, m * k : (m + 1) * k] += noise
    return -np.linalg.slogdet(implied)[1] - np.trace(np.linalg.solve(implied, matrix))


def test_em_finds_the_model_that_made_the_moments():
    _, _, matrix = model(inputs=4)
    found = FactorModel.of_many(matrix, 4, rounds=3000)
    together = np.hstack(list(found.loadings))
    off = ~np.kron(np.eye(4), np.ones((2, 2))).astype(bool)
    np.testing.assert_allclose((together.T @ together)[off], matrix[off], atol=5e-3)


def test_no_round_of_em_lowers_the_likelihood():
    rng = np.random.default_rng(1)
    matrix = np.corrcoef((rng.normal(size=(200, 3)) @ rng.normal(size=(3, 6)) + rng.normal(size=(200, 6))).T)
    steps = [likelihood(FactorModel.of_many(matrix, 3, rounds), matrix) for rounds in (1, 2, 5, 20, 100)]
    assert (np.diff(steps) > -1e-3).all()


def test_gains_are_the_conditional_expectation_for_every_pattern():
    loadings, noise, matrix = model()
    found = FactorModel(np.stack(loadings), np.stack(noise))
    for present in ([0], [2], [0, 2], [0, 1, 2]):
        columns = np.concatenate([np.arange(2 * m, 2 * m + 2) for m in present])
        latent = np.hstack([loadings[m] for m in present])
        expected = np.linalg.solve(matrix[np.ix_(columns, columns)], latent.T)
        np.testing.assert_allclose(np.vstack(list(found.gains(present))), expected, atol=1e-10)


def test_an_input_of_noise_has_no_say_in_three():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(5000, 1))
    inputs = [z + 0.5 * rng.normal(size=(5000, 1)), z + 0.5 * rng.normal(size=(5000, 1)), rng.normal(size=(5000, 1))]
    gains = FactorModel.fit(np.corrcoef(np.hstack(inputs).T), 3).gains([0, 1, 2]).ravel()
    assert abs(gains[2]) < 0.1 * min(gains[:2])
