"""JSON files of an output: what is damaged is named, or counts as gone where it is made again."""

import json
from typing import Any

from barycenter.fusion.errors import RunError
from barycenter.infra.storage.storage import MissingFileError, Storage


def decoded(storage: Storage, path: str, content: bytes) -> dict[str, Any]:
    """What a file holds.

    Raises:
        RunError: It is no JSON object, as after a fault of a disk: every file is written whole or not at all.
    """
    try:
        if isinstance(found := json.loads(content), dict):
            return found
        reason = "it is no JSON object"
    except ValueError as error:
        reason = str(error)
    raise RunError(f"{storage.uri(path)} is damaged ({reason}); restore it from a copy, or delete it and run again")


def read_json(storage: Storage, path: str) -> dict[str, Any]:
    """What the file at a path holds.

    Raises:
        MissingFileError: There is none.
        RunError: It is no JSON object.
    """
    return decoded(storage, path, storage.read(path))


def read_if_whole(storage: Storage, path: str) -> dict[str, Any] | None:
    """What a file holds that the run makes again; None where it is not there, or damaged."""
    try:
        content = json.loads(storage.read(path))
    except (MissingFileError, ValueError):
        return None
    return content if isinstance(content, dict) else None
