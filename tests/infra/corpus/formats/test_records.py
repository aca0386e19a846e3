import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barycenter.infra.corpus.formats import records
from barycenter.infra.corpus.formats.records import csv_splitter, cut_stream, split_lines

fields = st.text(alphabet='ab",\n ', max_size=6)
tables = st.lists(st.lists(fields, min_size=2, max_size=3), min_size=1, max_size=8)


def cut(data: bytes, size: int, split: records.Splitter) -> list[bytes]:
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    found = []
    for offset, buffer, begins, ends in cut_stream(chunks, split):
        assert data[offset : offset + len(buffer)] == buffer
        found += [buffer[begin:end] for begin, end in zip(begins, ends, strict=True)]
    return found


@given(tables, st.integers(1, 40), st.sampled_from(["\n", "\r\n"]))
def test_csv_rows_survive_any_chunking(table: list[list[str]], size: int, end: str) -> None:
    stream = io.StringIO()
    csv.writer(stream, lineterminator=end).writerows(table)
    data = stream.getvalue().encode()
    parsed = [row for record in cut(data, size, csv_splitter(",")) for row in csv.reader([record.decode()])]
    assert parsed == table


@given(st.text(alphabet='ab",\n\r', max_size=60), st.integers(1, 20))
def test_any_text_is_cut_alike_whole_or_in_chunks_or_from_any_record_on(text: str, size: int) -> None:
    data = text.encode()
    for split in (split_lines, csv_splitter(",")):
        whole = records.cut_bytes(data, split)
        assert cut(data, size, split) == whole
        begins, _, _ = split(data, True)
        for number, begin in enumerate(begins.tolist()):
            assert records.cut_bytes(data[begin:], split) == whole[number:]


@given(st.binary(max_size=60).map(lambda data: data.replace(b"\r", b"")), st.integers(1, 20))
def test_lines_are_those_that_are_not_blank(data: bytes, size: int) -> None:
    assert cut(data, size, split_lines) == [line for line in data.split(b"\n") if line]


def test_a_stray_quote_costs_its_own_line_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_MAX_QUOTED_BYTES", 20)
    data = b'a,b\n"stray,1\nx,2\ny,3\n' + b"z,4\n" * 20 + b'"q\nr",5\n'
    for size in (7, 1000):
        assert cut(data, size, csv_splitter(","))[:3] == [b"a,b", b'"stray,1', b"x,2"]
        assert cut(data, size, csv_splitter(","))[-1] == b'"q\nr",5'


def test_quotes_inside_an_unquoted_field_are_letters() -> None:
    assert cut(b'5" disk,1\n3" disk,2\n', 1000, csv_splitter(",")) == [b'5" disk,1', b'3" disk,2']


def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "MAX_RECORD_BYTES", 100)
    with pytest.raises(records.UnreadableError, match="has a line of more than"):
        cut(b"x" * 1000, 60, split_lines)
