"""Texts longer than a model reads: cut into windows, whose vectors are averaged."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from barycenter.fusion.encoders.base import Encoder, Vectors
from barycenter.fusion.encoders.row_values import check_text

_TOKENS_A_LAUNCH = 16_384


class WindowedTextEncoder(Encoder):
    """A text encoder that reads the whole of every text; one that fits the model gives the same vector as without it.

    Args:
        encoder: The text encoder that encodes one window.
    """

    def __init__(self, encoder: Any) -> None:
        self._encoder = encoder
        self.dim, self.batch_sizes, self.parallel = encoder.dim, encoder.batch_sizes, encoder.parallel
        self.reproducible = encoder.reproducible

    def prepare(self, value: object) -> list[list[int]]:
        """Token ids of every window."""
        tokenizer = self._encoder.tokenizer
        windows: list[list[int]] = tokenizer(tokenizer.windows(check_text(value)))
        return windows

    def cost(self, prepared: list[list[int]]) -> int:
        """Tokens of all windows, each padded to the longest."""
        return len(prepared) * max(int(self._encoder.cost(window)) for window in prepared)

    def window_rows(self, batch_size: int) -> int:
        """As the encoder of one window has it."""
        return int(self._encoder.window_rows(batch_size))

    def encode(self, batch: Sequence[list[list[int]]]) -> Vectors:
        """Means over windows: (n, dim) float32."""
        counts = np.array([len(windows) for windows in batch])
        flat = [window for windows in batch for window in windows]
        order = sorted(range(len(flat)), key=lambda i: -len(flat[i]))
        vectors = np.zeros((len(flat), self.dim), np.float32)
        start = 0
        while start < len(flat):
            stop = start + max(1, _TOKENS_A_LAUNCH // max(1, len(flat[order[start]])))
            rows = order[start:stop]
            vectors[rows] = self._encoder.encode([flat[row] for row in rows])
            start = stop
        if (counts == 1).all():
            return vectors
        starts = np.cumsum(counts) - counts
        sums = np.add.reduceat(vectors.astype(np.float64), starts, axis=0)
        return np.asarray(sums / counts[:, None], np.float32)
