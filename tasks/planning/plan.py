"""What a run would do: the job checked against its corpus and encoders, and how much of it is already there."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Unpack

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.formats.detection import passed_over_in_words
from barycenter.infra.deadline import until
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.infra.storage.json_files import read_if_whole
from barycenter.infra.versions.lease import hold
from barycenter.tasks.align.lender import lender
from barycenter.tasks.align.limits import check_alignment
from barycenter.tasks.data.targets import check_target, inspect_target, target_notes
from barycenter.tasks.embed.sample import count_known
from barycenter.tasks.embed.stage import pending_shards
from barycenter.tasks.fuse.kept_columns import check_kept
from barycenter.tasks.fuse.partitions import sample_partitions
from barycenter.tasks.planning.input_sample import check_inputs
from barycenter.tasks.planning.memory import check_memory
from barycenter.tasks.planning.space import space_needed, space_warning
from barycenter.tasks.run.context import NO_FLAGS, Flags, Run, deadline_of, shows_rate
from barycenter.tasks.run.progress_file import STAGES, begin_progress, read_progress
from barycenter.tasks.run.workers import unused_ray_keys

log = logging.getLogger(__name__)


def prepare(job: Job, **flags: Unpack[Flags]) -> Run:
    """Opens the corpus, describes the encoders and refuses what cannot work; starts neither Ray nor Prefect.

    Args:
        job: The job.
        flags: What the run is asked for beside its job.

    Raises:
        JobError: Naming the key of the job file that is wrong.
    """
    run = Run(job, **flags)
    check_alignment(job, run.widths, run.rows)
    if job.alignment.from_ is not None:
        lender(run)
    if job.average.method in ("spherical", "posterior") and job.alignment.method == "none":
        raise JobError("average.method", f"`{job.average.method}` needs an alignment; `none` has mean and weighted")
    check_inputs(run)
    check_memory(run)
    check_target(run)
    check_output(run.storage)
    if not run.unjoined:
        check_kept(run)
        sample_partitions(run)
    for note in notes(run):
        log.info("%s", note)
    return run


def notes(run: Run) -> list[str]:
    """What a user should know before the work: of target and split, unused keys, a disk that is too small."""
    return [*target_notes(run), *filter(None, [_backfill_note(run), unused_ray_keys(run.job.ray), space_warning(run)])]


def _backfill_note(run: Run) -> str | None:
    """What readers of the output will see of a corpus as it was on a day."""
    if run.as_of is None or not run.after or run.job.output.promote == "manual":
        return None
    return (
        f"as of {run.as_of}: readers of {run.storage.uri()} will see this version in place of version {run.after}; "
        "output.promote: manual, or an output.path of its own, keeps them apart"
    )


def check_output(storage: Storage) -> None:
    """Refuses an output folder on this machine that cannot be one.

    Raises:
        JobError: On ``output.path``: it is a file, lies below one, or may not be written to.
    """
    if not storage.is_local:
        return
    folder = Path(storage.root)
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        what = "is a file" if existing == folder else f"lies below {existing}, which is no folder"
        raise JobError("output.path", f"{folder} {what}; name a folder, which need not exist")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise JobError(
            "output.path", f"{existing} may not be written to; name another folder or change its permissions"
        )


_opened: list[Run] = []


def hand_over(run: Run) -> None:
    """Keeps what :func:`prepare` gave for the flow that this process starts next, so that it opens nothing again.

    A global, because Prefect makes copies of what a flow is handed.
    """
    _opened[:] = [run]


def prepared(job: Job, **flags: Unpack[Flags]) -> Run:
    """What was handed over, if that is of the same job and flags; else as :func:`prepare`. It is handed over once."""
    for run in (_opened.pop() for _ in range(len(_opened))):
        same = run.job == job and run.job.fingerprint() == job.fingerprint()
        if same and run.flags == NO_FLAGS | flags:
            return run
    return prepare(job, **flags)


@contextmanager
def held(job: Job, **flags: Unpack[Flags]) -> Iterator[Run]:
    """Prepares a run and holds its output for the length of the block.

    What was wrong with the job is said before any waiting. Where another process wrote to the output since the run was
    prepared, it is prepared again, the corpus listed anew.

    Args:
        job: The job.
        flags: What the run is asked for beside its job.

    Raises:
        JobError: Naming the key of the job file that is wrong.
        BusyError: Another process holds the output, and ``output.busy`` is not ``wait``.
        DeadlineError: ``limits.deadline`` is over; it counts from before anything was read, waiting included.
    """
    with until(deadline_of(job)):
        run = prepared(job, **flags)
    with until(run.deadline), hold(run.storage, f"run {job.name}", busy=job.output.busy) as lease:
        if lease.previous != run.prepared_after:
            run = prepare(job, **flags)
        run.lease = lease
        try:
            begin_progress(run.storage)
            yield run
        finally:
            run.lease = None
    run.prepared_after = lease.number


def listing_line(run: Run) -> str | None:
    """What was seen of the corpus and not taken, as a line for the terminal; None where all was taken."""
    files, members = run.listing["files"], run.listing.get("members", {"passed_over": 0})["passed_over"]
    lines = [counted] if (counted := passed_over_in_words(files["passed_over"])) else []
    lines += [f"{members:,} members of tars without a name and an ending"] if members else []
    return f"files: {files['taken']:,} taken, {', '.join(lines)}" if lines else None


LATER_STAGES = ("align", "fuse", "train", "report")


def describe_plan(run: Run) -> dict[str, Any]:
    """Shards and rows of each input, done and left, and the seconds that measured rates predict.

    Returns:
        ``{"rows", "shards", "files", "listing", "unjoined", "target", "notes", "space", "inputs": {name: {"encoder_id",
        "dim", "rows_left", "rows_known", "shards_done", "shards_left", "seconds_left"}}, "later_seconds",
        "seconds_left"}``;
        ``rows_known`` are those of the rows left that a sample says will be taken over, by content;
        ``space`` is what :func:`~barycenter.tasks.planning.space.space_needed` says;
        ``later_seconds`` is of the stages after embedding, 0 where nothing is to be embedded. Each is None where a rate
        that it needs was not measured yet. Rows and shards are those of the corpus alone as long as the inputs' own
        tables are not joined to it.
    """
    rates = _measured_rates(run)
    inputs: dict[str, dict[str, Any]] = {}
    for name in run.inputs:
        left = pending_shards(run, name)
        rows = run.rows if run.unjoined else sum(shard.rows for shard in left)
        rate = rates.get(f"embed {name}")
        known = count_known(run, name, left)
        inputs[name] = {
            "encoder_id": run.encoders[name].encoder_id,
            "dim": run.encoders[name].dim,
            "shards_done": len(run.shards) - len(left),
            "shards_left": len(left),
            "rows_left": rows,
            "rows_known": known,
            "seconds_left": 0.0 if not rows else round((rows - known) / rate, 1) if rate else None,
        }
    later: float | None = 0.0
    if any(each["rows_left"] for each in inputs.values()):
        stages = [stage for stage in LATER_STAGES if stage != "train" or run.job.train is not None]
        later = _sum([run.rows / rates[stage] if stage in rates else None for stage in stages])
    return {
        "rows": run.rows,
        "shards": len(run.shards),
        "files": len(run.corpus.sources),
        "listing": run.listing,
        "unjoined": run.unjoined,
        "target": inspect_target(run).said() if run.job.train is not None else None,
        "notes": notes(run),
        "space": space_needed(run),
        "inputs": inputs,
        "later_seconds": later,
        "seconds_left": _sum([*(each["seconds_left"] for each in inputs.values()), later]),
    }


def deadline_line(job: Job, seconds_left: float) -> str | None:
    """Says whether the rest of a job fits into its ``limits.deadline``; None where it has none."""
    allowed = job.limits.deadline_seconds
    if allowed is None:
        return None
    given = f"limits.deadline ({job.limits.deadline})"
    if seconds_left <= allowed:
        return f"{given}: there is time for all of it"
    return f"{given}: too short by about {seconds_left - allowed:,.0f} s; the run stops there, and the next goes on"


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [each for each in seconds if each is not None]
    return round(sum(known), 1) if len(known) == len(seconds) else None


def _measured_rates(run: Run) -> dict[str, float]:
    """Rows a second of each stage: of the last report, and of the stage that an unfinished run is or was at."""
    rates: dict[str, float] = {}
    report = read_if_whole(run.storage, "report/report.json") or {}
    for stage, figures in report.get("speed", {}).items():
        measured = figures if shows_rate(figures) else figures.get("before", {})
        if measured.get("rows_per_s"):
            rates[stage] = measured["rows_per_s"]
    progress = read_progress(run.storage) or {STAGES: []}
    for stage in progress[STAGES]:
        if stage.get("rows_per_s"):
            rates.setdefault(stage["stage"], stage["rows_per_s"])
    return rates
