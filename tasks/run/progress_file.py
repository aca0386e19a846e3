"""progress.json of an output: how far the stages of a run are, or were when they were last written."""

import json
import threading
from dataclasses import dataclass, field
from typing import Any

from barycenter.infra.storage.json_files import read_if_whole
from barycenter.infra.storage.storage import Storage

PROGRESS = "progress.json"
STAGES = "stages"
"""The key of a list, one entry for each stage at work: inputs are embedded side by side."""
EARLIER = "earlier"
"""The key that says that the progress is of a run before the one that holds the output, or held it last."""


@dataclass
class _AtWork:
    """The stages that this process works on in one output, and what each has reported."""

    names: set[str] = field(default_factory=set)
    reported: dict[str, dict[str, Any]] = field(default_factory=dict)


_lock = threading.Lock()
_outputs: dict[str, _AtWork] = {}


def enter_stage(storage: Storage, stage: str) -> None:
    """A stage begins; it is shown beside those that this process is at in the same output."""
    with _lock:
        _outputs.setdefault(storage.uri(), _AtWork()).names.add(stage)


def leave_stage(storage: Storage, stage: str) -> None:
    """A stage has come to its end; what it reported is shown until the last of those beside it ends."""
    with _lock:
        at_work = _outputs.get(storage.uri(), _AtWork())
        at_work.names.discard(stage)
        if not at_work.names:
            _outputs.pop(storage.uri(), None)


def note_progress(storage: Storage, stage: str, rows: int, total: int, rows_per_s: float) -> list[dict[str, Any]]:
    """Takes note how far a stage is; returns that with what those beside it have reported."""
    with _lock:
        at_work = _outputs.get(storage.uri(), _AtWork())
        at_work.reported[stage] = {"stage": stage, "rows": rows, "total": total, "rows_per_s": round(rows_per_s, 2)}
        return list(at_work.reported.values())


def write_progress(storage: Storage, stages: list[dict[str, Any]]) -> None:
    """Writes what :func:`note_progress` returned."""
    storage.write(PROGRESS, json.dumps({STAGES: stages}).encode())


def read_progress(storage: Storage) -> dict[str, Any] | None:
    """What was last written; None where nothing was.

    Returns:
        ``stages``: of each ``stage``, ``rows``, ``total`` and ``rows_per_s``. ``earlier``: as :data:`EARLIER`.
    """
    progress = read_if_whole(storage, PROGRESS)
    return progress if progress is not None and isinstance(progress.get(STAGES), list) else None


def begin_progress(storage: Storage) -> None:
    """Marks the progress that is there as an earlier run's; for a run that holds the output and begins."""
    progress = read_progress(storage)
    if progress is not None and not progress.get(EARLIER):
        storage.write(PROGRESS, json.dumps(progress | {EARLIER: True}).encode())
