"""Files of an output made again without some rows: embeddings, features, rejects, samples, the report."""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from barycenter.fusion.dataset.schema import ROW_GROUP_ROWS, FeatureFile, Manifest, parquet_options
from barycenter.infra.storage.storage import Storage
from barycenter.infra.versions.digest_index import value_digest
from barycenter.infra.versions.embedding_files import EMBEDDING_PARQUET

ERASED = "erased"
"""Key of a manifest: {shard: rows that were taken out of it}."""

REPORT = "report/report.json"

_SAMPLES = "embeddings/.samples"
_COPIED_BYTES = 8 << 20
_FIGURES = ("name", "split", "alignment", "retrieval", "probe", "neighbors", "speed", "listing", "reuse")
"""What a report keeps: figures over many rows; neither examples nor notes."""


def hashed(key: str) -> str:
    """What a key is remembered by while its rows are taken out."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def name_without(name: str, keys: Collection[str]) -> str:
    """The name of a version or a shard that is without some rows."""
    text = json.dumps([name, sorted(map(hashed, keys))])
    return hashlib.blake2b(text.encode(), digest_size=10).hexdigest()


def embedding_path_without(path: str, keys: Collection[str]) -> str:
    """Where the embeddings of a shard lie that is without some rows: under a name that no shard of a corpus has."""
    folder, _, name = path.rpartition("/")
    return f"{folder}/{name_without(name.removesuffix('.parquet'), keys)}.parquet"


def rows_of(column: pa.ChunkedArray, keys: Collection[str]) -> list[tuple[int, str]]:
    """Rows whose key is one of these, with it."""
    found = pc.is_in(column, pa.array(sorted(keys), column.type)).to_numpy()
    return [(row, str(column[row].as_py())) for row in found.nonzero()[0].tolist()]


@dataclass
class ErasedContents:
    """What the rows taken out of embedding files are known by.

    Attributes:
        digests: Of their contents.
        opaque: Paths of files whose rows are of several values, so that their digest is of none of them.
    """

    digests: set[bytes] = field(default_factory=set)
    opaque: list[str] = field(default_factory=list)


def write_embeddings_without(
    storage: Storage, found: Mapping[str, Sequence[tuple[int, str]]], keys: Collection[str]
) -> ErasedContents:
    """Writes embedding files again without some rows, under other names; the old ones stay.

    What is left of a shard serves later runs, which copy vectors by content; a shard of which nothing is left has none.
    """
    contents = ErasedContents()
    for path, rows in found.items():
        table = storage.read_table(path)
        gone = [row for row, _ in rows]
        if "digest" in table.column_names:
            contents.digests |= {value for value in table.column("digest").take(gone).to_pylist() if value is not None}
        if "count" in table.column_names:
            contents.opaque.append(path)
        if len(gone) < table.num_rows:
            left = table.take(sorted(set(range(table.num_rows)) - set(gone)))
            storage.write_table(embedding_path_without(path, keys), left, **EMBEDDING_PARQUET)
    return contents


def clean_samples(storage: Storage, contents: ErasedContents, encoders: Mapping[str, str]) -> None:
    """Takes contents out of the samples that encoders are checked by.

    Args:
        storage: The output.
        contents: Which.
        encoders: The encoder of each folder of embeddings. A sample of rows of several values goes as a whole, the next
            run that embeds makes it again; where the encoder is not known, so do all.
    """
    unsure = {encoders.get(path.split("/")[-2]) for path in contents.opaque}
    for path in storage.list(_SAMPLES):
        if storage.is_temporary(path):
            continue
        if None in unsure or path.rpartition("/")[2].removesuffix(".parquet") in unsure:
            storage.remove([path])
            continue
        table = storage.read_table(path)
        stays = [value_digest(value) not in contents.digests for value in table.column("value").to_pylist()]
        if not any(stays):
            storage.remove([path])
        elif not all(stays):
            storage.write_table(path, table.filter(pa.array(stays)))


def write_version_without(
    storage: Storage,
    manifest: Manifest,
    keys: Collection[str],
    in_shards: Mapping[str, int],
    gone_shards: Collection[str],
) -> Manifest:
    """Writes the features and rejects of a version again without some rows.

    Args:
        storage: The output.
        manifest: Of the version.
        keys: Of the rows.
        in_shards: How many of the rows are in each shard that has any.
        gone_shards: Those of them that have no other rows.

    Returns:
        What to commit.
    """
    version = name_without(manifest.version, keys)
    missing, bad = Counter(manifest.rows.get("missing", {})), Counter(manifest.rows.get("bad", {}))
    written, files = 0, []
    for file in manifest.files:
        path = _moved(file.path, version)
        table = storage.read_table(file.path, columns=[manifest.key, *(f"has_{name}" for name in manifest.inputs)])
        gone = table.filter(pc.is_in(table.column(manifest.key), pa.array(sorted(keys), pa.string())))
        written += gone.num_rows
        for name in manifest.inputs:
            missing[name] -= gone.num_rows - int(pc.sum(gone.column(f"has_{name}"), min_count=0).as_py())
        if not gone.num_rows:
            _copy(storage, file.path, path)
            files.append(replace(file, path=path))
        elif gone.num_rows < file.rows:
            files.append(_filtered(storage, file, path, manifest.key, keys))
    rejects = []
    for old in manifest.rejects:
        table = storage.read_table(old)
        named = pc.fill_null(pc.is_in(table.column("key"), pa.array(sorted(keys), pa.string())), False)
        bad.subtract(table.filter(named).column("reason").to_pylist())
        if (left := table.filter(pc.invert(named))).num_rows:
            rejects.append(_moved(old, version))
            storage.write_table(rejects[-1], left)
    read = manifest.rows["read"] - max(sum(in_shards.values()), written)
    left_written = manifest.rows["written"] - written
    rows = {"read": read, "written": left_written, "rejected": read - left_written}
    rows |= {"missing": dict(missing), "bad": dict(+bad)}
    renamed = {shard: name_without(shard, keys) for shard in in_shards}
    before = manifest.other_keys.get(ERASED, {})
    counts = {renamed.get(shard, shard): count for shard, count in before.items()}
    counts |= {renamed[shard]: before.get(shard, 0) + count for shard, count in in_shards.items()}
    return replace(
        manifest,
        version=version,
        rows=rows,
        files=tuple(files),
        rejects=tuple(rejects),
        shards=tuple(renamed.get(shard, shard) for shard in manifest.shards if shard not in gone_shards),
        join=None,
        other_keys=manifest.other_keys | {ERASED: counts},
    )


def _moved(path: str, version: str) -> str:
    """The same file of another version."""
    kind, _, rest = path.split("/", 2)
    return f"{kind}/{version}/{rest}"


def _copy(storage: Storage, old: str, new: str) -> None:
    with storage.open(old) as source, storage.writing(new) as sink:
        while piece := source.read(_COPIED_BYTES):
            sink.write(piece)


def _filtered(storage: Storage, file: FeatureFile, path: str, key: str, keys: Collection[str]) -> FeatureFile:
    """One feature file without some rows, row group by row group."""
    rows = 0
    with storage.parquet(file.path) as opened, storage.writing(path) as sink:
        schema = opened.schema_arrow
        with pq.ParquetWriter(sink, schema, **parquet_options(schema)) as writer:
            for left in _groups_without(opened, key, keys):
                rows += left.num_rows
                writer.write_table(left, row_group_size=ROW_GROUP_ROWS)
    size = storage.sizes(path.rpartition("/")[0])[path]
    return replace(file, path=path, rows=rows, bytes=size, sha256=storage.sha256(path))


def _groups_without(opened: pq.ParquetFile, key: str, keys: Collection[str]) -> Iterator[pa.Table]:
    for number in range(opened.num_row_groups):
        table = opened.read_row_group(number, use_threads=False)
        left = table.filter(pc.invert(pc.is_in(table.column(key), pa.array(sorted(keys), table.column(key).type))))
        if left.num_rows:
            yield left


def clean_report(storage: Storage, keys: Collection[str], manifest: Manifest | None) -> None:
    """Leaves of a report its figures alone: pictures, pages and examples show single rows; the next run makes them.

    Args:
        storage: The output.
        keys: Of the rows that are taken out.
        manifest: Of the version that readers see.
    """
    others = [path for path in storage.list("report") if path != REPORT and not storage.is_temporary(path)]
    if storage.exists(REPORT):
        report = _figures_of(storage.read(REPORT), keys)
        if manifest is not None:
            report |= {"version": manifest.version, "rows": manifest.rows}
        storage.write(REPORT, json.dumps(report, indent=1).encode())
    storage.remove(others)


def _figures_of(content: bytes, keys: Collection[str]) -> dict[str, Any]:
    try:
        report = json.loads(content)
        figures = {name: report[name] for name in _FIGURES if name in report}
        warnings = report.get("warnings", [])
    except (ValueError, TypeError, AttributeError):
        return {}
    named = re.compile("|".join(rf"(?<!\w){re.escape(key)}(?!\w)" for key in keys))
    return figures | {"warnings": [line for line in warnings if not named.search(str(line))]}
