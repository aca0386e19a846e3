"""WebDataset tars: one row for the members of one basename; indexed once, then read by byte range."""

import io
import json
import math
import re
import sys
import tarfile
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from barycenter.infra.corpus.base import Format, Parsed, Peek, Problems, Shard, UnreadableError
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.formats.folder import PICTURE_SUFFIXES
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.corpus.types.rows import table_of
from barycenter.infra.corpus.types.values import types_of

_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_TEXTS = ("txt", "text", "caption", "cls", "json", "id", "url")
_CAPTIONS = ("txt", "text", "caption")
_TOKENS = ("cls", "id", "url")
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_BLOCK = 512
_CHUNK = 1 << 20
_PEEKED = 500


_Named = tuple[str, str, tarfile.TarInfo, Callable[[], bytes]]
"""Key, extension, header and content of a member."""


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

    A name is cut at its first dot, as webdataset does it: ``a/000.5.jpg`` has the key ``a/000`` and the extension
    ``5.jpg``. Texts are as they are written; of cls, id and url the space around them is left out.

    An extension that comes twice under one basename begins a new row of the same ``__key__``. A member that a row
    lacks is null. Members of one basename that do not follow each other are one row as well; a shard of such a tar
    has no byte range of its own: its headers are read again with every shard.
    """

    default_key = "__key__"

    def peek(self, files: Files, entry: Entry, stride: int, sample: int) -> Peek:
        """Reads every member's header, and the .json members of the first rows."""

        def wanted(extension: str, row: int) -> bool:
            return extension == "json" and row < min(sample, _PEEKED)

        nameless: list[str] = []
        index = _Index(stride)
        with files.open(entry.uri) as stream:
            for found in _samples(_named(stream, nameless), wanted):
                index.add(found)
        if index.scattered:
            index = _Index(stride)
            with files.open(entry.uri) as stream:
                for found in _gathered(_named(stream), wanted):
                    index.add(replace(found, begin=0, end=0))
        return Peek(index.rows, index.columns(), index.offsets(), passed_over=len(nameless))

    def read(
        self, files: Files, shard: Shard, columns: Mapping[str, pa.DataType], key: str | None = None
    ) -> tuple[pa.Table, Problems]:
        """Reads the shard's range of the tar in one request."""
        if shard.length:
            blob = files.read(shard.uri, shard.offset, shard.length)
            samples = list(_samples(_named(io.BytesIO(blob)), lambda *_: True))[: shard.rows]
        else:
            with files.open(shard.uri) as stream:
                samples = _gathered(_named(stream), lambda _, row: shard.start <= row < shard.stop)[
                    shard.start : shard.stop
                ]
        return table_of([_row(sample, {*columns, key}) for sample in samples], columns, key)


class _Index:
    """What the headers of a tar say: its rows, where each shard begins, its columns.

    Attributes:
        rows: Number of rows.
        scattered: Whether members of one row stood apart from each other.
    """

    def __init__(self, stride: int) -> None:
        self.rows = 0
        self.scattered = False
        self._stride = stride
        self._marks: list[int] = []
        self._end = 0
        self._types: dict[str, pa.DataType] = {"__key__": pa.string()}
        self._fields: list[dict[str, Any]] = []
        self._extensions: dict[str, tuple[str, ...]] = {}

    def add(self, found: _Sample) -> None:
        extensions = tuple(map(sys.intern, found.members))
        self.scattered |= extensions[0] not in self._extensions.get(found.key, extensions)
        self._extensions[found.key] = extensions
        if self.rows % self._stride == 0:
            self._marks.append(found.begin)
        self._types.update((extension, _type(extension)) for extension in extensions)
        if content := found.members.get("json"):
            self._fields.append(_fields(content)[0])
        self.rows, self._end = self.rows + 1, found.end

    def offsets(self) -> NDArray[np.int64]:
        return np.array([*self._marks, self._end], np.int64)

    def columns(self) -> dict[str, pa.DataType]:
        types = dict(self._types)
        if any(f".{extension}" in PICTURE_SUFFIXES for extension in types):
            types["image"] = pa.binary()
        types = {**types_of(self._fields), **types}
        if any(extension in types for extension in _CAPTIONS):
            types["text"] = pa.string()
        return types


