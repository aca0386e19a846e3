"""What encoders will compute, kept on this machine: describing one takes seconds of imports and reads all weights."""

import json
import logging
import os
import platform
from dataclasses import asdict
from pathlib import Path

from barycenter.fusion.encoders import Description, EncoderSpec, describe
from barycenter.fusion.encoders.base import IMPLEMENTATION_VERSION
from barycenter.fusion.encoders.fingerprint import library_versions
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.tasks.run.digest import digest

_LIBRARIES = ("torch", "torchvision", "transformers", "tokenizers", "numpy", "pillow", "safetensors")

log = logging.getLogger(__name__)


def cached_description(spec: EncoderSpec) -> Description:
    """As :func:`barycenter.fusion.encoders.describe`, from the cache where the encoder's files are the same as then.

    The same are name, size and time of every file, and the versions of the libraries. Encoders of the hub are not kept:
    the hub says what their names mean today.
    """
    files = _files(spec)
    if files is None:
        return describe(spec)
    known = [asdict(spec), files, library_versions(*_LIBRARIES), IMPLEMENTATION_VERSION, platform.python_version()]
    path = f"{digest(*known)}.json"
    cache = Storage(str(_folder()))
    try:
        return Description(**json.loads(cache.read(path)))
    except (RunError, OSError, ValueError, TypeError):
        found = describe(spec)
    try:
        cache.write(path, json.dumps(asdict(found)).encode())
    except (RunError, OSError) as error:
        log.info("the description of an encoder is not kept: %s", error)
    return found


def _files(spec: EncoderSpec) -> list[tuple[str, int, int]] | None:
    """Name, size and time of all that a local encoder consists of; None for any other."""
    place = Path(spec.weights or spec.encoder or "").expanduser()
    if spec.kind == "vector" or not (place.is_file() if spec.weights else place.is_dir()):
        return None
    paths = [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())
    found = [(str(path.resolve()), path.stat()) for path in paths]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]


def _folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "barycenter" / "encoders"
