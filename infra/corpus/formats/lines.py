"""JSON Lines, CSV and TSV: indexed by byte offset in one pass, read by seeking."""

import csv
import json
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus.base import Format, Parsed, Peek, Problems, Shard, UnreadableError
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.formats.records import Splitter, csv_splitter, records, spans, split_lines
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.corpus.types.rows import table_of
from barycenter.infra.corpus.types.values import types_of

csv.field_size_limit(1 << 30)

_CHUNK = 8 << 20
_LATER = 64
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
_BOM = b"\xef\xbb\xbf"


class JsonLines(Format):
    """One JSON object a line; .jsonl, .jsonl.gz, .jsonl.zst.

    A column's type comes from the first rows and some later ones: whole numbers, numbers, true/false, text, lists
    of these; objects and anything mixed are text. A later value that does not fit is null and recorded, the rest of its
    row counts. Compressed files can only be read from their beginning: give large corpora several files.
    """

    def peek(self, files: Files, entry: Entry, stride: int, sample: int) -> Peek:
        """Counts lines; the types come from the first ``sample`` and some of every 8 MB after them."""
        index = _Index(stride, sample)
        index.scan(_stream(files, entry.uri), split_lines)
        parsed = [_json_row(record) for record in index.first]
        if parsed and parsed[0][1] is not None and index.first[0].lstrip().startswith(b"["):
            raise UnreadableError("is a JSON array; a .jsonl file holds one JSON object on each line")
        good = [row for row, problem in parsed if problem is None]
        later = [row for row, problem in map(_json_row, index.later) if problem is None]
        if parsed and not good:
            raise UnreadableError(f"row 1 is not a JSON object ({parsed[0][1]}); a .jsonl file holds one on each line")
        return Peek(index.rows, types_of(good + later), index.marks())

    def read(
        self, files: Files, shard: Shard, columns: Mapping[str, pa.DataType], key: str | None = None
    ) -> tuple[pa.Table, Problems]:
        """Reads the shard's bytes and parses its lines."""
        lines = records(_blob(files, shard), split_lines)[: shard.rows]
        return table_of([_json_row(line) for line in lines], columns, key)


class Delimited(Format):
    """CSV or TSV with a header row; quoted fields may hold delimiters, doubled quotes and line ends.

    Every column is text, numbers too: a file says nothing about what its columns mean, and "007" is not 7. A row with
    more or fewer fields than the header is a recorded bad row.
    """

    def __init__(self, delimiter: str) -> None:
        self.delimiter = delimiter

    def peek(self, files: Files, entry: Entry, stride: int, sample: int) -> Peek:
        """Counts rows below the header."""
        index = _Index(stride, sample, header=True)
        index.scan(_stream(files, entry.uri), csv_splitter(self.delimiter))
        if not index.first:
            return Peek(0, {}, index.marks())
        return Peek(index.rows, dict.fromkeys(self._header(index.first[0]), pa.string()), index.marks())

    def read(
        self, files: Files, shard: Shard, columns: Mapping[str, pa.DataType], key: str | None = None
    ) -> tuple[pa.Table, Problems]:
        """Reads the shard's bytes and parses its rows."""
        split = csv_splitter(self.delimiter)
        header = self._header(_first_record(files, shard.uri, shard.stamp, self.delimiter))
        rows = records(_blob(files, shard), split)[: shard.rows]
        return table_of([self._row(record, header) for record in rows], columns, key)

    def _header(self, record: bytes) -> list[str]:
        if b"\r" in record.rstrip(b"\r") and b'"' not in record:
            raise UnreadableError("has lines that end in CR alone; save it with LF or CRLF line ends")
        names, problem = self._fields(record)
        if problem is not None:
            raise UnreadableError(f"the header row cannot be read ({problem})")
        names = [name.strip() for name in names]
        if b"\0" in record:
            raise UnreadableError("holds zero bytes as UTF-16 text does; save it as UTF-8")
        for name in names:
            if names.count(name) > 1:
                raise UnreadableError(f"the header names the column {name!r} twice; rename one")
        return names

    def _row(self, record: bytes, header: Sequence[str]) -> Parsed:
        fields, problem = self._fields(record)
        if problem is None and len(fields) != len(header):
            problem = f"{len(fields)} fields where the header has {len(header)}"
        return ({}, problem) if problem is not None else (dict(zip(header, fields, strict=True)), None)

    def _fields(self, record: bytes) -> tuple[list[str], str | None]:
        try:
            text = record.decode()
        except UnicodeDecodeError as error:
            return [], f"not UTF-8 text (byte {error.start})"
        try:
            return next(csv.reader([text], delimiter=self.delimiter, strict=True)), None
        except csv.Error as error:
            return [], _csv_problem(str(error))


def _csv_problem(error: str) -> str:
    if "unexpected end of data" in error:
        return "a quoted field that does not end"
    if "new-line character" in error:
        return "a carriage return outside quotes; save the file with LF or CRLF line ends"
    if "expected after" in error:
        return "text after the quote that ends a field; a quote within a field is written twice"
    return f"not a row ({error})"


