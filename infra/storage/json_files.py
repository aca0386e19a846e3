"""JSON files of an output: what is damaged is named, or counts as gone where it is made again."""

import json
from typing import Any

from barycenter.fusion.errors import RunError
from barycenter.infra.storage.storage import MissingFileError, Storage


def decoded(storage: Storage, path: str, content: bytes) -> Any:
    """What a file holds.

    Raises:
        RunError: It is no JSON, as after a fault of a disk: every file is written whole or not at all.
    """
    try:
        return json.loads(content)
    except ValueError as error:
        raise RunError(
            f"{storage.uri(path)} is damaged ({error}); restore it from a copy, or delete it and run again"
        ) from error


def read_json(storage: Storage, path: str) -> Any:
    """What the file at a path holds.

    Raises:
        MissingFileError: There is none.
        RunError: It is no JSON.
    """
    return decoded(storage, path, storage.read(path))


def read_if_whole(storage: Storage, path: str) -> dict[str, Any] | None:
    """What a file holds that the run makes again; None where it is not there, or damaged."""
    try:
        content = json.loads(storage.read(path))
    except (MissingFileError, ValueError):
        return None
    return content if isinstance(content, dict) else None