def _samples(named: Iterable[_Named], wanted: Callable[[str, int], bool]) -> Iterator[_Sample]:
    """Groups consecutive members; content is read where ``wanted(extension, row)``, else left empty."""
    current: _Sample | None = None
    row = 0
    for key, extension, member, read in named:
        if current is None or current.key != key or extension in current.members:
            if current is not None:
                yield current
                row += 1
            current = _Sample(key, member.offset, _end(member))
        current.members[extension] = read() if wanted(extension, row) else b""
        current.end = _end(member)
    if current is not None:
        yield current


def _gathered(named: Iterable[_Named], wanted: Callable[[str, int], bool]) -> list[_Sample]:
    """Groups members wherever they stand, in the order of the first of each row; else as ``_samples``."""
    samples: list[_Sample] = []
    latest: dict[str, int] = {}
    for key, extension, member, read in named:
        row = latest.get(key)
        if row is None or extension in samples[row].members:
            row = latest[key] = len(samples)
            samples.append(_Sample(key, member.offset, _end(member)))
        samples[row].members[extension] = read() if wanted(extension, row) else b""
    return samples


def _named(stream: BinaryIO, nameless: list[str] | None = None) -> Iterator[_Named]:
    """The files whose names have a key and an extension; the names of the others go into ``nameless``."""
    for member, read in _members(stream):
        name = _NAME.fullmatch(member.name.removeprefix("./"))
        if name is not None and member.isreg():
            yield name[1], name[2].lower(), member, read
        elif nameless is not None and not member.isdir():
            nameless.append(member.name)


def _members(stream: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """The members with a call that reads each; tars that were put one behind the other are read to the last."""
    begin: int | None = 0
    while begin is not None:
        end = begin
        stream.seek(begin)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]
                    if _end(member) <= member.offset:
                        raise tarfile.HeaderError(f"{member.name} claims {member.size} bytes")
                    end = _end(member)
                    yield member, partial(_content_of, tar, member)
        except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
            if begin and end == begin:
                raise UnreadableError(f"is damaged: no member begins at byte {begin}") from error
            raise UnreadableError(f"is not a whole tar file ({error})") from error
        following = _next_block(stream, end)
        if following == end:
            raise UnreadableError(f"is damaged: no member begins at byte {end}")
        begin = following


def _content_of(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file is not None else b""


def _end(member: tarfile.TarInfo) -> int:
    size = member.size if member.isreg() else 0
    return member.offset_data + -(-size // _BLOCK) * _BLOCK


def _next_block(stream: BinaryIO, position: int) -> int | None:
    """Where the first block begins that is not zeros; None where there is none up to the end."""
    stream.seek(position)
    while chunk := stream.read(_CHUNK):
        if rest := chunk.lstrip(b"\0"):
            at = position + len(chunk) - len(rest)
            return at - at % _BLOCK
        position += len(chunk)
    return None


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
        except (ValueError, TypeError, OverflowError, MemoryError, EOFError) as error:
            said = (str(error).splitlines() or [type(error).__name__])[0]
            problem = problem or f"{sample.key}.{extension}: {said}"
    row["image"] = next((members[suffix[1:]] for suffix in PICTURE_SUFFIXES if suffix[1:] in members), row.get("image"))
    row["text"] = next((row[name] for name in _CAPTIONS if row.get(name) is not None), None)
    return row, problem


def _content(extension: str, content: bytes) -> object:
    if extension == "npy":
        return _vector(content)
    if extension not in _TEXTS:
        return content
    text = content.decode("utf-8-sig")
    return text.strip() if extension in _TOKENS else text


def _vector(content: bytes) -> list[float]:
    """One vector of a .npy member, whose header may claim no more than the member holds."""
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the .npy format")
    try:
        shape, _, dtype = _HEADERS[version](stream)
    except Exception as error:  # noqa: BLE001 - numpy evaluates the header as Python: anything may come up
        raise ValueError(f"its header cannot be read ({type(error).__name__})") from None
    claimed, held = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if claimed > held:
        raise ValueError(f"its header claims {claimed:,} bytes of numbers, it holds {held:,}")
    if len(shape) != 1:
        raise ValueError(f"an array of shape {shape}, not one vector")
    array: NDArray[np.float64] = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float64)
    return cast(list[float], array.tolist())


def _fields(content: bytes) -> tuple[dict[str, Any], str | None]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        return {}, f"json: {error}"
    return (value, None) if isinstance(value, dict) else ({}, "json: not an object")
