"""Split MNIST: the left and the right half of every digit as two views: the protocol of Deep CCA (Andrew 2013)."""

import gzip

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment import Alignment
from benchmarks.harness import shared

TRAIN = 54_000
COMPONENTS = 50
Views = dict[str, NDArray[np.float32]]


def halves() -> tuple[Views, Views]:
    """The 54,000 rows to fit on and the 6,000 to score; pixels / 255, 392 a half."""
    content = gzip.decompress(shared("data/mnist_train/train-images-idx3-ubyte.gz").read_bytes())
    pixels = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 28, 28).astype(np.float32) / 255
    views = {"left": pixels[:, :, :14].reshape(-1, 392), "right": pixels[:, :, 14:].reshape(-1, 392)}
    return {n: v[:TRAIN] for n, v in views.items()}, {n: v[TRAIN:] for n, v in views.items()}


def correlations(left: NDArray[np.floating], right: NDArray[np.floating]) -> NDArray[np.float64]:
    """(components,) correlation of every column."""
    a, b = (values.astype(np.float64) - values.mean(axis=0, dtype=np.float64) for values in (left, right))
    return np.asarray((a * b).sum(axis=0) / np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0)))


def score(alignment: Alignment, views: Views) -> float:
    """The sum of held-out correlations."""
    aligned = alignment.transform(views)
    return float(correlations(aligned["left"], aligned["right"]).sum())
