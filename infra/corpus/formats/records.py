"""Cuts a stream of bytes into records: lines, or CSV rows whose quoted fields may hold line ends."""

import re
from collections.abc import Callable, Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from barycenter.infra.corpus.base import UnreadableError

RecordSpans = tuple[NDArray[np.int64], NDArray[np.int64], int]
"""Begin and end (without line end) of each record in a buffer, and the number of bytes that the records take."""

Splitter = Callable[[bytes, bool], RecordSpans]

MAX_RECORD_BYTES = 256 << 20
_MAX_QUOTED_BYTES = 16 << 20
_NEWLINE, _RETURN = 10, 13


def split_lines(buffer: bytes, final: bool) -> RecordSpans:
    r"""Finds the lines of a buffer that are not blank.

    Args:
        buffer: Bytes that begin with a record.
        final: Whether the last line is complete even without a line end.

    >>> begins, ends, used = split_lines(b"a\n\nbc\r\nd", final=False)
    >>> begins.tolist(), ends.tolist(), used
    ([0, 3], [1, 6], 7)
    """
    return _spans_between(buffer, np.flatnonzero(np.frombuffer(buffer, np.uint8) == _NEWLINE), final)


def csv_splitter(delimiter: str) -> Splitter:
    """Returns a splitter for CSV rows: a line end inside a quoted field ends no row.

    A quote opens a field only right after a delimiter or line end, as Python's csv module reads it. One that does not
    close within 16 MB, or whose closing quote has text after it, is taken for a stray quote: its row ends with its
    line, so that it takes no other row with it.
    """
    opening = re.escape(delimiter).encode()
    quoted = re.compile(rb"(?:(?<=[\n\r" + opening + rb'])|\A)"[^"]*+(?:""[^"]*+)*+("|\Z)')
    after = delimiter.encode() + b"\r\n"

    def split(buffer: bytes, final: bool) -> RecordSpans:
        newlines = np.flatnonzero(np.frombuffer(buffer, np.uint8) == _NEWLINE)
        if b'"' not in buffer:
            return _spans_between(buffer, newlines, final)
        fields = np.array(list(_multiline_fields(quoted, buffer, final, after)), dtype=np.int64).reshape(-1, 2)
        before = np.searchsorted(fields[:, 0], newlines) - 1
        inside = (before >= 0) & (newlines < fields[before, 1]) if len(fields) else np.zeros(len(newlines), dtype=bool)
        return _spans_between(buffer, newlines[~inside], final)

    return split


def _multiline_fields(quoted: re.Pattern[bytes], buffer: bytes, final: bool, after: bytes) -> Iterator[tuple[int, int]]:
    """Yields begin and end of the quoted fields that hold line ends; the last may continue beyond the buffer.

    The group of ``quoted`` is the closing quote, empty where the buffer ends before it; ``after`` may follow one.
    """
    position: int | None = 0
    while position is not None:
        fields, position = quoted.finditer(buffer, position), None
        for field in fields:
            begin, end = field.span()
            unclosed = not field.group(1)
            stray = end < len(buffer) and buffer[end] not in after
            if stray or end - begin > _MAX_QUOTED_BYTES or (unclosed and final):
                following = buffer.find(b"\n", begin) + 1
                position = following or None
                break
            if unclosed or buffer.find(b"\n", begin, end) >= 0:
                yield begin, end


def _spans_between(buffer: bytes, newlines: NDArray[np.intp], final: bool) -> RecordSpans:
    """Returns the spans of the records that the given newlines end; blank lines are left out."""
    ends = newlines.astype(np.int64)
    if final and len(buffer) > (ends[-1] + 1 if len(ends) else 0):
        ends = np.append(ends, len(buffer))
    if len(ends) == 0:
        return ends, ends, 0
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1] + 1])
    used = min(int(ends[-1]) + 1, len(buffer))
    bytes_ = np.frombuffer(buffer, np.uint8)
    length = ends - begins
    blank = (length == 0) | ((length == 1) & (bytes_[np.minimum(begins, len(buffer) - 1)] == _RETURN))
    return begins[~blank], ends[~blank], used


def cut_stream(
    chunks: Iterable[bytes], split: Splitter
) -> Iterator[tuple[int, bytes, NDArray[np.int64], NDArray[np.int64]]]:
    """Cuts a stream of chunks into records.

    Yields:
        (byte offset of the buffer in the stream, buffer, begins, ends) with begins and ends relative to the buffer.

    Raises:
        UnreadableError: A record is longer than 256 MB.
    """
    offset, rest = 0, b""
    for chunk in chunks:
        rest = rest + chunk if rest else chunk
        begins, ends, used = split(rest, False)
        yield offset, rest, begins, ends
        offset, rest = offset + used, rest[used:]
        if len(rest) > MAX_RECORD_BYTES:
            raise UnreadableError(
                f"has a line of more than {MAX_RECORD_BYTES >> 20} MB; put each row on a line of its own"
            )
    if rest:
        begins, ends, _ = split(rest, True)
        yield offset, rest, begins, ends


def cut_bytes(content: bytes, split: Splitter) -> list[bytes]:
    """Returns the records of bytes that end where a record ends."""
    begins, ends, _ = split(content, True)
    return [content[begin:end] for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)]
