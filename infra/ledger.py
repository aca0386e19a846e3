"""What is done: an embedding file that is there is a shard that need not be embedded again."""

import json
from collections.abc import Iterable

from infra.storage import Storage

REPAIRS = "embeddings/repairs.json"
"""Embedding files made again in place: {path: [SHA-256 at first, SHA-256 now, or null until that is settled]}."""

COLUMNS = "columns.json"
"""Beside the embeddings of an input and encoder: which columns of the corpus they are of."""

_SUFFIX = ".parquet"


def embedding_path(input_name: str, encoder_id: str, shard_id: str) -> str:
    """Where the embeddings of one shard by one encoder lie, relative to the output.

    >>> embedding_path("text", "e1", "s1")
    'embeddings/text/e1/s1.parquet'
    """
    return f"embeddings/{input_name}/{encoder_id}/{shard_id}{_SUFFIX}"


def done_shards(storage: Storage, input_name: str, encoder_id: str) -> set[str]:
    """Ids of the shards that need no embedding any more, from one listing of one folder.

    Args:
        storage: The run's output.
        input_name: Name of the input in the job file.
        encoder_id: Identity of the encoder, its weights and settings.

    Returns:
        The ids; files that are not embeddings (temporary ones) do not count.
    """
    folder = f"embeddings/{input_name}/{encoder_id}"
    start, end = len(folder) + 1, -len(_SUFFIX)
    return {path[start:end] for path in storage.walk(folder) if path.endswith(_SUFFIX)}


def strays(storage: Storage, prefix: str = "") -> list[str]:
    """Temporary files that killed writers left below ``prefix``, sorted.

    One that a live writer has open is listed too: remove them only while no run writes there.
    """
    return sorted(path for path in storage.walk(prefix) if storage.is_temporary(path))


def intend_repairs(storage: Storage, paths: Iterable[str]) -> None:
    """Notes, before the first of them is touched, embedding files that are about to be made again in place."""
    noted = _noted(storage)
    for path in paths:
        first = noted[path][0] if path in noted else storage.sha256(path)
        noted[path] = (first, None)
    storage.write(REPAIRS, _encoded(noted))


def repairs(storage: Storage) -> dict[str, str]:
    """Content hashes of the embedding files that were made again in place and came out different, by path.

    A run that was killed while it repaired leaves notes of intentions; they are settled here, from what is stored, so
    that nothing repaired is overlooked and a repair that was done twice counts once.
    """
    noted = _noted(storage)
    if any(now is None for _, now in noted.values()):
        for path, (first, now) in list(noted.items()):
            now = now or (storage.sha256(path) if storage.exists(path) else first)
            noted[path] = (first, now)
        noted = {path: (first, now) for path, (first, now) in noted.items() if first != now}
        storage.write(REPAIRS, _encoded(noted))
    return {path: now for path, (_, now) in noted.items() if now is not None}


def _noted(storage: Storage) -> dict[str, tuple[str, str | None]]:
    if not storage.exists(REPAIRS):
        return {}
    return {path: (first, now) for path, (first, now) in json.loads(storage.read(REPAIRS)).items()}


def _encoded(noted: dict[str, tuple[str, str | None]]) -> bytes:
    return json.dumps(noted, indent=1, sort_keys=True).encode()
