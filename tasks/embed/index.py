"""The index of what an output holds vectors of, kept up to date; and from it, what became of a run's rows."""

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.storage.storage import MissingFileError
from barycenter.infra.versions.digest_index import DigestIndex, IndexedFile, update_index
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.infra.versions.manifests import read_manifest
from barycenter.tasks.data.embeddings import note_of, read_note
from barycenter.tasks.embed.shard_rows import COUNTED
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids, encoding_id

_EMBEDDINGS = "embeddings"
_KEYS_AT_ONCE = 1 << 25
_READERS = 16


def current_index(run: Run, name: str, changed: Collection[str] = ()) -> DigestIndex:
    """The index of an input's encoding, with every embedding file of this output and of those in ``output.reuse``.

    Args:
        run: Holds the output.
        name: The input.
        changed: Paths of embedding files that were made again.
    """
    encoding = encoding_id(run, name)
    index = DigestIndex.open(run.storage, encoding)
    stores = {root: Storage(root, run.job.storage.endpoint_url) for root in run.job.output.reuse}
    stores = {"": run.storage} | {root: store for root, store in stores.items() if store != run.storage}
    known = {(root, path.rpartition("/")[0]) for root, path in index.files()}

    def read(file: IndexedFile) -> tuple[IndexedFile, Sequence[pa.Array]] | None:
        return _read(stores[file.root], file, encoding)

    listed = [file for root, store in stores.items() for file in _files(store, root, encoding, known)]
    update_index(index, listed, read, changed)
    return index


def reuse_of(run: Run, name: str, index: DigestIndex, trial: int = 0) -> dict[str, int | None]:
    """What became of the rows of an input, for report.json; ``trial``: rows that only something was tried on."""
    return {**counts_of(run, name, index), "gone": gone_keys(run, name), "trial": trial}


def counts_of(run: Run, name: str, index: DigestIndex) -> Counter[str]:
    """Rows by what became of them, those of runs that were killed before they committed among them."""
    files, embedding_id = index.files(), embedding_ids(run)[name]
    counts: Counter[str] = Counter(dict.fromkeys(("read", "kept", *COUNTED), 0))
    for shard in run.shards:
        file = files.get(("", embedding_path(name, embedding_id, shard.id)))
        counts["read"] += shard.rows
        if file is None or file.about["after"] != run.after:
            counts["kept"] += shard.rows
        else:
            counts.update({part: file.about[part] for part in COUNTED})
    return counts


def gone_keys(run: Run, name: str) -> int | None:
    """How many keys of the version before are no longer there; None where its embeddings are gone.

    Keys are compared by their hashes, of the shards that only one of the two has, so many at a time.
    """
    if not run.after:
        return 0
    manifest = read_manifest(run.storage, run.after)
    about = manifest.inputs.get(name)
    if about is None:
        return None
    before = {embedding_path(name, about["embedding_id"], shard) for shard in manifest.shards}
    now = {embedding_path(name, embedding_ids(run)[name], shard.id) for shard in run.shards}
    if before <= now:
        return 0
    passes = 1 + manifest.rows["read"] // _KEYS_AT_ONCE
    edges = [round(part * 2**64 / passes) for part in range(passes)] + [2**64]
    gone = 0
    try:
        for low, high in pairwise(edges):
            left, came = (_key_hashes(run.storage, sorted(paths), low, high) for paths in (before - now, now - before))
            gone += len(np.setdiff1d(left, came))
    except MissingFileError:
        return None
    return gone


def _key_hashes(storage: Storage, paths: Sequence[str], low: int, high: int) -> NDArray[np.uint64]:
    """Hashes of keys in some embedding files, from ``low`` to below ``high``."""

    def read(path: str) -> NDArray[np.uint64]:
        hashes: NDArray[np.uint64] = storage.read_table(path, columns=["key_hash"]).column("key_hash").to_numpy()
        return hashes[(hashes >= np.uint64(low)) & (hashes <= np.uint64(high - 1))]

    with ThreadPoolExecutor(_READERS) as pool:
        return np.concatenate([np.empty(0, np.uint64), *pool.map(read, paths)])


def _files(store: Storage, root: str, encoding: str, known: Collection[tuple[str, str]]) -> Iterator[IndexedFile]:
    """Embedding files of an encoding: in a folder all have one, so a file of each folder is asked."""
    folders: dict[str, list[str]] = {}
    for path in store.walk(_EMBEDDINGS):
        if path.endswith(".parquet") and not path.startswith(f"{_EMBEDDINGS}/."):
            folders.setdefault(path.rpartition("/")[0], []).append(path)
    for folder, paths in sorted(folders.items()):
        if (root, folder) in known or _about(store, paths[0]).get("encoding") == encoding:
            yield from (IndexedFile(path, root) for path in sorted(paths))


def _about(store: Storage, path: str) -> dict[str, Any]:
    """What a file's writer noted; nothing of one that is gone or damaged."""
    try:
        return read_note(store, path)
    except (RunError, ValueError):
        return {}


def _read(store: Storage, file: IndexedFile, encoding: str) -> tuple[IndexedFile, list[pa.Array]] | None:
    try:
        with store.parquet(file.path) as opened:
            about = note_of(opened.metadata)
            if about.pop("encoding", None) != encoding:
                return None
            about = {part: value for part, value in about.items() if part in ("after", "raw", *COUNTED)}
            table = opened.read(columns=["digest", "seen"], use_threads=False)
    except (RunError, ValueError, KeyError):
        return None
    columns = [column.combine_chunks() for column in table.columns]
    return replace(file, rows=table.num_rows, about=about), columns
