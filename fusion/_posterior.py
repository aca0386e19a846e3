"""Posterior mean of a shared latent vector given aligned inputs (probabilistic CCA and factor analysis)."""

from collections.abc import Sequence

import numpy as np
import scipy.linalg

from barycenter.fusion.arrays import Float64

_CEILING = 1 - 1e-6


class FactorModel:
    r"""Standardized aligned inputs :math:`a_m = z W_m + e_m`, :math:`z \sim N(0, I)`, :math:`e_m \sim N(0, \Psi_m)`.

    Args:
        loadings: (M, k, k) W_m, rows latent, columns aligned components.
        noise: (M, k, k) covariances Psi_m.
    """

    def __init__(self, loadings: Float64, noise: Float64) -> None:
        self.loadings, self.noise = loadings, noise
        self._gains = np.stack([np.linalg.solve(p, w.T) for p, w in zip(noise, loadings, strict=True)])

    @classmethod
    def from_correlations(cls, correlations: Float64) -> "FactorModel":
        r"""Two inputs, Bach and Jordan (2005): :math:`E[z|x,y] = \sqrt r (u+v)/(1+r)`, :math:`E[z|x] = \sqrt r u`.

        Only the product of the two loadings is identified; both are taken as the root of the correlation.
        Correlations below zero count as none.
        """
        r = np.clip(correlations, 0.0, _CEILING)
        return cls(np.stack([np.diag(np.sqrt(r))] * 2), np.stack([np.diag(1 - r)] * 2))

    @classmethod
    def of_two(cls, matrix: Float64) -> "FactorModel":
        r"""Two inputs whose components do not correspond: the same model in canonical coordinates.

        .. math:: W_m = \sqrt R\, A_m^\top C_m^{1/2}, \quad
            C_1^{-1/2} C_{12} C_2^{-1/2} = A_1 R A_2^\top, \quad \Psi_m = C_m - W_m^\top W_m

        with z turned to resemble the mean of the inputs.
        """
        k = len(matrix) // 2
        blocks = (slice(0, k), slice(k, 2 * k))
        roots, inverses = [], []
        for b in blocks:
            values, vectors = scipy.linalg.eigh(matrix[b, b])
            values = np.clip(values, 1e-6 * max(values[-1], 1e-300), None)
            roots.append((vectors * np.sqrt(values)) @ vectors.T)
            inverses.append((vectors / np.sqrt(values)) @ vectors.T)
        left, r, right = scipy.linalg.svd(inverses[0] @ matrix[blocks[0], blocks[1]] @ inverses[1])
        share = np.sqrt(np.clip(r, 0, _CEILING))[:, None]
        loadings = [share * (left.T @ roots[0]), share * (right @ roots[1])]
        turn, _, back = scipy.linalg.svd(loadings[0] + loadings[1])
        rotation = (turn @ back).T
        noise = [root @ root - w.T @ w + 1e-9 * np.eye(k) for root, w in zip(roots, loadings, strict=True)]
        return cls(np.stack([rotation @ w for w in loadings]), np.stack(noise))

    @classmethod
    def of_many(cls, matrix: Float64, inputs: int, rounds: int = 200) -> "FactorModel":
        r"""EM for factor analysis with block-diagonal noise, from the (M k, M k) correlations S of aligned inputs.

        .. math:: \Lambda = I + \sum_m W_m \Psi_m^{-1} W_m^\top, \quad \beta = \Lambda^{-1} W \Psi^{-1}, \quad
            W \leftarrow (\Lambda^{-1} + \beta S \beta^\top)^{-1} \beta S, \quad
            \Psi_m \leftarrow S_{mm} - W_m^\top (\beta S)_m

        as Rubin and Thayer (1982), with Psi cut to its diagonal blocks (Klami et al. 2013: group factor analysis).
        Three inputs identify what two cannot: how much of each is shared. One that is noise gets no say.

        >>> shared = np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])
        >>> gains = FactorModel.of_many(shared, 3, rounds=500).gains([0, 1, 2]).ravel()
        >>> gains.round(2).tolist()
        [0.5, 0.5, 0.0]
        """
        k = len(matrix) // inputs
        blocks = [slice(m * k, (m + 1) * k) for m in range(inputs)]
        shared = sum(matrix[blocks[a], blocks[b]] for a in range(inputs) for b in range(inputs) if a != b)
        start = np.clip(np.diag(np.asarray(shared)) / (inputs * (inputs - 1)), 0.05, 0.95)
        loadings = np.hstack([np.diag(np.sqrt(start))] * inputs)
        floor = 1e-4 * np.eye(k)
        noise = np.stack([matrix[b, b] * (1 - np.sqrt(np.outer(start, start))) + floor for b in blocks])
        for _ in range(rounds):
            gains = np.vstack([np.linalg.solve(noise[m], loadings[:, b].T) for m, b in enumerate(blocks)])
            covariance = np.linalg.inv(np.eye(k) + loadings @ gains)
            posterior = gains @ covariance
            cross = posterior.T @ matrix
            second = covariance + cross @ posterior
            updated = np.linalg.solve(second, cross)
            for m, b in enumerate(blocks):
                rest = matrix[b, b] - updated[:, b].T @ cross[:, b]
                noise[m] = (rest + rest.T) / 2 + floor
            change = np.abs(updated - loadings).max()
            loadings = updated
            if change < 1e-5:
                break
        return cls(np.stack([loadings[:, b] for b in blocks]), noise)

    @classmethod
    def fit(cls, matrix: Float64, inputs: int, canonical: Float64 | None = None) -> "FactorModel":
        """The model of (M k, M k) correlations of M aligned inputs; one without variance has no say.

        ``canonical`` are (k,) correlations to use where two inputs' components correspond one to one.
        """
        varying = [m for m in range(inputs) if np.diag(matrix).reshape(inputs, -1)[m].any()]
        if len(varying) < inputs:
            return cls._among(matrix, inputs, varying)
        if inputs == 1:
            return cls(np.eye(len(matrix))[None], 1e-6 * np.eye(len(matrix))[None])
        if inputs > 2:
            return cls.of_many(matrix, inputs)
        return cls.of_two(matrix) if canonical is None else cls.from_correlations(canonical)

    @classmethod
    def _among(cls, matrix: Float64, inputs: int, varying: Sequence[int]) -> "FactorModel":
        """The model of some of the inputs, the others without a say."""
        k = len(matrix) // inputs
        loadings, noise = np.zeros((inputs, k, k)), np.stack([np.eye(k)] * inputs)
        if varying:
            index = np.concatenate([np.arange(m * k, (m + 1) * k) for m in varying])
            part = cls.fit(matrix[np.ix_(index, index)], len(varying))
            loadings[varying], noise[varying] = part.loadings, part.noise
        return cls(loadings, noise)

    def gains(self, present: Sequence[int]) -> Float64:
        """(len(present), k, k) matrices G with E[z | present] = sum a_m G_m."""
        k = self.loadings.shape[1]
        precision = np.eye(k) + sum(self.loadings[m] @ self._gains[m] for m in present)
        return np.stack([np.linalg.solve(precision.T, self._gains[m].T).T for m in present])
