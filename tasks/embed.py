"""Embed one input: shards of the corpus through its encoder, one Parquet file a shard; a file that is there is done."""

import json
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from fusion.encoders import EncoderSpec, load
from fusion.encoders.pipeline import embed, find_batch
from fusion.errors import BadInputError, Reason, RunError
from fusion.features import vectors_to_array
from infra.cluster import Cluster, WorkerPlan
from infra.corpus import BAD, Corpus, Picture, Pictures, Shard
from infra.dispatch import Quarantined, Work, dispatch
from infra.ledger import done_shards, embedding_path, intend_repairs
from infra.storage import Storage
from tasks.progress import StageProgress
from tasks.run import Run, storage_options

_CALIBRATION_ROWS = 512


@dataclass(frozen=True, slots=True)
class EmbedSetting:
    """What a worker needs to embed shards of one input; plain data, sent once per worker."""

    name: str
    spec: EncoderSpec
    encoder_id: str
    columns: tuple[str, ...]
    corpus: Corpus
    pictures: Pictures | None
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
        values, sources = self._values(table, job.shard.folder)
        for row, problem in enumerate(table.column(BAD).to_pylist()):
            if problem is not None:
                values[row] = partial(_refused, BadInputError(Reason.UNREADABLE_ROW, problem))
        for row in job.skip:
            values[row] = partial(_refused, BadInputError(Reason.POISONED, "this row crashed its worker"))
        result = embed(self.encoder, values, batch=setting.batch or self.batch(values), threads=setting.threads)
        path = embedding_path(setting.name, setting.encoder_id, job.shard.id)
        keys = setting.corpus.keys(job.shard, table)
        write = setting.storage.write_table if job.replace else setting.storage.create_table
        write(path, _embedding_table(keys, result, sources), **EMBEDDING_PARQUET)
        return {
            "rows": job.shard.rows,
            "bad": Counter(reason for reason in result.reasons if reason is not None),
            "seconds": dict(result.seconds),
        }

    def probe(self, payload: ShardJob, rows: Sequence[int]) -> None:
        """Embeds some rows of a shard and forgets the vectors; used to find the row that crashes a worker."""
        job = payload
        table = self.setting.corpus.read(job.shard, _columns(self.setting))
        values, _ = self._values(table, job.shard.folder)
        embed(self.encoder, [values[row] for row in rows], batch=self.setting.batch or 1, threads=1)

    def batch(self, values: Sequence[object]) -> int:
        """The batch that runs fastest on these values (rows, or tokens for text)."""
        return int(find_batch(self.encoder, [value for value in values if value is not None][:_CALIBRATION_ROWS]))

    def _values(self, table: pa.Table, folder: str) -> tuple[list[object], list[Picture | None]]:
        setting = self.setting
        if setting.spec.kind == "text":
            return _joined_text(table, setting.columns), [None] * table.num_rows
        column = table.column(setting.columns[0])
        if setting.pictures is None:
            return column.to_pylist(), [None] * table.num_rows
        values: list[object] = []
        pictures: list[Picture | None] = []
        for value in column.to_pylist():
            picture = _picture(setting.pictures, value, folder)
            values.append(picture.read if isinstance(picture, Picture) else partial(_refused, picture))
            pictures.append(picture if isinstance(picture, Picture) else None)
        return values, pictures


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
    ray = run.job.ray
    workers = cluster.split(ray.workers, ray.threads_per_worker, ray.gpus_per_worker, rows)
    setting = _fixed_setting(run, name, workers)
    workers = replace(workers, workers=min(workers.workers, len(shards)), threads=setting.threads)
    parts: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    there = _announce_repairs(run, name, shards)
    with StageProgress(f"embed {name}", rows, skipped=run.rows - rows, storage=run.storage) as progress:

        def done(work: Work, result: dict[str, Any]) -> None:
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
        "shards": len(shards),
        "shards_done_before": len(run.shards) - len(shards),
        "workers": workers.workers,
        "threads_per_worker": workers.threads,
        "batch": setting.batch,
        "parts": {part: round(seconds, 3) for part, seconds in parts.items()},
        "limited_by": _limited_by(parts),
        "bad": dict(bad),
    }


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
    pictures = _pictures(run)
    column = run.corpus.read(shard, run.job.inputs[name].columns).column(run.job.inputs[name].columns[0])
    stamps = [_stamp(_picture(pictures, value, shard.folder)) for value in column.to_pylist()]
    changed: bool = stamps != table.column("source_stamp").to_pylist()
    return changed


