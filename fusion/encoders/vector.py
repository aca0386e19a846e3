"""Numeric list columns passed through as they are."""

from collections.abc import Sequence

import numpy as np

from barycenter.fusion.encoders.base import Description, Encoder, EncoderSpec, Vectors
from barycenter.fusion.encoders.row_values import is_null
from barycenter.fusion.errors import BadInputError, JobError, Reason


def describe(spec: EncoderSpec) -> Description:
    """A vector input's description; its identity is its width.

    Raises:
        JobError: The width is not known.
    """
    if spec.width is None or spec.width < 1:
        raise JobError("column", "the vectors' width is not known; the column needs at least one non-empty list")
    return Description.of(spec.width, {"kind": "vector"})


def load(spec: EncoderSpec, device: str) -> "VectorEncoder":
    """The checks of a vector input; they run on the CPU whatever the device."""
    del device
    return VectorEncoder(describe(spec).dim)


class VectorEncoder(Encoder):
    """Checks vectors and stacks them."""

    reproducible = True

    def __init__(self, dim: int) -> None:
        self.dim = dim

    def prepare(self, value: object) -> Vectors:
        """One list of numbers as (dim,) float32.

        Raises:
            BadInputError: NULL, NOT_NUMERIC, WRONG_LENGTH or NOT_FINITE.
        """
        if is_null(value):
            raise BadInputError(Reason.NULL)
        vector = _as_float(value)
        if vector.ndim != 1 or vector.shape[0] != self.dim:
            shape = "x".join(map(str, vector.shape)) or "a single number"
            raise BadInputError(Reason.WRONG_LENGTH, f"{shape} instead of {self.dim}")
        finite = np.isfinite(vector)
        if not finite.all():
            at = int(np.argmin(finite))
            raise BadInputError(Reason.NOT_FINITE, f"element {at} is {vector[at]}")
        return vector

    def encode(self, batch: Sequence[Vectors]) -> Vectors:
        """Stacks prepared vectors: (n, dim) float32."""
        return np.stack(batch) if len(batch) else np.zeros((0, self.dim), np.float32)


def _as_float(value: object) -> Vectors:
    try:
        array = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise BadInputError(Reason.NOT_NUMERIC, str(error)) from None
    if array.dtype.kind not in "fiub" and array.size:
        raise BadInputError(Reason.NOT_NUMERIC, f"{type(value).__name__} {str(value)[:80]}")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
