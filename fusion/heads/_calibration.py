"""What a head's scores mean: calibrated probabilities, targets as they were given, and how good they are.

Calibration: one temperature for classes (Guo et al. 2017), a slope and an offset for every label (Platt 1999).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from barycenter.fusion.arrays import Float64
from barycenter.fusion.heads.targets import Targets, Task, column
from barycenter.fusion.metrics import accuracy, r2

_MAX_LOG_SLOPE = 12.0


@dataclass(frozen=True)
class CalibratedScores:
    """Reads (n, k) scores.

    Attributes:
        targets: What the columns mean.
        slope: (k,) of the logits.
        offset: (k,) of the logits.
    """

    targets: Targets
    slope: Float64
    offset: Float64

    @classmethod
    def calibrated(cls, targets: Targets, scores: Float64, Y: Float64, weights: Float64) -> "CalibratedScores":
        """Calibrated on held-out scores, their encoded targets and row weights."""
        return cls(targets, *_calibrate(targets.task, scores, Y, weights))

    def probabilities(self, scores: Float64) -> Float64:
        """(n, k) probabilities of classes or labels."""
        logits = scores * self.slope + self.offset
        return np.asarray(softmax(logits, axis=1) if self.targets.task == "classification" else expit(logits))

    def decode(self, scores: Float64) -> NDArray[Any]:
        """Targets as they were given."""
        return self.targets.decode(self.probabilities(scores) if self.targets.task == "multilabel" else scores)

    def score(self, scores: Float64, y: Sequence[Any] | NDArray[Any]) -> float:
        """Accuracy (of whole label sets for multilabel), or R2."""
        y = column(y) if isinstance(y, np.ndarray) and self.targets.shape != "matrix" else y
        if self.targets.task == "regression":
            return r2(self.targets.encode(y), scores)
        if self.targets.task == "classification":
            return accuracy(y, self.decode(scores))
        if len(y) != len(scores):
            raise ValueError(f"{len(scores)} rows of features and {len(y)} targets; both must be as many")
        return float((self.targets.encode(y) == (self.probabilities(scores) > 0.5)).all(axis=1).mean())


def _calibrate(task: Task, scores: Float64, Y: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """Slopes and offsets that turn scores into logits, by maximum likelihood."""
    k = Y.shape[1]
    if task == "regression":
        return np.ones(k), np.zeros(k)
    if task == "classification":
        target = Y.argmax(axis=1)

        def loss(log_slope: float) -> float:
            rows = log_softmax(np.exp(log_slope) * scores, axis=1)
            return -float(weights @ np.take_along_axis(rows, target[:, None], axis=1)[:, 0])

        found = minimize_scalar(loss, bounds=(-_MAX_LOG_SLOPE / 4, _MAX_LOG_SLOPE), method="bounded")
        return np.full(k, np.exp(found.x)), np.zeros(k)
    fitted = np.array([_platt(scores[:, label], Y[:, label]) for label in range(k)]).reshape(k, 2)
    return fitted[:, 0].copy(), fitted[:, 1].copy()


def _platt(scores: Float64, target: Float64, steps: int = 30) -> Float64:
    """Slope and offset of a logistic regression on one score, by Newton's method with a weak prior at (1, 0)."""
    inputs = np.stack([scores, np.ones(len(scores))], axis=1)
    solution = np.array([1.0, 0.0])
    prior = 1e-3
    for _ in range(steps):
        p = expit(inputs @ solution)
        gradient = inputs.T @ (p - target) + prior * (solution - [1.0, 0.0])
        hessian = (inputs * (p * (1 - p))[:, None]).T @ inputs + prior * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        solution = solution - step * min(1.0, 4.0 / max(float(np.abs(step).max()), 1e-12))
        if np.abs(step).max() < 1e-8:
            break
    return np.asarray(solution)
