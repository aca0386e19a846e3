"""The rows of a shard: taken over where they are known, encoded where they are not."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields, replace

import numpy as np
import pyarrow as pa

from barycenter.fusion.encoders.multiple_values import PooledResult
from barycenter.fusion.encoders.pipeline import EmbeddingResult, Pipeline
from barycenter.tasks.data.embeddings import NOTE
from barycenter.tasks.embed.known_rows import MISSING, Found, KnownRows
from barycenter.tasks.run.input_values import InputValues

COUNTED = ("copied", "duplicate", "encoded", "missing", "rejected")
"""What became of the rows of a shard; each is one of these."""

_KEPT_BYTES = 256 << 20
"""Of pictures that were read to know them, so many bytes are kept until they are decoded."""


def note(
    encoding: str, after: int, counts: Mapping[str, int], rows: str, columns: Mapping[str, str], raw: str | None
) -> dict[bytes, bytes]:
    """What an embedding file says of its rows, beside their vectors.

    Args:
        encoding: What the vectors depend on beside their input.
        after: Number of the version that was the newest when the run began.
        counts: What became of the rows.
        rows: Digest of what the rows hold.
        columns: Digests of the corpus's columns that decide labels, sides and groups.
        raw: Digest of the bytes that the rows were read from, if these alone decide what the file holds.
    """
    about = {"encoding": encoding, "after": after, **{name: counts[name] for name in COUNTED}}
    about |= {"rows": rows, "columns": columns, "raw": raw}
    return {NOTE: json.dumps(about).encode()}


def note_of_copy(table: pa.Table, after: int) -> tuple[dict[bytes, bytes], dict[str, int]]:
    """The note of an embedding file that was taken over whole, and what became of its rows: none of them is a reject.

    Args:
        table: The file, with its own note.
        after: Number of the version that was the newest when the run began.
    """
    good = table.column("reason").null_count
    counts = dict.fromkeys(COUNTED, 0) | {"copied": good, "missing": table.num_rows - good}
    return {NOTE: json.dumps(json.loads(table.schema.metadata[NOTE]) | {"after": after} | counts).encode()}, counts


@dataclass(slots=True)
class ShardRows:
    """What came of the rows of a shard.

    Attributes:
        result: Of all rows.
        digests: What each is known by.
        counts: Rows by :data:`COUNTED`.
        tried: Values that were not taken over.
    """

    result: PooledResult
    digests: list[bytes | None]
    counts: Counter[str]
    tried: int


def embed_rows(
    inputs: InputValues,
    known: KnownRows,
    pipeline: Callable[[], Pipeline],
    *,
    batch: int,
    readers: Executor,
    recheck: bool = False,
) -> ShardRows:
    """Embeds rows, but for those that are known.

    Args:
        inputs: The rows.
        known: What this worker may take over.
        pipeline: Gives the encoder, where it is needed.
        batch: Tokens (text) or rows (others) a batch may hold.
        readers: Read pictures, to know them.
        recheck: Whether a picture counts as unchanged only once it was read.
    """
    if inputs.vectors is not None:  # nothing is saved; the rows are counted as others are
        result = inputs.embed(pipeline(), batch=batch)
        of_vectors = inputs.digests()
        return ShardRows(result, of_vectors, _counts(result, known.find(of_vectors), of_vectors), 0)
    found = _find(inputs, known, readers, recheck)
    rows = [row for row in range(inputs.rows) if row not in found.places]
    rest = inputs.take(rows) if found.places else inputs
    encoded = rest.embed(pipeline(), batch=batch) if rows else _nothing_encoded(found)
    digests = dict(zip(rows, rest.digests(), strict=True)) | {row: found.digest(row) for row in found.places}
    result = _together(encoded, rows, found, inputs.rows) if found.places else encoded
    in_order = [digests[row] for row in range(inputs.rows)]
    return ShardRows(result, in_order, _counts(result, found, in_order), len(rest.values))


def _find(inputs: InputValues, known: KnownRows, readers: Executor, recheck: bool) -> Found:
    """The rows that are known, pictures by where they are or else by their bytes."""
    if not known.any:
        return Found()
    if inputs.pictures is None:
        return known.find(inputs.digests())
    found = Found() if recheck else known.find(inputs.seen())
    rows = [row for row in range(inputs.rows) if row not in found.places]
    inputs.pictures.read_ahead(inputs.positions(rows), _KEPT_BYTES, readers, all_of_them=known.indexed)
    digests = inputs.digests()
    found.extend(known.find([None if row in found.places else digest for row, digest in enumerate(digests)]))
    inputs.pictures.drop(inputs.positions(list(found.places)))
    return found


def _nothing_encoded(found: Found) -> PooledResult:
    """What came of no rows: the encoder need not even be loaded."""
    empty = EmbeddingResult.empty(0, found.files[0].vectors.shape[1] if found.files else 0)
    of_all = {each.name: getattr(empty, each.name) for each in fields(empty)}
    return PooledResult(**of_all, counts=np.zeros(0, np.int32), bad=[], encoded=0)


def _together(encoded: PooledResult, rows: Sequence[int], found: Found, n: int) -> PooledResult:
    """Of n rows: those that were encoded, and those that were found."""
    empty = EmbeddingResult.empty(n, encoded.vectors.shape[1])
    together = replace(
        encoded,
        vectors=empty.vectors,
        ok=empty.ok,
        reasons=empty.reasons,
        details=empty.details,
        counts=np.zeros(n, np.int32),
        bad=[replace(value, row=rows[value.row]) for value in encoded.bad],
    )
    together.vectors[rows], together.ok[rows], together.counts[rows] = encoded.vectors, encoded.ok, encoded.counts
    for row, reason, detail in zip(rows, encoded.reasons, encoded.details, strict=True):
        together.reasons[row], together.details[row] = reason, detail
    found.copy(together.vectors, together.counts)
    together.ok[list(found.places)] = True
    return together


def _counts(result: PooledResult, found: Found, digests: Sequence[bytes | None]) -> Counter[str]:
    """What became of the rows; of several of one content in this shard the first was encoded."""
    counts: Counter[str] = Counter(dict.fromkeys(COUNTED, 0))
    seen: set[bytes] = set()
    for row, ok in enumerate(result.ok.tolist()):
        digest = digests[row]
        if not ok:
            counts["missing" if result.reasons[row] in MISSING else "rejected"] += 1
        elif row in found.places:
            counts["duplicate" if found.is_mine(row) else "copied"] += 1
        elif digest is not None and digest in seen:
            counts["duplicate"] += 1
        else:
            counts["encoded"] += 1
        if ok and digest is not None:
            seen.add(digest)
    return counts
