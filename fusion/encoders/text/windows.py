"""Texts longer than a model reads: cut into windows, whose vectors are averaged."""

from collections.abc import Sequence

import numpy as np

from barycenter.fusion.encoders.base import Encoder, Vectors
from barycenter.fusion.encoders.text.encoder import TextEncoder
from barycenter.fusion.encoders.values import checked_text

_TOKENS_A_LAUNCH = 16_384


class Windowed(Encoder):
    """A text encoder that reads the whole of every text; one that fits the model gives the same vector as without it.

    Args:
        encoder: Encodes one window.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self.dim, self.trials, self.parallel = encoder.dim, encoder.trials, encoder.parallel

    def prepare(self, value: object) -> list[list[int]]:
        """Token ids of every window.

        Raises:
            BadInputError: As :func:`barycenter.fusion.encoders.values.checked_text`.
        """
        tokens = self._encoder.tokens
        return tokens(tokens.windows(checked_text(value)))

    def cost(self, prepared: list[list[int]]) -> int:
        """Tokens of all windows, each padded to the longest."""
        return len(prepared) * max(map(self._encoder.cost, prepared))

    def window(self, batch: int) -> int:
        """As the encoder of one window has it."""
        return self._encoder.window(batch)

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
