"""Embed one input: shards of the corpus through its encoder, one Parquet file a shard; a file that is there is done."""

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from fusion.encoders import EncoderSpec, load
from fusion.encoders.pipeline import find_batch
from fusion.errors import BadInputError, JobError, Reason, RunError
from infra.cluster import Cluster, WorkerPlan
from infra.corpus import BAD, Corpus, Pictures, Shard
from infra.dispatch import Quarantined, Work, dispatch
from infra.ledger import COLUMNS, done_shards, embedding_path, intend_repairs
from infra.storage import Storage
from tasks.members import Columns, Members
from tasks.progress import StageProgress
from tasks.run import Run, storage_options

_CALIBRATION_ROWS = 512


@dataclass(frozen=True, slots=True)
class EmbedSetting:
    """What a worker needs to embed shards of one input; plain data, sent once per worker."""

    name: str
    spec: EncoderSpec
    encoder_id: str
    columns: Columns
    corpus: Corpus
    storage: Storage
    device: str
    batch: int | None
    threads: int


@dataclass(frozen=True, slots=True)
class ShardJob:
    """One shard to embed; rows in ``skip`` crashed a worker before and are recorded, not tried.

    An embedding file never changes under those that read it, unless a repair was asked for (``replace``): of two runs
    on one output the first to finish a shard has done it.
    """

    shard: Shard
    replace: bool = False
    skip: tuple[int, ...] = ()


class EmbedWorker:
    """Holds one encoder and embeds the shards that it is handed."""

    def __init__(self, setting: EmbedSetting) -> None:
        self.setting = setting
        self.encoder = load(setting.spec, device=setting.device)

    def run(self, payload: ShardJob) -> dict[str, Any]:
        """Embeds one shard and commits its file.

        Returns:
            Counts and seconds of the shard.
        """
        setting, job = self.setting, payload
        table = setting.corpus.read(job.shard, _columns(setting))
        refused = {
            row: BadInputError(Reason.UNREADABLE_ROW, problem)
            for row, problem in enumerate(table.column(BAD).to_pylist())
            if problem is not None
        }
        refused |= {row: BadInputError(Reason.POISONED, "this row crashed its worker") for row in job.skip}
        members = Members(table, setting.columns, job.shard.folder, refused)
        batch = setting.batch or self.batch(members.values)
        result = members.embed(self.encoder, batch=batch, threads=setting.threads)
        path = embedding_path(setting.name, setting.encoder_id, job.shard.id)
        keys = setting.corpus.keys(job.shard, table)
        write = setting.storage.write_table if job.replace else setting.storage.create_table
        write(path, members.table(keys, result), **EMBEDDING_PARQUET)
        return {
            "rows": job.shard.rows,
            "encoded": result.encoded,
            "bad": Counter(reason for reason in result.reasons if reason is not None),
            "seconds": dict(result.seconds),
        }

    def probe(self, payload: ShardJob, rows: Sequence[int]) -> None:
        """Embeds some rows of a shard and forgets the vectors; used to find the row that crashes a worker."""
        table = self.setting.corpus.read(payload.shard, _columns(self.setting)).take(list(rows))
        members = Members(table, self.setting.columns, payload.shard.folder)
        members.embed(self.encoder, batch=self.setting.batch or 1, threads=1)

    def batch(self, values: Sequence[object]) -> int:
        """The batch that runs fastest on these values (rows, or tokens for text)."""
        return int(find_batch(self.encoder, [value for value in values if value is not None][:_CALIBRATION_ROWS]))


EMBEDDING_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["reason"],
    "use_byte_stream_split": ["vector.list.element"],
}


