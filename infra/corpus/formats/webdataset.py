"""WebDataset tars: the members of one key are a row; one pass indexes a tar, then shards are read by byte range."""

import io
import json
import math
import re
import sys
import tarfile
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, cast

import numpy as np
import pyarrow as pa
from numpy.lib import format as npy
from numpy.typing import NDArray

from barycenter.infra.corpus.base import Format, ParsedRecord, Problems, Shard, SourceIndex, Types, UnreadableError
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.formats.folder import PICTURE_SUFFIXES
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.corpus.types.rows import records_to_table
from barycenter.infra.corpus.types.values import infer_column_types
from barycenter.infra.storage.errors import first_line

_MEMBER_NAME = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_TEXT_EXTENSIONS = ("txt", "text", "caption", "cls", "json", "id", "url")
CAPTION_EXTENSIONS = ("txt", "text", "caption")
_STRIPPED_EXTENSIONS = ("cls", "id", "url")
_NPY_HEADER_READERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_CHUNK_BYTES = 1 << 20
_JSON_SAMPLE_ROWS = 500


_NamedMember = tuple[str, str, tarfile.TarInfo, Callable[[], bytes]]
"""Key, extension, header of a member, and a call that reads its content."""


@dataclass(slots=True)
class _Sample:
    """The members of one row: key, byte range in the tar, content by extension (``b""`` where it was not read)."""

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

    def index_source(self, files: Files, entry: Entry, rows_per_shard: int, sample_rows: int) -> SourceIndex:
        """Reads the header of every member, and the .json members of the first rows for their fields."""

        def wanted(extension: str, row: int) -> bool:
            return extension == "json" and row < min(sample_rows, _JSON_SAMPLE_ROWS)

        nameless: list[str] = []
        index = _TarIndexer(rows_per_shard)
        with files.open(entry.uri) as stream:
            for found in islice(_group_consecutive(_named_members(stream, nameless), wanted), self.most_rows):
                index.add(found)
        if index.scattered:
            index = _TarIndexer(rows_per_shard)
            with files.open(entry.uri) as stream:
                for found in _group_scattered(_named_members(stream), wanted)[: self.most_rows]:
                    index.add(replace(found, begin=0, end=0))
        return SourceIndex(index.rows, index.columns(), index.shard_offsets(), passed_over=len(nameless))

    def read(self, files: Files, shard: Shard, columns: Types, key: str | None = None) -> tuple[pa.Table, Problems]:
        """Reads the shard's byte range in one request; the whole tar where members of a row are scattered."""
        if shard.length:
            blob = files.read(shard.uri, shard.offset, shard.length)
            samples = list(_group_consecutive(_named_members(io.BytesIO(blob)), lambda *_: True))[: shard.rows]
        else:
            with files.open(shard.uri) as stream:
                samples = _group_scattered(_named_members(stream), lambda _, row: shard.start <= row < shard.stop)[
                    shard.start : shard.stop
                ]
        return records_to_table([_parse_sample(sample, {*columns, key}) for sample in samples], columns, key)


class _TarIndexer:
    """Collects rows, shard offsets and columns; ``scattered`` where members of one row do not follow each other."""

    def __init__(self, rows_per_shard: int) -> None:
        self.rows = 0
        self.scattered = False
        self._rows_per_shard = rows_per_shard
        self._offsets: list[int] = []
        self._end_offset = 0
        self._types: dict[str, pa.DataType] = {"__key__": pa.string()}
        self._parse_json_member: list[dict[str, Any]] = []
        self._extensions: dict[str, tuple[str, ...]] = {}

    def add(self, found: _Sample) -> None:
        extensions = tuple(map(sys.intern, found.members))
        self.scattered |= extensions[0] not in self._extensions.get(found.key, extensions)
        self._extensions[found.key] = extensions
        if self.rows % self._rows_per_shard == 0:
            self._offsets.append(found.begin)
        self._types.update((extension, _extension_type(extension)) for extension in extensions)
        if content := found.members.get("json"):
            self._parse_json_member.append(_parse_json_member(content)[0])
        self.rows, self._end_offset = self.rows + 1, found.end

    def shard_offsets(self) -> NDArray[np.int64]:
        """Returns the byte offset of each shard's first member and, last, of the end."""
        return np.array([*self._offsets, self._end_offset], np.int64)

    def columns(self) -> dict[str, pa.DataType]:
        """Returns the type of every column: extensions, JSON fields, ``image`` and ``text``."""
        types = dict(self._types)
        if any(f".{extension}" in PICTURE_SUFFIXES for extension in types):
            types["image"] = pa.binary()
        types = {**infer_column_types(self._parse_json_member), **types}
        if any(extension in types for extension in CAPTION_EXTENSIONS):
            types["text"] = pa.string()
        return types


def _group_consecutive(named: Iterable[_NamedMember], wanted: Callable[[str, int], bool]) -> Iterator[_Sample]:
    """Groups consecutive members; reads content where ``wanted(extension, row)``, else leaves it empty."""
    current: _Sample | None = None
    row = 0
    for key, extension, member, read in named:
        if current is None or current.key != key or extension in current.members:
            if current is not None:
                yield current
                row += 1
            current = _Sample(key, member.offset, _end_offset(member))
        current.members[extension] = read() if wanted(extension, row) else b""
        current.end = _end_offset(member)
    if current is not None:
        yield current


