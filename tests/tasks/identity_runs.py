"""Whole jobs in this process, without Ray and Prefect."""

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.encoders import load
from barycenter.infra.job.models import Job
from barycenter.tasks import pipeline
from barycenter.tasks.join.stage import join_tables
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.digest import digest
from barycenter.tasks.run.workers import THIS_PROCESS

HISTORY = ("number", "job")
"""Of the lineage: which commit of this output it was, and which job made that first."""


def in_this_process(monkeypatch):
    """Encoders are loaded once, nothing is drawn, and memory is not given back: a few rows need none."""
    monkeypatch.setattr("barycenter.tasks.pipeline.give_back_memory", lambda: None)
    monkeypatch.setattr("barycenter.tasks.report.rendering.figures.plots", lambda *_: {})
    monkeypatch.setattr("barycenter.tasks.report.stage.html", lambda *_: "")
    monkeypatch.setattr("barycenter.tasks.embed.worker.load", _load)
    monkeypatch.setattr("barycenter.tasks.embed.settings._library_versions", lambda: {})
    monkeypatch.setattr("barycenter.tasks.run.context.load_credentials_block", lambda _: None)
    monkeypatch.setattr("barycenter.tasks.align.trained.FEATURES", 36)


_loaded: dict[str, Any] = {}


def _load(spec, device):
    if repr(spec) not in _loaded:
        _loaded[repr(spec)] = load(spec, device=device)
    return _loaded[repr(spec)]


def run_job(data: dict[str, Any], **flags: bool) -> dict[str, Any]:
    """The report of a whole job."""
    run = prepare(Job.model_validate(data), **flags)
    return pipeline.run_job(run, THIS_PROCESS)


@dataclass
class Result:
    """What a run left."""

    report: dict[str, Any]
    manifest: dict[str, Any]
    embeddings: dict[str, bytes] = field(default_factory=dict)
    features: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path) -> "Result":
        """The files by name, those of the newest features only, and the report without times and history.

        Of embeddings what they hold: beside it they say what became of their rows, and where pictures were seen.
        """
        report = json.loads((folder / "report" / "report.json").read_text())
        del report["speed"], report["reuse"], report["history"]
        report["lineage"] = {name: value for name, value in report["lineage"].items() if name not in HISTORY}
        newest = max((folder / "manifests").glob("*.json"), key=lambda path: int(path.stem))
        manifest = json.loads(newest.read_text())
        tables = {path: _content(folder / path) for path in _files(folder, "embeddings") if "/." not in path}
        return cls(report, manifest, tables, _files(folder, f"features/{report['version']}"))


def _content(path: Path) -> bytes:
    table = pq.read_table(path, partitioning=None).replace_schema_metadata(None).drop_columns(["seen"])
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return bytes(sink.getvalue())


class Outputs:
    """Outputs of jobs, each run once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lender = folder / "lender"

    def joined(self, data: dict[str, Any]) -> dict[str, Any]:
        """The job, its own tables joined in its output, if it has some."""
        alone = {key: value for key, value in data["alignment"].items() if key != "from"}
        self._lend(data | {"alignment": alone}, data)
        data = data | {"output": data["output"] | {"path": str(self._place("joined", data))}}
        run = prepare(Job.model_validate(data))
        if run.join is not None and run.unjoined:
            join_tables(run, THIS_PROCESS)
        return data

    def rerun(self, before: dict[str, Any], after: dict[str, Any], refit: bool) -> tuple[Result, Result, Result]:
        """One job after another in one output, then again with a refit, and the second alone in an empty one.

        All with the same plan. Without ``refit``, or where nothing was kept, the first of them serves as the second.
        """
        base = self._place("base", before)
        self._lend(before, after)
        if not (base / "report").exists():
            run_job(_into(before, base))
        again, fresh = self._folder / "again", self._folder / "fresh"
        for folder in (again, fresh):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(base, again)
        kept = run_job(_into(after, again))["alignment"]["kept"]
        first = Result.of(again)
        fresh.mkdir()
        shutil.copy(again / "plan.json", fresh / "plan.json")
        run_job(_into(after, fresh))
        if refit and kept:
            run_job(_into(after, again), refit=True)
        return first, Result.of(again), Result.of(fresh)

    def _lend(self, before: dict[str, Any], after: dict[str, Any]) -> None:
        if "from" in after["alignment"] and not self._lender.exists():
            run_job(_into(before | {"corpus": before["corpus"] | {"path": str(self._folder / "grown")}}, self._lender))

    def _place(self, kind: str, data: dict[str, Any]) -> Path:
        return self._folder / f"{kind}-{digest(data)}"


def _into(data: dict[str, Any], folder: Path) -> dict[str, Any]:
    return data | {"output": data["output"] | {"path": str(folder)}}


def _files(folder: Path, below: str) -> dict[str, bytes]:
    """Without the samples of encoders: those are chosen once, from the rows of the first run."""
    found = sorted(path for path in (folder / below).rglob("*.parquet") if path.parent.name != ".samples")
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}