class _Index:
    """Counts records and notes the byte offset of every ``stride``-th, the first ``keep`` and some later records."""

    def __init__(self, stride: int, keep: int, header: bool = False) -> None:
        self.rows = 0
        self.first: list[bytes] = []
        self.later: list[bytes] = []
        self._stride, self._keep, self._header = stride, keep, header
        self._marks: list[np.ndarray[Any, np.dtype[np.int64]]] = []
        self._end = 0

    def scan(self, chunks: Iterator[bytes], split: Splitter) -> None:
        for offset, buffer, begins, ends in spans(_without_bom(chunks), split):
            missing = self._keep - len(self.first)
            self.first += [buffer[a:b] for a, b in zip(begins[:missing].tolist(), ends[:missing].tolist(), strict=True)]
            if len(begins) > missing:
                chosen = np.unique(np.linspace(max(0, missing), len(begins) - 1, _LATER).astype(np.int64))
                self.later += [buffer[begins[row] : ends[row]] for row in chosen]
            if self._header and len(begins):
                begins, self._header = begins[1:], False
            self._marks.append(begins[(-self.rows) % self._stride :: self._stride] + offset)
            self.rows += len(begins)
            self._end = offset + len(buffer)

    def marks(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        return np.concatenate([*self._marks, np.array([self._end], np.int64)])


def _without_bom(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """The chunks with a byte order mark blanked, so that offsets stay true; other encodings are refused."""
    first = next(chunks, b"")
    if first.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UnreadableError("is UTF-16 text; save it as UTF-8")
    yield b"\r\n\n" + first[3:] if first.startswith(_BOM) else first
    yield from chunks


@lru_cache(maxsize=64)
def _first_record(files: Files, uri: str, stamp: str, delimiter: str) -> bytes:
    del stamp
    for _, buffer, begins, ends in spans(_without_bom(_stream(files, uri, 1 << 16)), csv_splitter(delimiter)):
        if len(begins):
            return buffer[begins[0] : ends[0]]
    raise RunError("the header row is gone: the file changed while the run was reading it")


def _real(text: str) -> float | str:
    """A number; one beyond the range of floats stays as it is written."""
    number = float(text)
    return text if math.isinf(number) else number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; one that names a value twice would lose the first.

    Raises:
        ValueError: A name is given twice.
    """
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the name {twice!r} stands twice in one object")
    return values


def _json_row(line: bytes) -> Parsed:
    try:
        row = json.loads(line.decode(), parse_float=_real, object_pairs_hook=_object)
    except UnicodeDecodeError as error:
        return {}, f"not UTF-8 text (byte {error.start})"
    except (ValueError, RecursionError) as error:
        return {}, f"not JSON ({error})"
    return (row, None) if isinstance(row, dict) else ({}, f"not a JSON object but {str(line[:30], 'utf-8', 'replace')}")


def _compression(uri: str) -> str | None:
    return next((name for suffix, name in _COMPRESSIONS.items() if uri.lower().endswith(suffix)), None)


def _stream(files: Files, uri: str, size: int = _CHUNK) -> Iterator[bytes]:
    compression = _compression(uri)
    if compression is None:
        yield from files.chunks(uri, size)
        return
    with _decompressed(files, uri) as stream:
        while chunk := _read_or_raise(lambda: stream.read(size)):
            yield chunk


def _decompressed(files: Files, uri: str) -> pa.NativeFile:
    return pa.CompressedInputStream(pa.PythonFile(files.open(uri), mode="r"), _compression(uri))


def _read_or_raise(read: Callable[[], bytes]) -> bytes:
    try:
        return read()
    except OSError as error:
        raise UnreadableError(f"cannot be decompressed ({error})") from error


class _Cursor(threading.local):
    """The compressed stream last read in this thread, so that the next shard goes on where it stopped."""

    key: tuple[str, str] | None = None
    position: int = 0
    stream: Any = None


_cursor = _Cursor()


def _blob(files: Files, shard: Shard) -> bytes:
    if _compression(shard.uri) is None:
        return files.read(shard.uri, shard.offset, shard.length)
    if _cursor.key != (shard.uri, shard.stamp) or _cursor.position > shard.offset:
        if _cursor.stream is not None:
            _cursor.stream.close()
        _cursor.stream, _cursor.position = _decompressed(files, shard.uri), 0
        _cursor.key = (shard.uri, shard.stamp)
    stream = _cursor.stream
    try:
        while _cursor.position < shard.offset:
            skipped = stream.read(min(_CHUNK, shard.offset - _cursor.position))
            if not skipped:
                return b""
            _cursor.position += len(skipped)
        blob: bytes = stream.read(shard.length)
    except OSError as error:
        _cursor.key = None
        raise RunError(f"{shard.uri}: cannot be decompressed ({error})") from error
    _cursor.position += len(blob)
    return blob
