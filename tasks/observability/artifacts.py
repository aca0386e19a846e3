"""What Prefect shows of a run: progress bars, the report, rejects by reason, lineage; and the event of a commit."""

import logging
import re
from collections.abc import Callable
from typing import Any
from uuid import UUID

import httpx
import pyarrow as pa
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.context import FlowRunContext
from prefect.events import emit_event

from barycenter.fusion.dataset.schema import Manifest
from barycenter.infra.clock import current_clock
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.run.context import Run

COMMITTED = "barycenter.dataset.committed"
_PROGRESS_EVERY = 3.0
_SILENT_SECONDS = 60.0
"""How long nothing is shown after a server did not answer: each try of Prefect's client takes long by itself."""
_EXAMPLES = 3

log = logging.getLogger(__name__)


class _Courtesy:
    """Calls what only shows; the data are safe whether or not a server listens."""

    def __init__(self) -> None:
        self._silent_until = float("-inf")

    @property
    def silent(self) -> bool:
        """Whether a server did not answer a while ago."""
        return current_clock().monotonic() < self._silent_until

    def try_again(self) -> None:
        """Sends the next in any case: what is shown once a run is worth a try."""
        self._silent_until = float("-inf")

    def __call__(self, show: Callable[[], Any]) -> Any:
        """What ``show`` gives; None where it failed or is not tried."""
        if self.silent:
            return None
        try:
            return show()
        except httpx.TransportError as error:
            self._silent_until = current_clock().monotonic() + _SILENT_SECONDS
            log.warning("the Prefect server does not answer, artifacts are sent again in a minute: %s", error)
        except Exception as error:  # noqa: BLE001 - see above
            log.warning("Prefect did not take an artifact or event: %s", error)
        return None


_courtesy = _Courtesy()


class ProgressArtifact:
    """A stage's bar in Prefect, moved every few seconds at most; nothing outside a flow run."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._id: UUID | None = None
        self._last_share = -1.0
        self._next = 0.0
        self._refused = FlowRunContext.get() is None

    def show(self, done: int, total: int, *, at_once: bool = False) -> None:
        """Reports how much is done; a server that does not answer never fails the stage."""
        share = 100.0 * done / total if total else 100.0
        now = current_clock().monotonic()
        if self._refused or _courtesy.silent or share == self._last_share or (now < self._next and not at_once):
            return
        self._next, self._last_share = now + _PROGRESS_EVERY, share
        if self._id is None:
            key = "barycenter-progress-" + re.sub("[^a-z0-9]+", "-", self._stage.lower())
            description = f"{self._stage}, {total:,} rows"
            sent = self._id = _courtesy(lambda: create_progress_artifact(share, key=key, description=description))
        else:
            artifact = self._id
            sent = _courtesy(lambda: update_progress_artifact(artifact, progress=share))
        self._refused = sent is None and not _courtesy.silent


def show_results(run: Run, manifest: Manifest, report: str) -> None:
    """Shows the report, the rejects by reason and the lineage as artifacts of the flow run, if there is one."""
    if FlowRunContext.get() is None:
        return
    _courtesy.try_again()
    page = run.storage.uri("report/report.html")
    _courtesy(lambda: create_markdown_artifact(
        f"{report}\n\nThe page with pictures: [{page}]({_link(page)})\n", key="barycenter-report",
        description=run.job.name,
    ))  # fmt: skip
    _courtesy(lambda: create_link_artifact(
        _link(page), link_text=page, key="barycenter-report-page", description="report.html"
    ))  # fmt: skip
    rejects = rejects_by_reason(run, manifest)
    _courtesy(lambda: create_table_artifact(
        rejects or [{"input": "", "reason": "none", "rows": 0, "keys": ""}], key="barycenter-rejects",
        description=f"Bad inputs of {run.job.name} by reason",
    ))  # fmt: skip
    _courtesy(lambda: create_table_artifact(
        lineage(run, manifest), key="barycenter-lineage",
        description=f"What version {manifest.version} of {run.job.name} was made from",
    ))  # fmt: skip


def rejects_by_reason(run: Run, manifest: Manifest) -> list[dict[str, Any]]:
    """Bad inputs counted by input and reason, most frequent first, with the keys of a few."""
    tables = [run.storage.read_table(path, columns=["key", "input", "reason"]) for path in manifest.rejects]
    if not tables:
        return []
    table = pa.concat_tables(tables)
    counted = table.group_by(["input", "reason"], use_threads=False).aggregate([("key", "list")]).to_pylist()
    rows = [
        {
            "input": group["input"] or "the row",
            "reason": group["reason"],
            "rows": len(group["key_list"]),
            "keys": ", ".join(str(key) for key in group["key_list"][:_EXAMPLES]),
        }
        for group in counted
    ]
    return sorted(rows, key=lambda row: (-row["rows"], row["input"], row["reason"]))


def lineage(run: Run, manifest: Manifest) -> list[dict[str, Any]]:
    """From the sources to the head: what stands where, and what it was made with."""
    storage, version = run.storage, manifest.version
    sources = [
        {"what": "source", "id": source["relative"], "where": source.get("uri") or run.job.corpus.path}
        for source in manifest.sources[:20]
    ]
    embeddings = [
        {
            "what": f"embeddings {name}",
            "id": f"{entry['encoder']} {entry['encoder_id']}",
            "where": storage.uri(embedding_path(name, entry["embedding_id"], "x").rpartition("/")[0]),
        }
        for name, entry in manifest.inputs.items()
    ]
    alignment, number = manifest.alignment_id, str(manifest.number)
    made = [
        (f"alignment {manifest.alignment['method']}", alignment, f"alignment/{alignment}"),
        ("features", version, f"features/{version}"),
        ("manifest", number, f"manifests/{number}.json"),
    ]
    return [
        *sources,
        *embeddings,
        *({"what": what, "id": name, "where": storage.uri(path)} for what, name, path in made),
    ]


def dataset_committed(run: Run, manifest: Manifest) -> None:
    """Emits ``barycenter.dataset.committed``: its resource is the output, its related resources are the sources."""
    if FlowRunContext.get() is None:
        return
    _courtesy.try_again()
    output = run.storage.uri()
    _courtesy(lambda: emit_event(
        COMMITTED,
        resource={"prefect.resource.id": output, "prefect.resource.name": run.job.name,
                  "barycenter.version": manifest.version},
        related=[
            {"prefect.resource.id": run.job.corpus.path, "prefect.resource.role": "corpus"},
            *({"prefect.resource.id": entry["encoder"] or name, "prefect.resource.role": "encoder"}
              for name, entry in manifest.inputs.items()),
        ],
        payload={"number": manifest.number, "rows": manifest.rows, "dim": manifest.dim,
                 "alignment_id": manifest.alignment_id},
    ))  # fmt: skip


def _link(uri: str) -> str:
    return uri if "://" in uri else f"file://{uri}"