@task(name="embed", task_run_name="embed {name}", cache_policy=NO_CACHE)
def embed_input(run: Run, name: str, cluster: Cluster) -> dict[str, Any]:
    """Embeds what is not yet embedded of one input.

    Returns:
        Figures for report.json: rows, seconds, rows_per_s, shards, skipped, seconds of each part, quarantined shards.
    """
    shards = pending(run, name)
    rows = sum(shard.rows for shard in shards)
    if not shards:
        return {"rows": 0, "seconds": 0.0, "rows_per_s": 0.0, "shards": 0, "shards_done_before": len(run.shards)}
    run.storage.write(*check_columns(run, name))
    ray = run.job.ray
    workers = cluster.split(ray.workers, ray.threads_per_worker, ray.gpus_per_worker, rows)
    setting = _fixed_setting(run, name, workers)
    workers = replace(workers, workers=min(workers.workers, len(shards)), threads=setting.threads)
    parts: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    there = _announce_repairs(run, name, shards)
    encoded = 0
    with StageProgress(f"embed {name}", rows, skipped=run.rows - rows, storage=run.storage) as progress:

        def done(work: Work, result: dict[str, Any]) -> None:
            nonlocal encoded
            encoded += result["encoded"]
            parts.update(result["seconds"])
            bad.update(result["bad"])
            progress.advance(work.rows, result["seconds"])

        progress.employs(workers, cluster.gpus)
        quarantined = dispatch(
            [Work(shard.id, ShardJob(shard, shard.id in there), shard.rows) for shard in shards],
            worker=EmbedWorker,
            args=(setting,),
            plan=workers,
            name=f"{run.job.name}-embed-{name}",
            on_done=done,
            without_rows=_without_rows,
        )
    _refuse(name, quarantined)
    figures: dict[str, Any] = progress.figures()
    return figures | {
        "encoded": encoded,
        "shards": len(shards),
        "shards_done_before": len(run.shards) - len(shards),
        "workers": workers.workers,
        "threads_per_worker": workers.threads,
        "batch": setting.batch,
        "parts": {part: round(seconds, 3) for part, seconds in parts.items()},
        "limited_by": _limited_by(parts),
        "bad": dict(bad),
    }


def check_columns(run: Run, name: str) -> tuple[str, bytes]:
    """Refuses to mix embeddings of one column with those of another, which no name would tell apart.

    Returns:
        Path and content of the file beside the embeddings that tells of which columns they are.

    Raises:
        JobError: There are embeddings of other columns.
    """
    path = f"embeddings/{name}/{run.encoders[name].encoder_id}/{COLUMNS}"
    columns = [*run.columns(name), run.weights_column(name)]
    known = json.loads(run.storage.read(path)) if run.storage.exists(path) else columns
    if known != columns:
        raise JobError(
            f"inputs.{name}.column",
            f"the embeddings in {run.job.output.path} were made of {', '.join(filter(None, known))}; give the input "
            "another name or the job another output.path",
        )
    return path, json.dumps(columns).encode()


def pending(run: Run, name: str) -> list[Shard]:
    """Shards of one input without an embedding file (or whose pictures changed, or that held bad rows, if asked)."""
    done = done_shards(run.storage, name, run.encoders[name].encoder_id)
    return [shard for shard in run.shards if shard.id not in done or _stale(run, name, shard)]


def _stale(run: Run, name: str, shard: Shard) -> bool:
    if not (run.retry_bad or run.recheck):
        return False
    path = embedding_path(name, run.encoders[name].encoder_id, shard.id)
    table = run.storage.read_table(path, columns=["ok", "source", "source_stamp"])
    if run.retry_bad and not all(table.column("ok").to_pylist()):
        return True
    if not run.recheck or run.specs[name].kind != "image":
        return False
    columns = _input_columns(run, name)
    members = Members(run.corpus.read(shard, columns.names), columns, shard.folder)
    changed: bool = members.stamps() != table.column("source_stamp").to_pylist()
    return changed


def _announce_repairs(run: Run, name: str, shards: Sequence[Shard]) -> set[str]:
    """Ids of the shards whose embedding file is there and will be made again."""
    if not (run.retry_bad or run.recheck):
        return set()
    encoder_id = run.encoders[name].encoder_id
    there = done_shards(run.storage, name, encoder_id) & {shard.id for shard in shards}
    intend_repairs(run.storage, [embedding_path(name, encoder_id, shard_id) for shard_id in sorted(there)])
    return there


def _input_columns(run: Run, name: str) -> Columns:
    names, kind = run.columns(name), run.specs[name].kind
    return Columns(
        kind=kind,
        names=tuple(names),
        weights=run.weights_column(name),
        several=run.several(name),
        pictures=_pictures(run, name) if kind == "image" else None,
    )


