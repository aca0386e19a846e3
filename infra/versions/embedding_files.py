"""What is done: an embedding file that is there is a shard that need not be embedded again."""

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from barycenter.infra.clock import current_clock
from barycenter.infra.storage.json_files import read_json
from barycenter.infra.storage.storage import MissingFileError, Storage

_NOTES = "embeddings/.repairs"
"""Of embedding files made again in place, one file a run: {path: [SHA-256 at first, SHA-256 now, null until done]}."""

EMBEDDING_PARQUET: dict[str, Any] = {
    "compression": "zstd",
    "compression_level": 1,
    "use_dictionary": ["reason"],
    "use_byte_stream_split": ["vector.list.element"],
}
"""How embedding files are written."""

_READERS = 16
_SUFFIX = ".parquet"


def embedding_path(input_name: str, embedding_id: str, shard_id: str) -> str:
    """Where the embeddings of one shard lie, relative to the output.

    >>> embedding_path("text", "e1", "s1")
    'embeddings/text/e1/s1.parquet'
    """
    return f"embeddings/{input_name}/{embedding_id}/{shard_id}{_SUFFIX}"


def sample_path(encoder_id: str) -> str:
    """Where the sample lies that shows whether an encoder still gives the same vectors, relative to the output."""
    return f"embeddings/.samples/{encoder_id}{_SUFFIX}"


def done_shards(storage: Storage, input_name: str, embedding_id: str) -> set[str]:
    """Ids of the shards that need no embedding any more, from one listing of one folder.

    ``embedding_id`` names everything that the files depend on beside the shard. Files that are not embeddings
    (temporary ones) do not count.
    """
    folder = f"embeddings/{input_name}/{embedding_id}"
    start, end = len(folder) + 1, -len(_SUFFIX)
    return {path[start:end] for path in storage.walk(folder) if path.endswith(_SUFFIX)}


class Repairs:
    """Embedding files that one run makes again in place.

    Each run keeps its notes in a file of its own, which no other run touches: what it intends, before the first file
    is touched, and what came out. So no run takes another's intention for done, however their steps are mixed. Nothing
    is noted where there are no paths.
    """

    def __init__(self, storage: Storage, paths: Sequence[str]) -> None:
        self._storage = storage
        self._note = f"{_NOTES}/{current_clock().token(8)}.json"
        known = _original_hashes(_notes(storage))
        firsts = _hashes(storage, [path for path in paths if path not in known])
        self._original_hashes = {path: known.get(path) or firsts[path] for path in paths}
        if paths:
            self._write(dict.fromkeys(paths))

    @property
    def paths(self) -> set[str]:
        """The files."""
        return set(self._original_hashes)

    def __contains__(self, path: object) -> bool:
        return path in self._original_hashes

    def settle(self) -> None:
        """Records the hash of each repaired file, once all are written again.

        A file with the same content as before its repair is left out, unless another run recorded one of its repairs.
        """
        if not self._original_hashes:
            return
        others = _original_hashes({path: note for path, note in _notes(self._storage).items() if path != self._note})
        now = _hashes(self._storage, list(self._original_hashes))
        self._write(
            {path: content for path, content in now.items() if content != self._original_hashes[path] or path in others}
        )

    def _write(self, contents: Mapping[str, str | None]) -> None:
        note = {path: [self._original_hashes[path], content] for path, content in contents.items()}
        if note:
            self._storage.write(self._note, _encoded(note))
        else:
            self._storage.remove([self._note])


def is_repair_note(path: str) -> bool:
    """Whether a file of the output holds notes of repairs."""
    return path.startswith(f"{_NOTES}/")


def repairs(storage: Storage) -> dict[str, str]:
    """Content hashes of the embedding files that were made again in place and came out different, by path.

    Writes nothing. What a run noted as done is believed; a file that a run is at, or was at when it was killed, and one
    that runs disagree about is read.
    """
    seen: dict[str, set[tuple[str, str | None]]] = {}
    for note in _notes(storage).values():
        for path, entry in note.items():
            seen.setdefault(path, set()).add(entry)
    settled = {path: next(iter(entries)) for path, entries in seen.items() if len(entries) == 1}
    believed = {path: now for path, (_, now) in settled.items() if now is not None}
    contents = believed | _hashes(storage, [path for path in seen if path not in believed])
    return {path: now for path, now in contents.items() if {first for first, _ in seen[path]} != {now}}


def merge_repair_notes(storage: Storage) -> None:
    """Merges the notes of finished repairs into one file; only while no run writes here.

    What a killed run intended stays noted: a worker that it left behind may still write the file.
    """
    notes = {path: note for path, note in _notes(storage).items() if all(now is not None for _, now in note.values())}
    if len(notes) > 1:
        firsts = _original_hashes(notes)
        body = {path: [firsts[path], content] for path, content in repairs(storage).items() if path in firsts}
        if body:
            storage.write(f"{_NOTES}/{current_clock().token(8)}.json", _encoded(body))
        storage.remove(notes)


def _original_hashes(notes: Mapping[str, Mapping[str, tuple[str, str | None]]]) -> dict[str, str]:
    """What each noted file held before any repair, as the first of the notes has it."""
    return {path: first for note in reversed(list(notes.values())) for path, (first, _) in note.items()}


def _encoded(note: Mapping[str, Sequence[str | None]]) -> bytes:
    return json.dumps(note, indent=1, sort_keys=True).encode()


def _notes(storage: Storage) -> dict[str, dict[str, tuple[str, str | None]]]:
    """Repair records: {path of the record: {embedding file: (hash before, hash after or None)}}, sorted by path."""
    notes = {}
    for path in sorted(storage.walk(_NOTES)):
        if storage.is_temporary(path):
            continue
        with suppress(MissingFileError):
            listed = read_json(storage, path)
            notes[path] = {name: (first, now) for name, (first, now) in listed.items()}
    return notes


def _hashes(storage: Storage, paths: Sequence[str]) -> dict[str, str]:
    """SHA-256 of files by path; those that are gone are left out."""

    def content(path: str) -> str | None:
        try:
            return storage.sha256(path)
        except MissingFileError:
            return None

    with ThreadPoolExecutor(_READERS) as pool:
        return {path: found for path, found in zip(paths, pool.map(content, paths), strict=True) if found is not None}
