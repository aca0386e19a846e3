"""Whether the encoders fit into the memory that this machine, or its container, allows."""

import json
import struct
from pathlib import Path
from typing import Any

from barycenter.fusion.encoders import EncoderSpec
from barycenter.fusion.errors import JobError
from barycenter.fusion.machine_limits import usable_memory
from barycenter.tasks.embed.stage import pending_shards
from barycenter.tasks.run.context import Run

BESIDE = {"local": 2 << 30, "none": 1 << 30}
"""Bytes that a run takes beside its model, by ``ray.address``: driver, Prefect, libraries, a batch; with Ray, Ray."""

_LOADING = 1.2
"""A model in memory while it is loaded, in bytes of its weights."""

_GIB = float(1 << 30)
_HALF = ("F16", "BF16")


def check_memory(run: Run) -> None:
    """Refuses an encoder whose weights do not fit into the memory of this machine; of other machines nothing is known.

    Raises:
        JobError: On the encoder, with what it needs and what there is.
    """
    allowed, beside = usable_memory(), BESIDE.get(run.job.ray.address)
    if allowed is None or beside is None:
        return
    for name, spec in run.specs.items():
        weights = weight_bytes(spec)
        needed = beside + _LOADING * weights
        if weights and needed > allowed and (run.unjoined or pending_shards(run, name)):
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
        files = _files_of(place)
    used = 4 if spec.dtype == "float32" else 2
    return sum(round(path.stat().st_size * used / _stored_bytes(path)) for path in files)


def _files_of(folder: Path) -> list[Path]:
    """The files that transformers loads: those of an index, else the one of the usual name, else all of one format."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        index = folder / f"{name}.index.json"
        if index.is_file():
            parts = set(json.loads(index.read_text()).get("weight_map", {}).values())
            return [folder / part for part in sorted(parts) if (folder / part).is_file()]
        if (folder / name).is_file():
            return [folder / name]
    return sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin"))


def _stored_bytes(path: Path) -> int:
    """Bytes of a number in a safetensors file, by its largest tensor; 4 where it does not say."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 100 << 20)))
    except (OSError, struct.error, ValueError):
        return 4
    tensors = [about for name, about in header.items() if name != "__metadata__"]
    largest: dict[str, Any] = max(
        tensors, key=lambda about: about["data_offsets"][1] - about["data_offsets"][0], default={}
    )
    return 2 if largest.get("dtype") in _HALF else 4
