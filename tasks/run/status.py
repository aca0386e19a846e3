"""What an output is at: who holds it, how far that run is, which version is the newest, which one the report shows."""

import json
from typing import Any

from barycenter.fusion.errors import RunError
from barycenter.infra.storage.storage import MissingFileError, Storage
from barycenter.infra.versions.commit import shown_version
from barycenter.infra.versions.lease import Term, observe_holder
from barycenter.infra.versions.manifests import read_manifest, versions
from barycenter.infra.versions.processes import parse_process
from barycenter.tasks.run.progress_file import EARLIER, STAGES, read_progress

_MARKS = ("plan.json", "manifest.json")
_REPORT = "report/report.json"
_RUN = "run "


def describe_status(storage: Storage, *, watch: bool = False) -> dict[str, Any]:
    """Reads the lease, the progress, the newest manifest and the report of an output.

    Args:
        storage: The output.
        watch: Waits up to a term of the lease for a holder on another machine to renew it.

    Returns:
        ``output``: its path.
        ``lease``: None where the output was never held, else ``state`` (``held``, ``released``, or ``abandoned`` by a
        process that is gone), ``purpose``, ``who``, ``user``, ``host``, ``pid``, ``since`` (UTC), ``term``,
        ``deletes`` and ``alive`` (None where that is not known).
        ``progress``: None where none is, else ``of`` (``holder``, ``last run`` or ``earlier run``) and ``stages``:
        of each ``stage``, ``rows``, ``total``, ``rows_per_s`` and ``seconds_left`` (None unless a holder is at it).
        ``versions``: ``count``, ``newest`` (None, or ``number``, ``version``, ``job``, its hash, ``committed``,
        ``rows``) and ``shown``, the number that readers see.
        ``report``: None where there is none, else ``number`` and ``version`` that it describes, ``name`` of the job,
        and whether that version is the ``newest``.

    Raises:
        RunError: There is nothing, or nothing that a run wrote.
    """
    term, alive = observe_holder(storage, watch=watch)
    numbers = versions(storage)
    if term is None and not numbers and not any(map(storage.exists, _MARKS)):
        raise RunError(_why_no_output(storage))
    return {
        "output": storage.uri(),
        "lease": None if term is None else _lease(term, alive),
        "progress": _progress(storage, term, alive),
        "versions": {
            "count": len(numbers),
            "newest": _newest(storage, numbers),
            "shown": shown_version(storage),
        },
        "report": _report(storage, numbers),
    }


def _why_no_output(storage: Storage) -> str:
    if next(storage.walk(), None) is not None:
        return f"{storage.uri()} holds files, but none that a run writes; name the output.path of a job"
    return f"{storage.uri()} does not exist or is empty; no run has held it yet"


def _lease(term: Term, alive: bool | None) -> dict[str, Any]:
    user, host, pid = parse_process(term.who)
    return {
        "state": "released" if term.released else "abandoned" if alive is False else "held",
        "purpose": term.purpose,
        "who": term.who,
        "user": user,
        "host": host,
        "pid": pid,
        "since": term.since,
        "term": term.number,
        "deletes": term.deletes,
        "alive": alive,
    }


def _progress(storage: Storage, term: Term | None, alive: bool | None) -> dict[str, Any] | None:
    progress = read_progress(storage)
    if progress is None:
        return None
    runs = term is not None and not term.released and alive is not False and term.purpose.startswith(_RUN)
    of = "earlier run" if progress.get(EARLIER) else "holder" if runs else "last run"
    return {"of": of, "stages": [_stage(stage, at_work=of == "holder") for stage in progress[STAGES]]}


def _stage(stage: dict[str, Any], *, at_work: bool) -> dict[str, Any]:
    rows, total, rate = stage.get("rows", 0), stage.get("total", 0), stage.get("rows_per_s", 0.0)
    left = round((total - rows) / rate, 1) if at_work and rate else None
    return {"stage": stage.get("stage"), "rows": rows, "total": total, "rows_per_s": rate, "seconds_left": left}


def _newest(storage: Storage, numbers: list[int]) -> dict[str, Any] | None:
    if not numbers:
        return None
    manifest = read_manifest(storage, numbers[-1])
    return {
        "number": manifest.number,
        "version": manifest.version,
        "job": manifest.job,
        "committed": manifest.committed,
        "rows": manifest.rows,
    }


def _report(storage: Storage, numbers: list[int]) -> dict[str, Any] | None:
    try:
        content = storage.read(_REPORT)
    except MissingFileError:
        return None
    try:
        report = json.loads(content)
        number, version = report["lineage"]["number"], report["lineage"]["version"]
        return {
            "number": number,
            "version": version,
            "name": report["name"],
            "newest": number == max(numbers, default=None),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise RunError(f"{storage.uri(_REPORT)}: no report ({error}); `barycenter report` writes it again") from error