def _pictures(run: Run, name: str) -> Pictures:
    limits = run.job.limits
    return Pictures(
        run.picture_root(name),
        outside_corpus=limits.outside_corpus,
        http=limits.http,
        max_bytes=limits.max_picture_bytes,
        http_timeout=limits.http_timeout,
        http_concurrency=limits.http_concurrency,
        storage_options=storage_options(run.job),
    )


def _fixed_setting(run: Run, name: str, workers: WorkerPlan) -> EmbedSetting:
    """The setting of one input, its batch fixed in plan.json before the first shard and kept by every rerun."""
    spec = run.specs[name]
    device = "cuda" if workers.gpus_per_worker else "cpu"
    setting = EmbedSetting(
        name=name,
        spec=spec,
        encoder_id=run.encoders[name].encoder_id,
        columns=_input_columns(run, name),
        corpus=run.corpus,
        storage=run.storage,
        device=device,
        batch=None,
        threads=workers.threads,
    )
    plan = json.loads(run.storage.read("plan.json")) if run.storage.exists("plan.json") else {}
    fixed = plan.get("inputs", {}).get(name, {})
    asked = run.job.inputs[name].batch
    key = {"encoder_id": setting.encoder_id, "device": device, "asked": [asked, run.job.ray.threads_per_worker]}
    if {part: fixed.get(part) for part in key} == key:
        return replace(setting, batch=fixed["batch"], threads=fixed["threads"])
    batch = asked if asked != "auto" else _calibrated(run, setting, workers)
    inputs = plan.get("inputs", {}) | {name: key | {"batch": batch, "threads": setting.threads, "dtype": spec.dtype}}
    plan = {"inputs": inputs, "libraries": library_versions()}
    run.storage.write("plan.json", json.dumps(plan, indent=1, sort_keys=True).encode())
    return replace(setting, batch=batch)


class BatchWorker(EmbedWorker):
    """Finds the batch that runs fastest on the first rows of a shard."""

    def run(self, payload: ShardJob) -> dict[str, Any]:
        """The batch, in rows or tokens."""
        shard = payload.shard
        sample = replace(shard, stop=min(shard.stop, shard.start + _CALIBRATION_ROWS))
        table = self.setting.corpus.read(sample, _columns(self.setting))
        return {"batch": self.batch(Members(table, self.setting.columns, shard.folder).values)}


def _calibrated(run: Run, setting: EmbedSetting, workers: WorkerPlan) -> int:
    found: list[int] = []
    failed = dispatch(
        [Work("batch", ShardJob(run.shards[0]), run.shards[0].rows)],
        worker=BatchWorker,
        args=(setting,),
        plan=replace(workers, workers=1),
        name=f"{run.job.name}-batch-{setting.name}",
        on_done=lambda _, result: found.append(int(result["batch"])),
    )
    if failed:
        raise RunError(
            f"input {setting.name}: no batch could be tried: {failed[0].detail}; set inputs.{setting.name}.batch"
        )
    return found[0]


def library_versions() -> dict[str, str]:
    """Versions of what computes, for plan.json."""
    from importlib.metadata import version

    names = ("torch", "torchvision", "transformers", "tokenizers", "pillow", "numpy", "pyarrow", "ray", "prefect")
    return {"python": platform.python_version()} | {name: version(name) for name in names}


def _without_rows(work: Work, rows: Sequence[int]) -> Work:
    return replace(work, payload=replace(work.payload, skip=(*work.payload.skip, *rows)))


def _columns(setting: EmbedSetting) -> list[str]:
    wanted = [setting.corpus.key, *setting.columns.names, setting.columns.weights]
    return list(dict.fromkeys(column for column in wanted if column is not None))


def _refuse(name: str, quarantined: Sequence[Quarantined]) -> None:
    if quarantined:
        first = quarantined[0]
        raise RunError(
            f"{len(quarantined)} shard(s) of input {name} failed {first.attempts} times; "
            f"first {first.id}: {first.detail}; run again to retry them, the other shards are kept"
        )


def _limited_by(parts: Counter[str]) -> str:
    model, prepare = parts.get("model", 0.0), parts.get("wait", 0.0) + parts.get("read", 0.0)
    return "model" if model >= prepare else "decode: add CPU cores or threads_per_worker"
