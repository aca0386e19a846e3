"""Ray metrics of a run, which every node of the cluster exports for Prometheus."""

import sys
from collections.abc import Mapping
from functools import cache
from typing import Any

from barycenter.infra.logs import bound_fields
from barycenter.infra.names import printable

_TAGS = ("run", "stage")


@cache
def _instruments() -> dict[str, Any]:
    """One set for a process: Ray knows a metric by its name."""
    from ray.util.metrics import Counter, Gauge

    return {
        "rows": Counter("barycenter_rows", "Rows done.", tag_keys=_TAGS),
        "left": Gauge("barycenter_rows_left", "Rows still to do.", tag_keys=_TAGS),
        "seconds": Counter("barycenter_seconds", "Seconds spent in a part of a stage.", tag_keys=(*_TAGS, "part")),
        "workers": Gauge("barycenter_workers", "Workers that are reserved.", tag_keys=_TAGS),
        "gpus": Gauge("barycenter_gpus", "GPUs that the workers hold.", tag_keys=_TAGS),
        "lost": Counter("barycenter_workers_lost", "Workers that were lost.", tag_keys=(*_TAGS, "cause")),
        "bad": Counter("barycenter_bad_inputs", "Inputs that could not be embedded.", tag_keys=(*_TAGS, "reason")),
        "cluster": Gauge("barycenter_gpu_share", "Their share of the cluster's GPUs.", tag_keys=_TAGS),
    }  # fmt: skip


def _connected() -> bool:
    """Whether this process is connected to Ray; a run without Ray never imports it."""
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


class StageMetrics:
    """Counts one stage, such as ``embed text``; does nothing where this process is not connected to Ray."""

    def __init__(self, stage: str) -> None:
        self._tags = {"run": printable(bound_fields().get("run", "")), "stage": printable(stage)}

    def advance(self, rows: int, left: int, parts: Mapping[str, float]) -> None:
        """Counts rows, and the seconds that parts of the stage took (``model``, ``read``, ...)."""
        if not _connected():
            return
        instruments = _instruments()
        instruments["rows"].inc(rows, self._tags)
        instruments["left"].set(left, self._tags)
        for part, seconds in parts.items():
            if seconds > 0:
                instruments["seconds"].inc(seconds, {**self._tags, "part": part})

    def lost(self, cause: str) -> None:
        """Counts a worker that was lost: ``work``, ``node`` or ``memory``."""
        if _connected():
            _instruments()["lost"].inc(1, {**self._tags, "cause": cause})

    def bad(self, reasons: Mapping[str, int]) -> None:
        """Counts inputs that could not be embedded, by reason."""
        for reason, count in reasons.items() if _connected() else ():
            _instruments()["bad"].inc(count, {**self._tags, "reason": reason})

    def reserved(self, workers: int, gpus: float, cluster_gpus: float) -> None:
        """Reports how many workers and GPUs the stage holds, and of how many."""
        if not _connected():
            return
        instruments = _instruments()
        instruments["workers"].set(workers, self._tags)
        instruments["gpus"].set(gpus, self._tags)
        instruments["cluster"].set(gpus / cluster_gpus if cluster_gpus else 0.0, self._tags)
