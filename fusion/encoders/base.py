"""What every encoder is: a description without weights, and a loaded model that prepares and encodes rows."""

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
Vectors: TypeAlias = NDArray[np.float32]

IMPLEMENTATION_VERSION = 6
"""Part of every encoder id; raised whenever this package would compute different vectors from the same files."""

DEFAULT_FORMATS = (
    "PNG", "JPEG", "MPO", "TIFF", "WEBP", "BMP", "GIF", "PPM", "TGA", "AVIF", "JPEG2000", "ICO", "PSD", "QOI", "SGI",
    "DDS", "FLI",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """Overrides a picture encoder's own preprocessing.

    Attributes:
        resize: Shorter edge after resizing, pixels.
        crop: Edge of the square cut from the center, pixels.
        mean: Per-channel mean of values in 0..1.
        std: Per-channel standard deviation of values in 0..1.
    """

    resize: int
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


@dataclass(frozen=True, slots=True)
class EncoderSpec:
    """One input's encoder as the job file names it: plain, picklable data.

    Attributes:
        kind: What the input holds.
        encoder: Hub id or local folder (transformers), ``torchvision/<architecture>``, ``builtin/hashing`` or
            ``builtin/descriptor``; None for a vector input.
        weights: Local ``.safetensors`` or ``.pth``/``.pt`` file for a torchvision architecture.
        preprocessing: Replaces the picture preprocessing that belongs to the weights.
        trust_remote_code: Whether code shipped with a transformers model may run.
        width: Width of a vector input.
        max_pixels: Pictures with more pixels are refused before decoding.
        formats: Pillow's names of the picture formats that may be decoded.
        dtype: ``float32``, ``bfloat16`` or ``float16``: the precision the model runs in.
        long_text: ``truncate`` or ``window-mean``: what is read of a text longer than the model reads.
        engine: What runs the model: ``torch``.
        onednn: Whether linear layers on a CPU may run through oneDNN; a matter of speed, in no id.
        reproducible: Whether a row's vector is the same to the last byte whatever is encoded with it: None where that
            costs nothing to speak of, True at any price, False never.
    """

    kind: Literal["text", "image", "vector"]
    encoder: str | None
    weights: str | None = None
    preprocessing: Preprocessing | None = None
    trust_remote_code: bool = False
    width: int | None = None
    max_pixels: int = 50_000_000
    formats: tuple[str, ...] = DEFAULT_FORMATS
    dtype: str = "float32"
    long_text: str = "truncate"
    engine: str = "torch"
    onednn: bool = True
    reproducible: bool | None = None


@dataclass(frozen=True, slots=True)
class Description:
    """What an encoder will compute, known without loading its weights.

    Attributes:
        dim: Width of its vectors.
        fingerprint: Everything the vectors depend on; holds no path.
        encoder_id: Hex hash of the fingerprint's canonical JSON.
    """

    dim: int
    fingerprint: dict[str, JSON]
    encoder_id: str

    @classmethod
    def of(cls, dim: int, fingerprint: dict[str, JSON]) -> "Description":
        """A description whose id is the hash of ``fingerprint``, the width and the implementation's version.

        >>> a = Description.of(3, {"kind": "vector"})
        >>> a.encoder_id == Description.of(3, {"kind": "vector"}).encoder_id, len(a.encoder_id)
        (True, 20)
        """
        whole: dict[str, JSON] = {**fingerprint, "dim": dim, "implementation": IMPLEMENTATION_VERSION}
        canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return cls(dim, whole, hashlib.sha256(canonical.encode()).hexdigest()[:20])


class Encoder(ABC):
    """A loaded model. ``prepare`` may run on many threads at once, the model on one unless ``parallel``.

    Attributes:
        dim: Width of the vectors.
        batch_sizes: Batch sizes worth trying, ascending, in units of :meth:`cost`.
        parallel: Whether batches may be launched on several threads at once, a core for each.
        reproducible: Whether a row gets the same bytes whatever is encoded with it and however many threads there are,
            on a CPU with one version of the libraries.
        least_rows: Rows a launch is filled up to, so that smaller batches only waste time.
    """

    dim: int
    batch_sizes: tuple[int, ...] = (256,)
    parallel: bool = False
    reproducible: bool = False
    least_rows: int = 1

    @abstractmethod
    def prepare(self, value: object) -> Any:
        """Turns one row's value into what the model reads; thread-safe, on the CPU.

        Raises:
            BadInputError: The value cannot be encoded.
        """

    def cost(self, prepared: Any) -> int:
        """Share of a batch that a prepared row takes: tokens for text, otherwise 1."""
        del prepared
        return 1

    def window_rows(self, batch_size: int) -> int:
        """Rows that are prepared together before they are divided into batches."""
        return batch_size

    def launch(self, batch: Sequence[Any]) -> Any:
        """Starts the model on prepared rows; on a GPU it returns before the vectors are there."""
        return self.encode(batch)

    def fetch(self, launched: Any) -> Vectors:
        """Waits for what :meth:`launch` started: (n, dim) float32."""
        return cast(Vectors, launched)

    @abstractmethod
    def encode(self, batch: Sequence[Any]) -> Vectors:
        """Encodes prepared rows: (n, dim) float32."""
