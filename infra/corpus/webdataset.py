"""WebDataset tars: one row for the consecutive members of one basename; indexed once, then read by byte range."""

import io
import json
import re
import tarfile
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from infra.corpus.base import Format, Parsed, Peek, Problems, Shard, UnreadableError
from infra.corpus.files import Entry, Files
from infra.corpus.folder import PICTURE_SUFFIXES
from infra.corpus.rows import table_of
from infra.corpus.values import types_of

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_TEXTS = ("txt", "text", "caption", "cls", "json", "id", "url")
_CAPTIONS = ("txt", "text", "caption")
_BLOCK = 512
_PEEKED = 500


@dataclass(slots=True)
class _Sample:
    """The members of one row: byte range in the tar, and the members' content or None if it was not read."""

    key: str
    begin: int
    end: int
    members: dict[str, bytes] = field(default_factory=dict)


class WebDataset(Format):
    """Tars of samples.

    Columns: ``__key__``, one for each extension (text for txt, cls, json, ...; numbers for npy; else bytes), the
    fields of a .json member, ``image`` (the picture member) and ``text`` (the caption).

    An extension that comes twice under one basename begins a new row of the same ``__key__``. A member that a row
    lacks is null.
    """

    def peek(self, files: Files, entry: Entry, stride: int, sample: int) -> Peek:
        """Reads every member's header, and the .json members of the first rows."""
        rows, end = 0, 0
        marks: list[int] = []
        types: dict[str, pa.DataType] = {"__key__": pa.string()}
        fields: list[dict[str, Any]] = []
        with files.open(entry.uri) as stream:
            for found in _samples(stream, lambda extension, row: extension == "json" and row < min(sample, _PEEKED)):
                if rows % stride == 0:
                    marks.append(found.begin)
                types.update((extension, _type(extension)) for extension in found.members)
                if content := found.members.get("json"):
                    fields.append(_fields(content)[0])
                rows, end = rows + 1, found.end
        if any(f".{extension}" in PICTURE_SUFFIXES for extension in types):
            types["image"] = pa.binary()
        types = {**types_of(fields), **types}
        if any(extension in types for extension in _CAPTIONS):
            types["text"] = pa.string()
        return Peek(rows, types, np.array([*marks, end], np.int64))

    def read(
        self, files: Files, shard: Shard, columns: Mapping[str, pa.DataType], key: str | None = None
    ) -> tuple[pa.Table, Problems]:
        """Reads the shard's range of the tar in one request."""
        blob = files.read(shard.uri, shard.offset, shard.length)
        samples = list(_samples(io.BytesIO(blob), lambda *_: True))[: shard.rows]
        return table_of([_row(sample, {*columns, key}) for sample in samples], columns, key)


def _samples(stream: BinaryIO, wanted: Callable[[str, int], bool]) -> Iterator[_Sample]:
    """Groups consecutive members; content is read where ``wanted(extension, row)``, else left empty."""
    current: _Sample | None = None
    end, row = 0, 0
    try:
        with tarfile.open(fileobj=stream, mode="r:") as tar:
            while (member := tar.next()) is not None:
                tar.members = []  # type: ignore[attr-defined]
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK
                name = _NAME.fullmatch(member.name.removeprefix("./"))
                if name is None or not member.isreg():
                    continue
                key, extension = name[1], name[2].lower()
                if current is None or current.key != key or extension in current.members:
                    if current is not None:
                        yield current
                        row += 1
                    current = _Sample(key, member.offset, end)
                file = tar.extractfile(member) if wanted(extension, row) else None
                current.members[extension] = file.read() if file is not None else b""
                current.end = end
    except tarfile.TarError as error:
        raise UnreadableError(f"is not a whole tar file ({error})") from error
    stream.seek(end)
    if stream.read(_BLOCK).strip(b"\0"):
        raise UnreadableError(f"is damaged: no member begins at byte {end}")
    if current is not None:
        yield current


def _type(extension: str) -> pa.DataType:
    if extension == "npy":
        return pa.list_(pa.float32())
    return pa.string() if extension in _TEXTS else pa.binary()


def _row(sample: _Sample, columns: Container[str | None]) -> Parsed:
    members = sample.members
    fields, problem = _fields(members["json"]) if "json" in members else ({}, None)
    row: dict[str, Any] = fields | {"__key__": sample.key}
    for extension, content in members.items():
        if extension not in columns and extension not in _CAPTIONS:
            continue
        try:
            row[extension] = _content(extension, content)
        except ValueError as error:
            problem = problem or f"{sample.key}.{extension}: {str(error).splitlines()[0]}"
    row["image"] = next((members[suffix[1:]] for suffix in PICTURE_SUFFIXES if suffix[1:] in members), row.get("image"))
    row["text"] = next((row[name] for name in _CAPTIONS if row.get(name) is not None), None)
    return row, problem


def _content(extension: str, content: bytes) -> object:
    if extension == "npy":
        array = np.load(io.BytesIO(content), allow_pickle=False)
        if array.ndim != 1:
            raise ValueError(f"an array of shape {array.shape}, not one vector")
        return array.astype(np.float64).tolist()
    return content.decode("utf-8-sig").strip() if extension in _TEXTS else content


def _fields(content: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        return {}, f"json: {error}"
    return (value, None) if isinstance(value, dict) else ({}, "json: not an object")
