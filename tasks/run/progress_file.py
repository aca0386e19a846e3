"""progress.json of an output: how far the stage of a run is, or was when it was last written."""

import json
from typing import Any

from barycenter.infra.storage.storage import MissingFileError, Storage

PROGRESS = "progress.json"
EARLIER = "earlier"
"""The key that says that the progress is of a run before the one that holds the output, or held it last."""


def read_progress(storage: Storage) -> dict[str, Any] | None:
    """Stage, rows, total and rows a second, as they were last written; None where nothing was."""
    try:
        progress = json.loads(storage.read(PROGRESS))
    except (MissingFileError, ValueError):
        return None
    return progress if isinstance(progress, dict) else None


def begin_progress(storage: Storage) -> None:
    """Marks the progress that is there as an earlier run's; for a run that holds the output and begins."""
    progress = read_progress(storage)
    if progress is not None and not progress.get(EARLIER):
        storage.write(PROGRESS, json.dumps(progress | {EARLIER: True}).encode())
