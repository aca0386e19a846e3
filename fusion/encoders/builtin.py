"""Encoders without weights: hashed n-grams for text, color and gradient statistics for pictures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.encoders.base import Description, Encoder, EncoderSpec, Vectors
from barycenter.fusion.encoders.image.decoding import decode
from barycenter.fusion.encoders.image.transforms import Pixels, Transform
from barycenter.fusion.encoders.row_values import check_text
from barycenter.fusion.errors import JobError

HASHING = "builtin/hashing"
DESCRIPTOR = "builtin/descriptor"

_WORDS, _CHARACTERS = 256, 256
_SIDE, _GRID, _LEVELS = 96, 4, 4
_CELLS, _ORIENTATIONS = 6, 9
_DESCRIPTOR_DIM = 6 * _GRID**2 + _LEVELS**3 + _ORIENTATIONS * _CELLS**2
_WHOLE = Transform((_SIDE, _SIDE), True, (_SIDE, _SIDE), 2, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def describe(spec: EncoderSpec) -> Description:
    """Width and fingerprint of a built-in encoder.

    Raises:
        JobError: No such built-in encoder for this kind of input.
    """
    if spec.encoder == HASHING and spec.kind == "text":
        return Description.of(_WORDS + _CHARACTERS, {"encoder": HASHING})
    if spec.encoder == DESCRIPTOR and spec.kind == "image":
        return Description.of(_DESCRIPTOR_DIM, {"encoder": DESCRIPTOR})
    only = HASHING if spec.kind == "text" else DESCRIPTOR
    raise JobError("encoder", f"no built-in encoder {spec.encoder!r} for {spec.kind} inputs; there is {only}")


def load(spec: EncoderSpec, device: str) -> Encoder:
    """A built-in encoder; it runs on the CPU whatever the device."""
    del device
    describe(spec)
    return HashingEncoder() if spec.encoder == HASHING else DescriptorEncoder(spec)


class HashingEncoder(Encoder):
    """Word and character n-grams hashed with signs (Weinberger et al. 2009), counts damped, unit length.

    Words and word pairs fill the first half of the vector, character 3- to 5-grams within words the second.
    """

    dim = _WORDS + _CHARACTERS
    reproducible = True

    def __init__(self) -> None:
        from sklearn.feature_extraction.text import HashingVectorizer

        self._words = HashingVectorizer(
            n_features=_WORDS, ngram_range=(1, 2), token_pattern=r"(?u)\b\w+\b", norm=None, dtype=np.float32
        )
        self._characters = HashingVectorizer(
            n_features=_CHARACTERS, analyzer="char_wb", ngram_range=(3, 5), norm=None, dtype=np.float32
        )

    def prepare(self, value: object) -> str:
        """Checks the text, as :func:`barycenter.fusion.encoders.row_values.check_text`."""
        return check_text(value)

    def encode(self, batch: Sequence[str]) -> Vectors:
        """Encodes texts: (n, 512) float32, rows of unit length."""
        if not len(batch):
            return np.zeros((0, self.dim), np.float32)
        halves = [_damped_unit(part.transform(batch).toarray()) for part in (self._words, self._characters)]
        return _unit(np.concatenate(halves, axis=1))


def _damped_unit(counts: Vectors) -> Vectors:
    return _unit(np.sign(counts) * np.log1p(np.abs(counts)))


def _unit(rows: Vectors) -> Vectors:
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12), np.float32)


class DescriptorEncoder(Encoder):
    """Color and gradient statistics of a picture squeezed to 96 x 96.

    Mean and deviation of each color over a 4 x 4 grid (96 values, divided by 4 so that they do not outweigh the rest),
    the square root of a 4 x 4 x 4 color histogram (64), and histograms of gradient orientation over a 6 x 6 grid,
    clipped and normalized over the picture after Dalal and Triggs 2005 (324).
    """

    dim = _DESCRIPTOR_DIM
    reproducible = True

    def __init__(self, spec: EncoderSpec) -> None:
        self._formats, self._max_pixels = spec.formats, spec.max_pixels

    def prepare(self, value: object) -> Pixels:
        """Decodes and squeezes one encoded picture: (96, 96, 3) uint8."""
        picture = decode(value, formats=self._formats, max_pixels=self._max_pixels, target=_WHOLE.target)
        return _WHOLE.pixels(picture)

    def encode(self, batch: Sequence[Pixels]) -> Vectors:
        """Encodes prepared pictures: (n, 484) float32."""
        if not len(batch):
            return np.zeros((0, self.dim), np.float32)
        pixels: NDArray[np.uint8] = np.stack([picture.transpose(2, 0, 1) for picture in batch])
        values = pixels.astype(np.float32) / 255.0
        parts = [_cell_moments(values), _color_histogram(pixels), _gradient_histograms(values.mean(axis=1))]
        return np.concatenate(parts, axis=1).astype(np.float32)


def _cell_moments(values: Vectors) -> Vectors:
    n, step = values.shape[0], _SIDE // _GRID
    cells = values.reshape(n, 3, _GRID, step, _GRID, step)
    both = [cells.mean(axis=(3, 5)).reshape(n, -1), cells.std(axis=(3, 5)).reshape(n, -1)]
    return np.asarray(np.concatenate(both, axis=1) / _GRID, np.float32)


def _color_histogram(pixels: NDArray[np.uint8]) -> Vectors:
    n = pixels.shape[0]
    levels = (pixels // (256 // _LEVELS)).astype(np.int64).reshape(n, 3, -1)
    color = (levels[:, 0] * _LEVELS + levels[:, 1]) * _LEVELS + levels[:, 2]
    bins = _LEVELS**3
    counts = np.bincount((color + bins * np.arange(n)[:, None]).ravel(), minlength=n * bins)
    return np.asarray(np.sqrt(counts.reshape(n, bins) / color.shape[1]), np.float32)


def _gradient_histograms(gray: Vectors) -> Vectors:
    n, step = gray.shape[0], _SIDE // _CELLS
    dy, dx = np.gradient(gray, axis=(1, 2))
    strength = np.hypot(dx, dy)
    turn = np.mod(np.arctan2(dy, dx), np.pi) * (_ORIENTATIONS / np.pi)
    orientation = np.minimum(turn.astype(np.int64), _ORIENTATIONS - 1)
    rows = np.arange(_SIDE) // step
    cell = rows[:, None] * _CELLS + rows[None, :]
    bins = _CELLS**2 * _ORIENTATIONS
    index = np.arange(n)[:, None, None] * bins + cell[None] * _ORIENTATIONS + orientation
    sums = np.bincount(index.ravel(), weights=strength.ravel(), minlength=n * bins).reshape(n, bins)
    unit = sums / np.sqrt((sums**2).sum(axis=1, keepdims=True) + 1e-2)
    clipped = np.minimum(unit, 0.2)
    return np.asarray(clipped / np.sqrt((clipped**2).sum(axis=1, keepdims=True) + 1e-4), np.float32)
