"""Events of a run and of what it makes, for Prefect's automations; the output is their resource.

Prefect adds flow run, flow, deployment and tags as related resources. They go by the run's outbox.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from prefect.events import emit_event

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import BadInputsError, BusyError, DeadlineError, JobError, RunError
from barycenter.infra.corpus.formats.detection import counts_in_words
from barycenter.infra.userinfo import showable
from barycenter.tasks.observability.run_page import current_outbox
from barycenter.tasks.run.context import Run

STARTED = "barycenter.run.started"
STAGE_DONE = "barycenter.run.stage-done"
NOTHING_NEW = "barycenter.run.nothing-new"
FAILED = "barycenter.run.failed"
TOO_MANY_BAD = "barycenter.run.too-many-bad"
COMMITTED = "barycenter.dataset.committed"
DRIFTED = "barycenter.dataset.drift"

_KINDS: dict[type[Exception], str] = {
    JobError: "job",
    BadInputsError: "bad_inputs",
    BusyError: "busy",
    DeadlineError: "deadline",
    RunError: "run",
}
"""Kinds of failures, the more special before the more general."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """What events are about: an output and the job that makes it; the job alone until its file is read."""

    job: str
    output: str | None = None

    def resource(self, **labels: str) -> dict[str, str]:
        """The event's resource."""
        about = self.output if self.output is not None else f"barycenter.job.{self.job}"
        return {"prefect.resource.id": about, "prefect.resource.name": self.job, **labels}


_subject: ContextVar[Subject] = ContextVar("subject")


@contextmanager
def events_of(job: str) -> Iterator[None]:
    """Events in the block are of a job that is known by this name or path, until :func:`run_started` says more."""
    token = _subject.set(Subject(job))
    try:
        yield
    finally:
        _subject.reset(token)


def run_started(run: Run) -> None:
    """A run begins its work."""
    _subject.set(Subject(run.job.name, run.storage.uri()))
    _emit(STARTED, {
        "job": run.job.fingerprint(), "rows": run.rows, "shards": len(run.shards), "inputs": list(run.inputs)
    })  # fmt: skip


def stage_done(stage: str, figures: Mapping[str, Any]) -> None:
    """A stage has come to its end, be it that there was nothing to do (no rows)."""
    said = ("rows", "seconds", "rows_per_s", "limited_by")
    _emit(STAGE_DONE, {"stage": stage} | {name: figures[name] for name in said if name in figures})


def nothing_new(version: str, number: int) -> None:
    """A run has found that the newest version is what it would have made."""
    log.info("nothing new: version %s (manifest %d) is that of before", version, number)
    _emit(NOTHING_NEW, {"version": version, "number": number})


def run_failed(error: BaseException) -> None:
    """A run ends with an error; one of too many bad inputs is an event of its own beside."""
    kind = next((name for cls, name in _KINDS.items() if isinstance(error, cls)), "unexpected")
    reason = showable(str(error) if kind != "unexpected" else f"{type(error).__name__}: {error}")
    _emit(FAILED, {"kind": kind, "reason": reason})
    if kind == "bad_inputs":
        _emit(TOO_MANY_BAD, {"reason": reason})


def dataset_committed(run: Run, manifest: Manifest) -> None:
    """A run has committed a version; logs it, and the inputs that could not be used."""
    log.info(
        "version %s is committed (manifest %d): %s rows of %d values in %s",
        manifest.version, manifest.number, f"{manifest.rows['written']:,}", manifest.dim,
        run.storage.uri(f"features/{manifest.version}"),
    )  # fmt: skip
    if bad := counts_in_words(manifest.rows["bad"]):
        log.info("missing or bad inputs: %s; each is a row of %s", bad, run.storage.uri(f"rejects/{manifest.version}"))
    figures = {name: getattr(manifest, name) for name in ("version", "number", "rows", "dim", "alignment_id")}
    encoders = [entry["encoder"] or name for name, entry in manifest.inputs.items()]
    related = [
        {"prefect.resource.id": run.job.corpus.path, "prefect.resource.role": "corpus"},
        *({"prefect.resource.id": encoder, "prefect.resource.role": "encoder"} for encoder in encoders),
    ]
    _emit(COMMITTED, figures, related, Subject(run.job.name, run.storage.uri()), version=manifest.version)


def dataset_drifted(run: Run, figures: Mapping[str, Any], warnings: Sequence[str]) -> None:
    """New rows differ from those that the alignment was fitted on."""
    for warning in warnings:
        log.warning("%s", warning)
    payload = {"warnings": list(warnings), **figures}
    _emit(DRIFTED, payload, subject=Subject(run.job.name, run.storage.uri()))


def _emit(
    event: str,
    payload: dict[str, Any],
    related: Sequence[dict[str, str]] = (),
    subject: Subject | None = None,
    **labels: str,
) -> None:
    if current_outbox() is not None:
        named = {f"barycenter.{name}": value for name, value in labels.items()}
        resource = (subject or _subject.get()).resource(**named)
        emit_event(event, resource=resource, related=list(related), payload=payload)
