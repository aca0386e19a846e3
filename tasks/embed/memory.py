"""Bytes of memory that an encoder and the worker that holds it take."""

import json
import struct
from pathlib import Path
from typing import Any

from barycenter.fusion.encoders import EncoderSpec

WORKER_BYTES = 640 << 20
"""A worker beside its model: libraries, a batch, a shard."""

LOADING = 1.2
"""A model in memory while it is loaded, in bytes of its weights."""

_HALF = ("F16", "BF16")


def worker_bytes(spec: EncoderSpec) -> int:
    """What a worker of this encoder takes of its machine's memory; a model for a GPU passes through it."""
    return WORKER_BYTES + int(LOADING * weight_bytes(spec))


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
