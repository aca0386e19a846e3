"""Whether a model's vectors are a function of their input alone: found by running a few rows, alone and together."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from barycenter.fusion.encoders.base import Encoder, Vectors
from barycenter.fusion.errors import JobError

TOLERANCE = 1e-4
"""Largest difference between two vectors of one row, relative to their length, in float32."""

ROWS_FILLED_TO = 16
"""Rows (tokens, or vectors) that a layer multiplies on a CPU are a multiple of it, so that none depends on how many.

Measured: MKL multiplies fewer than 4 rows otherwise than more, and layers that are no multiple of 16 wide end within a
vector register.
"""


def relative_difference(first: Vectors, second: Vectors) -> float:
    """The largest difference of two vectors of a row, relative to the length of the first.

    Of (n, d) vectors, rows that are not finite on either side are left out; those on one side only differ infinitely.

    >>> x = np.array([[3.0, 4.0], [np.nan, 1.0]], np.float32)
    >>> relative_difference(x, x), relative_difference(x, x + np.float32([0.0, 0.5]))
    (0.0, 0.1)
    """
    first_finite, second_finite = np.isfinite(first).all(axis=1), np.isfinite(second).all(axis=1)
    if (first_finite != second_finite).any():
        return float("inf")
    x, y = first[first_finite].astype(np.float64), second[first_finite].astype(np.float64)
    gaps = np.linalg.norm(x - y, axis=1) / np.maximum(np.linalg.norm(x, axis=1), np.finfo(np.float32).tiny)
    return float(gaps.max(initial=0.0))


def encode_one_by_one(encoder: Encoder, rows: Sequence[Any]) -> Vectors:
    """Each prepared row encoded by itself: (n, dim)."""
    return np.concatenate([encoder.encode([row]) for row in rows])


def depends_on_batch(
    encoder: Encoder, rows: Sequence[Any], tolerance: float = TOLERANCE, single: Vectors | None = None
) -> bool:
    """Whether rows get other vectors in one batch, in either order, than each by itself (``single``, where known)."""
    if single is None:
        single = encode_one_by_one(encoder, rows)
    together, reverse = encoder.encode(rows), encoder.encode(rows[::-1])[::-1]
    return max(relative_difference(single, together), relative_difference(single, reverse)) > tolerance


def gives_same_bytes(encoder: Encoder, rows: Sequence[Any]) -> bool:
    """Whether rows get the same bytes each by itself, in twos, all together and in reverse, computed on one thread.

    Args:
        encoder: On a CPU.
        rows: A few prepared rows that differ, some of one length where rows have one.
    """
    with one_torch_thread():
        together = encoder.encode(rows)
        others = (
            encode_one_by_one(encoder, rows),
            np.concatenate([encoder.encode(rows[start : start + 2]) for start in range(0, len(rows), 2)]),
            encoder.encode(rows[::-1])[::-1],
        )
    return all(np.array_equal(together.view(np.uint32), other.view(np.uint32)) for other in others)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """What torch computes on this thread stays on it, as in a pipeline."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_reproducible(encoder: Encoder, name: str) -> None:
    """Makes sure that an encoder is reproducible.

    Raises:
        JobError: It is not.
    """
    if not encoder.reproducible:
        raise JobError(
            "reproducible",
            f"{name} gives a row other bytes depending on the rows encoded with it, or runs on a GPU; leave the key out"
            " (vectors then differ in their last digits) or take another model",
        )


def check_independence(encoder: Encoder, rows: Sequence[Any], name: str) -> None:
    """Makes sure that a row's vector depends neither on chance nor on the rows that are encoded with it.

    Args:
        encoder: Loaded in float32.
        rows: A few prepared rows that differ, in length too where rows have one.
        name: The encoder's name for the message.

    Raises:
        JobError: It depends on one of them, or the vectors of all rows hold values that are not finite.
    """
    first = encode_one_by_one(encoder, rows)
    if not np.isfinite(first).all(axis=1).any():
        raise JobError(
            "encoder", f"{name} gives NaN or infinite values for every row that was tried; are its weights damaged?"
        )
    again = relative_difference(first, encode_one_by_one(encoder, rows))
    if again > TOLERANCE:
        raise JobError(
            "encoder",
            f"{name} draws at random: the same row encoded twice gives vectors that differ by {again:.2g} of their "
            "length; take a model whose vectors depend on the row alone",
        )
    if depends_on_batch(encoder, rows, single=first):
        raise JobError(
            "encoder",
            f"{name} gives a row other vectors depending on the rows encoded with it; take a model whose vectors "
            "depend on the row alone",
        )
