"""What Prefect shows of a run: progress bars, the report, rejects by reason, lineage."""

import json
from functools import partial
from typing import Any
from uuid import UUID

import pyarrow as pa
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.context import FlowRunContext, TaskRunContext

from barycenter.fusion.dataset.schema import Manifest
from barycenter.infra.clock import current_clock
from barycenter.infra.logs import PACKAGE, bound_fields
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.observability.artifact_keys import History
from barycenter.tasks.observability.run_page import current_outbox
from barycenter.tasks.run.context import Run

_PROGRESS_EVERY = 3.0
_EXAMPLES = 3


class ProgressArtifact:
    """A stage's bar in Prefect, moved every few seconds at most; nothing outside a flow run."""

    def __init__(self, stage: str, output: str = "") -> None:
        self._stage = stage
        self._outbox = current_outbox()
        self._of = _current_run()
        self._history = History(bound_fields().get("run", PACKAGE), output)
        self._id: UUID | None = None
        self._last_share = -1.0
        self._next = 0.0

    def show(self, done: int, total: int, *, at_once: bool = False) -> None:
        """Reports how much is done; waits for no server."""
        share = 100.0 * done / total if total else 100.0
        now = current_clock().monotonic()
        if self._outbox is None or share == self._last_share or (now < self._next and not at_once):
            return
        self._next, self._last_share = now + _PROGRESS_EVERY, share
        self._outbox.show(f"the progress of {self._stage}", partial(self._send, share, total))

    def _send(self, share: float, total: int, client: SyncPrefectClient) -> None:
        if self._id is not None:
            client.update_artifact(self._id, ArtifactUpdate(data=share))
            return
        described = f"{self._stage}, {total:,} rows"
        self._id = _create(self._history, "progress", "progress", described, share, self._of, client)


def _current_run() -> dict[str, UUID]:
    """The flow and task run of this thread, as an artifact names them."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    ids = {} if flow is None or flow.flow_run is None else {"flow_run_id": flow.flow_run.id}
    return ids | ({} if task is None else {"task_run_id": task.task_run.id})


def _create(
    history: History, what: str, kind: str, described: str, data: Any, of: dict[str, UUID], client: SyncPrefectClient
) -> UUID:
    key = history.key(what, client)
    return client.create_artifact(
        ArtifactCreate(key=key, type=kind, description=described, data=data, metadata_=history.mark, **of)
    ).id


def _show(run: Run, what: str, kind: str, described: str, data: Any) -> None:
    outbox, history = current_outbox(), History(run.job.name, run.storage.uri())
    if outbox is not None:
        outbox.show(f"the artifact {what}", partial(_create, history, what, kind, described, data, _current_run()))


def show_dashboard(run: Run, url: str) -> None:
    """Shows where the dashboard of the run's Ray cluster is."""
    _show(run, "ray", "markdown", "The dashboard of Ray", f"[{url}]({url})")


def show_results(run: Run, manifest: Manifest, report: str) -> None:
    """Shows the report, where it is, rejects by reason and lineage as artifacts of the flow run, if there is one."""
    if current_outbox() is None:
        return
    name, version = run.job.name, f"features/{manifest.version}"
    page = _link(run, "report/report.html")
    _show(run, "report", "markdown", f"Report of {name}", f"{report}\n\nThe page with pictures: {page}\n")
    links = {"output": "", f"version {manifest.number}": version, "report": "report/report.html"}
    lines = [f"| {what} | {_link(run, path)} |" for what, path in links.items()]
    _show(run, "output", "markdown", f"What {name} has made", "\n".join(["| | |", "| --- | --- |", *lines]))
    rejects = rejects_by_reason(run, manifest) or [{"input": "", "reason": "none", "rows": 0, "keys": ""}]
    _show(run, "rejects", "table", f"Bad inputs of {name} by reason", json.dumps(rejects))
    made_from = f"What version {manifest.version} of {name} was made from"
    _show(run, "lineage", "table", made_from, json.dumps(lineage(run, manifest)))


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


def _link(run: Run, path: str) -> str:
    uri = run.storage.uri(path) if path else run.storage.uri()
    return f"[{uri}]({uri if '://' in uri else f'file://{uri}'})"
