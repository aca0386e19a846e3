"""What is done: an embedding file that is there is a shard that need not be embedded again."""

from infra.storage import Storage

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