def _announce_repairs(run: Run, name: str, shards: Sequence[Shard]) -> set[str]:
    """Ids of the shards whose embedding file is there and will be made again."""
    if not (run.retry_bad or run.recheck):
        return set()
    encoder_id = run.encoders[name].encoder_id
    there = done_shards(run.storage, name, encoder_id) & {shard.id for shard in shards}
    intend_repairs(run.storage, [embedding_path(name, encoder_id, shard_id) for shard_id in sorted(there)])
    return there


def _stamp(picture: Picture | BadInputError) -> str | None:
    return picture.stamp if isinstance(picture, Picture) else None


def _pictures(run: Run) -> Pictures:
    limits = run.job.limits
    return Pictures(
        run.corpus.root,
        outside_corpus=limits.outside_corpus,
        http=limits.http,
        storage_options=storage_options(run.job),
    )


def _refused(error: BadInputError) -> object:
    raise error


def _picture(pictures: Pictures, value: object, folder: str) -> Picture | BadInputError:
    try:
        return pictures.reader(value, folder)
    except BadInputError as error:
        return error


def _fixed_setting(run: Run, name: str, workers: WorkerPlan) -> EmbedSetting:
    """The setting of one input, its batch fixed in plan.json before the first shard and kept by every rerun."""
    spec = run.specs[name]
    device = "cuda" if workers.gpus_per_worker else "cpu"
    setting = EmbedSetting(
        name=name,
        spec=spec,
        encoder_id=run.encoders[name].encoder_id,
        columns=tuple(run.job.inputs[name].columns),
        corpus=run.corpus,
        pictures=_pictures(run) if spec.kind == "image" else None,
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
        values, _ = self._values(self.setting.corpus.read(sample, _columns(self.setting)), shard.folder)
        return {"batch": self.batch(values)}


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
    key = setting.corpus.key
    return list(dict.fromkeys([*([key] if key else []), *setting.columns]))


def _joined_text(table: pa.Table, columns: Sequence[str]) -> list[object]:
    if len(columns) == 1:
        values: list[object] = table.column(columns[0]).to_pylist()
        return values
    rows = zip(*(table.column(column).to_pylist() for column in columns), strict=True)
    return ["\n".join(str(part) for part in row if part is not None) or None for row in rows]


def _embedding_table(keys: Sequence[str | None], result: Any, sources: Sequence[Picture | None]) -> pa.Table:
    columns: dict[str, pa.Array] = {
        "key": pa.array(keys, pa.string()),
        "vector": vectors_to_array(result.vectors),
        "ok": pa.array(result.ok),
        "reason": pa.array([None if reason is None else str(reason) for reason in result.reasons], pa.string()),
        "detail": pa.array(result.details, pa.string()),
        "source": pa.array([picture.uri if picture else None for picture in sources], pa.string()),
        "source_size": pa.array([picture.size if picture else None for picture in sources], pa.int64()),
        "source_stamp": pa.array([picture.stamp if picture else None for picture in sources], pa.string()),
    }
    schema = pa.schema(
        [pa.field(name, array.type, nullable=name not in ("vector", "ok")) for name, array in columns.items()]
    )
    return pa.Table.from_arrays(list(columns.values()), schema=schema)


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