def _group_scattered(named: Iterable[_NamedMember], wanted: Callable[[str, int], bool]) -> list[_Sample]:
    """Groups members of one key that do not follow each other; rows are in the order of their first members."""
    samples: list[_Sample] = []
    latest: dict[str, int] = {}
    for key, extension, member, read in named:
        row = latest.get(key)
        if row is None or extension in samples[row].members:
            row = latest[key] = len(samples)
            samples.append(_Sample(key, member.offset, _end_offset(member)))
        samples[row].members[extension] = read() if wanted(extension, row) else b""
    return samples


def _named_members(stream: BinaryIO, nameless: list[str] | None = None) -> Iterator[_NamedMember]:
    """Yields the files whose names have a key and an extension; adds the names of the others to ``nameless``."""
    for member, read in _tar_members(stream):
        name = _MEMBER_NAME.fullmatch(member.name.removeprefix("./"))
        if name is not None and member.isreg():
            yield name[1], name[2].lower(), member, read
        elif nameless is not None and not member.isdir():
            nameless.append(member.name)


def _tar_members(stream: BinaryIO) -> Iterator[tuple[tarfile.TarInfo, Callable[[], bytes]]]:
    """Yields each member's header and a call that reads its content, also of several tars concatenated to one file."""
    begin: int | None = 0
    while begin is not None:
        end = begin
        stream.seek(begin)
        try:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members = []  # type: ignore[attr-defined]
                    if _end_offset(member) <= member.offset:
                        raise tarfile.HeaderError(f"{member.name} claims {member.size} bytes")
                    end = _end_offset(member)
                    yield member, partial(_read_member, tar, member)
        except (tarfile.TarError, ValueError, OverflowError, MemoryError) as error:
            if begin and end == begin:
                raise UnreadableError(f"is damaged: no member begins at byte {begin}; write it again") from error
            raise UnreadableError(f"is not a whole tar file ({error}); write it again") from error
        following = _next_nonzero_block(stream, end)
        if following == end:
            raise UnreadableError(f"is damaged: no member begins at byte {end}; write it again")
        begin = following


def _read_member(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    file = tar.extractfile(member)
    return file.read() if file is not None else b""


def _end_offset(member: tarfile.TarInfo) -> int:
    """Returns the offset after a member's content and its padding."""
    size = member.size if member.isreg() else 0
    return member.offset_data + -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _next_nonzero_block(stream: BinaryIO, position: int) -> int | None:
    """Returns the offset of the first block after ``position`` that is not all zeros; None at the end of the file."""
    stream.seek(position)
    while chunk := stream.read(_CHUNK_BYTES):
        if rest := chunk.lstrip(b"\0"):
            at = position + len(chunk) - len(rest)
            return at - at % tarfile.BLOCKSIZE
        position += len(chunk)
    return None


def _extension_type(extension: str) -> pa.DataType:
    if extension == "npy":
        return pa.list_(pa.float32())
    return pa.string() if extension in _TEXT_EXTENSIONS else pa.binary()


def _parse_sample(sample: _Sample, columns: Container[str | None]) -> ParsedRecord:
    """Decodes the members of a sample that ``columns`` need, to the values of a row and why it could not be read."""
    members = sample.members
    fields, problem = _parse_json_member(members["json"]) if "json" in members else ({}, None)
    row: dict[str, Any] = fields | {"__key__": sample.key}
    for extension, content in members.items():
        if extension not in columns and extension not in CAPTION_EXTENSIONS:
            continue
        try:
            row[extension] = _decode_member(extension, content)
        except (ValueError, TypeError, OverflowError, MemoryError, EOFError) as error:
            problem = problem or f"{sample.key}.{extension}: {first_line(error, None)}"
    row["image"] = next((members[suffix[1:]] for suffix in PICTURE_SUFFIXES if suffix[1:] in members), row.get("image"))
    row["text"] = next((row[name] for name in CAPTION_EXTENSIONS if row.get(name) is not None), None)
    return row, problem


def _decode_member(extension: str, content: bytes) -> object:
    """Decodes a member by its extension: a list for npy, text for the text extensions, else bytes."""
    if extension == "npy":
        return _decode_npy(content)
    if extension not in _TEXT_EXTENSIONS:
        return content
    text = content.decode("utf-8-sig")
    return text.strip() if extension in _STRIPPED_EXTENSIONS else text


def _decode_npy(content: bytes) -> list[float]:
    """Decodes the vector in a .npy member; raises ``ValueError`` for other shapes and wrong headers."""
    stream = io.BytesIO(content)
    version = npy.read_magic(stream)
    if version not in _NPY_HEADER_READERS:
        raise ValueError(f"version {version} of the .npy format")
    try:
        shape, _, dtype = _NPY_HEADER_READERS[version](stream)
    except Exception as error:  # noqa: BLE001 - numpy evaluates the header as Python: anything may come up
        raise ValueError(f"its header cannot be read ({type(error).__name__})") from None
    claimed, held = math.prod(shape) * dtype.itemsize, len(content) - stream.tell()
    if claimed > held:
        raise ValueError(f"its header claims {claimed:,} bytes of numbers, it holds {held:,}")
    if len(shape) != 1:
        raise ValueError(f"an array of shape {shape}, not one vector")
    array: NDArray[np.float64] = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float64)
    return cast(list[float], array.tolist())


def _parse_json_member(content: bytes) -> tuple[dict[str, Any], str | None]:
    """Parses a .json member to its fields and why it could not be read (None where it could)."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        return {}, f"json: {error}"
    return (value, None) if isinstance(value, dict) else ({}, "json: not an object")
