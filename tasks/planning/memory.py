"""Whether the encoders fit into the memory that this machine, or its container, allows."""

import json
import struct
from pathlib import Path

from barycenter.fusion.encoders import EncoderSpec
from barycenter.fusion.errors import JobError
from barycenter.fusion.machine_limits import usable_memory
from barycenter.tasks.run.context import Run

BESIDE = 2 << 30
"""Bytes that a run takes beside its model: driver, Ray, a temporary Prefect server, a worker's libraries and batch."""

_LOADING = 1.2
"""A model in memory while it is loaded, in bytes of its weights."""

_GIB = float(1 << 30)
_HALF = ("F16", "BF16")


def check_memory(run: Run) -> None:
    """Refuses an encoder whose weights do not fit into the memory of this machine; of other machines nothing is known.

    Raises:
        JobError: On the encoder, with what it needs and what there is.
    """
    allowed = usable_memory()
    if allowed is None or run.job.ray.address not in ("local", "none"):
        return
    for name, spec in run.specs.items():
        weights = weight_bytes(spec)
        needed = BESIDE + _LOADING * weights
        if weights and needed > allowed:
            raise JobError(
                f"inputs.{name}.encoder",
                f"its weights take {weights / _GIB:.1f} GiB in {spec.dtype}, and a run with it some "
                f"{needed / _GIB:.1f} GiB of memory; this machine, or its container, allows {allowed / _GIB:.1f} GiB: "
                "take a smaller encoder, a dtype of half the size, or a machine with more memory",
            )


def weight_bytes(spec: EncoderSpec) -> int:
    """Bytes of a local model's weights in the number format that they are used in; 0 where there is none or unknown."""
    place = Path(spec.weights or spec.encoder or "").expanduser()
    files = [place] if place.is_file() else []
    if place.is_dir():
        files = sorted(place.glob("*.safetensors")) or sorted(place.glob("*.bin"))
    used = 4 if spec.dtype == "float32" else 2
    return sum(round(path.stat().st_size * used / _stored_bytes(path)) for path in files)


def _stored_bytes(path: Path) -> int:
    """Bytes of a number in a safetensors file, by its first tensor; 4 where it does not say."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 100 << 20)))
    except (OSError, struct.error, ValueError):
        return 4
    dtypes = [about.get("dtype") for name, about in header.items() if name != "__metadata__"]
    return 2 if dtypes and dtypes[0] in _HALF else 4
