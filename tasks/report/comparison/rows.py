"""The rows of two versions: keys that came and went, and rows whose fused vectors moved.

Memory is bounded. Keys are compared by 64-bit hashes, some millions at a time: of more, the key columns are read as
often as there are buckets. Vectors are compared on a sample, the keys in both whose hashes are lowest.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.dataset.schema import array_to_vectors
from barycenter.fusion.metrics import unit_rows
from barycenter.fusion.splits import stable_hash
from barycenter.infra.words import counted
from barycenter.tasks.data.labeled_rows import read_file
from barycenter.tasks.report.comparison.sides import Side

KEYS_AT_ONCE = 4_000_000
SAMPLE_BYTES = 128 << 20
MOVED_ROWS, NEIGHBOR_ROWS = 50_000, 5_000

_NEAREST, _EXAMPLES = 10, 10
_SAME = 1e-6
_BLOCK_ROWS = 512

Hashes = NDArray[np.uint64]


@dataclass(frozen=True)
class Keys:
    """The keys of two versions.

    Attributes:
        kept, added, removed: How many are in both, in the second alone, in the first alone.
        sample: Hashes of keys in both, the lowest, ascending.
        first_added, first_removed: A few hashes of those.
    """

    kept: int
    added: int
    removed: int
    sample: Hashes
    first_added: Hashes
    first_removed: Hashes


def compare_keys(before: Side, after: Side, sample: int = MOVED_ROWS) -> Keys:
    """Counts keys that came and went, and draws a sample of those in both."""
    rows = sum(file.rows for side in (before, after) for file in side.manifest.files)
    buckets = max(1, math.ceil(rows / KEYS_AT_ONCE))
    counts = np.zeros(3, dtype=np.int64)
    drawn = [np.empty(0, np.uint64)] * 3
    for bucket in range(buckets):
        one, other = (_bucket(side, bucket, buckets) for side in (before, after))
        parts = [np.intersect1d(one, other), np.setdiff1d(other, one), np.setdiff1d(one, other)]
        counts += [len(part) for part in parts]
        most = (sample, _EXAMPLES, _EXAMPLES)
        drawn = [np.sort(np.concatenate(pair))[:few] for few, *pair in zip(most, drawn, parts, strict=True)]
    kept, added, removed = (int(count) for count in counts)
    return Keys(kept, added, removed, *drawn)


def key_changes(before: Side, after: Side, keys: Keys) -> dict[str, Any]:
    """``kept``, ``added`` and ``removed`` counts, and ``examples`` {added, removed: [key]}."""
    examples = {
        "added": [key for key, _ in rows_of(after, keys.first_added)],
        "removed": [key for key, _ in rows_of(before, keys.first_removed)],
    }
    return {"kept": keys.kept, "added": keys.added, "removed": keys.removed, "examples": examples}


def moved_rows(before: Side, after: Side, keys: Keys, notes: list[str]) -> dict[str, Any] | None:
    """Rows in both that moved most.

    Where both have one alignment, by the cosine of a row's two vectors. Else the spaces cannot be compared, and it is
    counted how many of a row's nearest rows of the sample are the same in both.

    Returns:
        ``by`` (``cosine`` or ``neighbors``), ``sample``, ``of``: rows looked at and rows in both. By cosine: ``mean``,
        ``unmoved`` (share) and ``rows`` [{key, cosine}]; by neighbors: ``nearest``, ``overlap`` and ``chance``
        (shares), ``rows`` [{key, shared}]. The first rows moved most. None where too few rows are in both, with a note.
    """
    one_space = (
        before.manifest.alignment_id == after.manifest.alignment_id and before.manifest.dim == after.manifest.dim
    )
    widest = max(before.manifest.dim, after.manifest.dim)
    most = min(MOVED_ROWS if one_space else NEIGHBOR_ROWS, max(1000, SAMPLE_BYTES // (4 * widest)))
    wanted = keys.sample[:most]
    if len(wanted) < (1 if one_space else 3):
        notes.append(f"{counted(len(wanted), 'row')} in both, too few to say which moved")
        return None
    names, one = _vectors(before, wanted)
    _, other = _vectors(after, wanted)
    about = {"sample": len(wanted), "of": keys.kept}
    if one_space:
        return {"by": "cosine"} | about | _by_cosine(names, one, other)
    notes.append("the alignments differ, so vectors cannot be compared one by one; the nearest rows of each are")
    return {"by": "neighbors"} | about | _by_neighbors(names, one, other)


def _by_cosine(names: list[str], one: NDArray[np.float32], other: NDArray[np.float32]) -> dict[str, Any]:
    cosine = (unit_rows(one) * unit_rows(other)).sum(axis=1, dtype=np.float64)
    cosine[np.all(one == other, axis=1)] = 1.0
    moved = [at for at in np.argsort(cosine, kind="stable")[:_EXAMPLES] if cosine[at] < 1 - _SAME]
    return {
        "mean": float(cosine.mean()),
        "unmoved": float((cosine >= 1 - _SAME).mean()),
        "rows": [{"key": names[at], "cosine": round(float(cosine[at]), 6)} for at in moved],
    }


def _by_neighbors(names: list[str], one: NDArray[np.float32], other: NDArray[np.float32]) -> dict[str, Any]:
    nearest = min(_NEAREST, len(names) - 2)
    first, second = unit_rows(one), unit_rows(other)
    shared = np.empty(len(names), dtype=np.int64)
    for start in range(0, len(names), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        pairs = zip(_nearest(first, rows, nearest), _nearest(second, rows, nearest), strict=True)
        shared[rows] = [len(np.intersect1d(mine, theirs)) for mine, theirs in pairs]
    moved = [at for at in np.argsort(shared, kind="stable")[:_EXAMPLES] if shared[at] < nearest]
    return {
        "nearest": nearest,
        "overlap": float(shared.mean() / nearest),
        "chance": nearest / (len(names) - 1),
        "rows": [{"key": names[at], "shared": int(shared[at])} for at in moved],
    }


def _nearest(vectors: NDArray[np.float32], rows: slice, nearest: int) -> NDArray[np.int64]:
    """(n, nearest) the rows most similar to some, themselves left out."""
    similarity = vectors[rows] @ vectors.T
    similarity[np.arange(len(similarity)), np.arange(rows.start, rows.start + len(similarity))] = -np.inf
    return np.argpartition(-similarity, nearest - 1, axis=1)[:, :nearest]


def _bucket(side: Side, bucket: int, buckets: int) -> Hashes:
    """Hashes of the keys of one bucket."""
    key = side.manifest.key
    found = [np.empty(0, np.uint64)]
    for file in side.manifest.files:
        hashes = stable_hash(read_file(side.storage, side.manifest, file, [key]).column(key).to_pylist())
        found.append(hashes[hashes % np.uint64(buckets) == bucket] if buckets > 1 else hashes)
    return np.concatenate(found)


def rows_of(side: Side, wanted: Hashes, columns: tuple[str, ...] = ()) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Keys of some rows and the values of other columns, in the order of the hashes."""
    found: dict[int, tuple[str, tuple[Any, ...]]] = {}
    key = side.manifest.key
    for file in side.manifest.files if len(wanted) else ():
        table = read_file(side.storage, side.manifest, file, [key, *columns])
        hashes = stable_hash(table.column(key).to_pylist())
        for row in np.flatnonzero(np.isin(hashes, wanted)):
            values = tuple(table.column(name)[int(row)].as_py() for name in columns)
            found[int(hashes[row])] = (str(table.column(key)[int(row)].as_py()), values)
    return iter([found[int(each)] for each in wanted if int(each) in found])


def _vectors(side: Side, wanted: Hashes) -> tuple[list[str], NDArray[np.float32]]:
    """Keys and (n, dim) fused vectors of some rows, in the order of the hashes; one file in memory beside them."""
    key, names = side.manifest.key, [""] * len(wanted)
    vectors = np.zeros((len(wanted), side.manifest.dim), np.float32)
    for file in side.manifest.files:
        hashes = stable_hash(read_file(side.storage, side.manifest, file, [key]).column(key).to_pylist())
        rows = np.flatnonzero(np.isin(hashes, wanted))
        if not len(rows):
            continue
        table = read_file(side.storage, side.manifest, file, [key, "fused"]).take(rows)
        places = np.searchsorted(wanted, hashes[rows])
        vectors[places] = array_to_vectors(table.column("fused"))
        for place, name in zip(places.tolist(), table.column(key).to_pylist(), strict=True):
            names[place] = str(name)
    return names, vectors
