import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest

from barycenter.fusion.errors import JobError, RunError
from tests.infra.corpus.helpers import jsonl, opened, read, refusal

ROWS = [{"id": f"r{number}", "text": f"Zeile {number} äöü\n\u2028", "n": number} for number in range(23)]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("rows", [1, 5, 23, 4096])
def test_jsonl_is_read_shard_by_shard(tmp_path: Path, suffix: str, rows: int) -> None:
    data = jsonl(ROWS).encode()
    packed = {"": data, ".gz": gzip.compress(data), ".zst": pa.compress(data, "zstd", asbytes=True)}[suffix]
    path = tmp_path / f"rows.jsonl{suffix}"
    path.write_bytes(packed)
    corpus = opened(path, key="id", rows=rows)
    assert corpus.columns == {"id": pa.string(), "text": pa.string(), "n": pa.int64()}
    values = read(corpus, ["text", "n"], rows)
    assert values["n"] == list(range(23))
    assert values["text"] == [row["text"] for row in ROWS]
    assert values[""] == [row["id"] for row in ROWS]
    assert set(values["__bad__"]) == {None}


def test_compressed_shards_may_be_read_in_any_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl(ROWS).encode()))
    corpus = opened(path, rows=5)
    for index in (3, 1, 2, 4, 0, 0):
        shard = corpus.shards(5)[index]
        assert corpus.read(shard, ["n"]).column("n").to_pylist() == list(range(shard.start, shard.stop))


def test_the_beginning_of_a_shard_may_be_read_alone(tmp_path: Path) -> None:
    from dataclasses import replace

    (tmp_path / "rows.jsonl").write_text(jsonl(ROWS))
    corpus = opened(tmp_path / "rows.jsonl")
    shard = replace(corpus.shards(4096)[0], stop=3)
    assert corpus.read(shard, ["n"]).column("n").to_pylist() == [0, 1, 2]


def test_unreadable_lines_are_rows_of_nulls_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    bad = [b'{"id": "b"', b"[1]", b'{"id": "\xff"}', b"   ", b"[" * 100_000]
    path.write_bytes(b"\n".join([b'{"id": "a", "x": 1}', *bad, b"", b"\r", b'{"id": "z", "x": "one"}']))
    corpus = opened(path, key="id", rows=2)
    values = read(corpus, ["x"], 2)
    assert values[""] == ["a", *(f"rows.jsonl#{row}" for row in range(1, 6)), "z"]
    assert values["__bad__"][:4] == [
        None,
        "not JSON (Expecting ',' delimiter: line 1 column 11 (char 10))",
        "not a JSON object but [1]",
        "not UTF-8 text (byte 8)",
    ]
    assert values["x"] == ["1", None, None, None, None, None, "one"]


def test_no_digit_of_a_number_in_a_list_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"id": "a", "n": [9007199254740993]}\n{"id": "b", "n": [0.5]}\n')
    values = read(opened(tmp_path / "a.jsonl", key="id"), ["n"])
    assert values["n"] == ["[9007199254740993]", "[0.5]"]
    assert set(values["__misfits__"]) == {None}


def test_a_name_that_stands_twice_in_an_object_costs_its_row(tmp_path: Path) -> None:
    lines = ['{"id": "a", "n": 1}', '{"id": "b", "n": 1, "n": 2}', '{"id": "c", "o": {"x": 1, "x": 2}}']
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    values = read(opened(tmp_path / "a.jsonl", key="id"), ["n", "o"])
    assert values["n"] == [1, None, None]
    assert [problem and problem[:40] for problem in values["__bad__"]] == [
        None, "not JSON (duplicate name 'n' in one obje", "not JSON (duplicate name 'x' in one obje",
    ]  # fmt: skip


def test_values_that_come_late_and_do_not_fit_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(jsonl([{"n": number} for number in range(12_000)] + [{"n": "many"}, {"n": 1.5}, {}]))
    values = read(opened(path), ["n"])
    assert values["n"][-4:] == [11_999, None, None, None]
    assert set(values["__bad__"]) == {None}
    assert values["__misfits__"][-4:] == [
        None,
        json.dumps({"n": "'many' is not a whole number"}),
        json.dumps({"n": "'1.5' is not a whole number"}),
        None,
    ]


def test_fractions_after_ten_thousand_whole_numbers_make_the_column_real(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(jsonl([{"n": 1}] * 10_000 + [{"n": 2.5}] * 60))
    values = read(opened(path), ["n"])
    assert values["n"] == [1.0] * 10_000 + [2.5] * 60
    assert set(values["__misfits__"]) == {None}


def test_no_digit_of_a_number_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"n": 9007199254740993, "x": 1E400}\n{"n": 2.5, "x": 1}\n')
    values = read(opened(path, key="n"), ["n", "x"])
    assert values["n"] == ["9007199254740993", "2.5"]
    assert values["x"] == ["1E400", "1"]
    assert values[""] == ["9007199254740993", "2.5"]


@pytest.mark.parametrize(
    "value",
    [
        [{"bbox": [1, 2.5], "id": 3}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": None}],
        [1, [2]],
        [[[[1]]]],
        [1, {"a": None}],
    ],
)
def test_what_no_column_type_holds_is_json_text(tmp_path: Path, value: object) -> None:
    (tmp_path / "a.jsonl").write_text(jsonl([{"v": value}, {"v": []}, {"v": None}]))
    values = read(opened(tmp_path / "a.jsonl"), ["v"])
    assert set(values["__misfits__"]) == {None}
    assert [json.loads(text) for text in values["v"][:2]] == [value, []]


def test_a_stray_quote_takes_no_other_row_with_it(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,text\n1,"5" screen,"x\n2,"a"\n3,"b" c\n4,"said\n5,"d"\n6,e\n')
    values = read(opened(tmp_path / "a.csv", key="id", rows=2), ["text"], 2)
    assert [text for text in values["text"] if text is not None] == ["a", "d", "e"]
    assert len([problem for problem in values["__bad__"] if problem]) == 3
    assert len(values["text"]) == 6


def test_a_byte_order_mark_is_no_part_of_the_first_row(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + jsonl(ROWS).encode())
    assert read(opened(tmp_path / "a.jsonl", key="id"), ["n"])[""][0] == "r0"
    (tmp_path / "a.csv").write_bytes(b"\xef\xbb\xbfid,n\n1,2\n")
    assert list(opened(tmp_path / "a.csv").columns) == ["id", "n"]


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.tsv", "\t"), ("a.csv.gz", ",")])
def test_delimited_rows_keep_quoted_line_ends(tmp_path: Path, name: str, delimiter: str) -> None:
    text = 'id,text\n1,plain\n2,"two\nlines, ""quoted"""\n\n3,\r\n4,"last"'.replace(",", delimiter)
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    corpus = opened(tmp_path / name, key="id", rows=2)
    values = read(corpus, ["text"], 2)
    assert values[""] == ["1", "2", "3", "4"]
    assert values["text"] == ["plain", f'two\nlines{delimiter} "quoted"', "", "last"]
    assert corpus.columns == {"id": pa.string(), "text": pa.string()}


def test_ragged_and_undecodable_rows_are_recorded(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'id,text\n1,a\n2\n3,b,c\n4,\xff\n5,e\n6,"open\n')
    values = read(opened(path, key="id", rows=3), ["text"], 3)
    assert values["text"] == ["a", None, None, None, "e", None]
    assert values["__bad__"] == [
        None,
        "1 fields where the header has 2",
        "3 fields where the header has 2",
        "not UTF-8 text (byte 2)",
        None,
        "a quoted field that does not end",
    ]
    assert values[""][1] == "a.csv#1"


def test_files_with_other_columns_give_nulls(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("id,x\n1,2\n")
    (tmp_path / "b.csv").write_text("y,id\n3,4\n")
    values = read(opened(tmp_path / "*.csv", key="id"), ["x", "y"])
    assert (values[""], values["x"], values["y"]) == (["1", "4"], ["2", None], [None, "3"])


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("a.csv", b"id,x,id\n1,2,3\n", "a.csv has a header with two columns 'id'; rename one"),
        (
            "a.csv",
            b"id,\xff\n1,2\n",
            "a.csv has a header row that cannot be read (not UTF-8 text (byte 3)); save it as UTF-8 with whole quotes",
        ),
        ("a.csv", b"\xff\xfei\0d\0", "a.csv is UTF-16 text; save it as UTF-8"),
        ("a.csv", b"id,text\r1,a\r", "a.csv has lines that end in CR alone; save it with LF or CRLF line ends"),
        (
            "a.jsonl",
            b'[\n{"id": 1},\n{"id": 2}\n]',
            "a.jsonl is a JSON array; a .jsonl file holds one JSON object on each line",
        ),
        (
            "a.jsonl",
            b"id,text\n1,a\n",
            "a.jsonl row 1 is not a JSON object (not JSON (Expecting value: line 1 column 1 (char 0))); "
            "a .jsonl file holds one on each line",
        ),
        ("a.jsonl.gz", gzip.compress(b'{"id": 1}\n' * 1000, mtime=0)[:-9], None),
        ("a.jsonl.gz", b"no gzip at all", None),
    ],
)
def test_files_that_are_not_what_their_name_says(tmp_path: Path, name: str, data: bytes, line: str | None) -> None:
    (tmp_path / name).write_bytes(data)
    message = refusal(tmp_path / name)
    assert message.startswith(f"corpus.path: {name} ")
    if line is not None:
        assert message == f"corpus.path: {line}"


def test_a_file_that_changes_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(jsonl(ROWS))
    corpus = opened(path)
    shard = corpus.shards(4096)[0]
    path.write_text(jsonl(ROWS[:5]))
    with pytest.raises(RunError, match=r"rows\.jsonl has changed since this run was planned; run the job again"):
        corpus.read(shard, ["n"])
    path.unlink()
    with pytest.raises(RunError, match=r"rows\.jsonl"):
        corpus.read(shard, ["n"])


@pytest.mark.parametrize(("ending", "mark"), [("csv", ";"), ("csv", "\t"), ("csv", "|"), ("tsv", ",")])
def test_another_mark_between_fields_is_named(tmp_path: Path, ending: str, mark: str) -> None:
    path = tmp_path / f"rows.{ending}"
    path.write_text(f"id{mark}text\n1{mark}one\n")
    with pytest.raises(JobError) as caught:
        opened(path).check_columns({"corpus.key": "id"})
    assert f"fields are separated by {mark!r}" in str(caught.value)


def test_utf_16_without_a_byte_order_mark_is_named(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes("id,text\n1,one\n".encode("utf-16-le"))
    assert "UTF-16" in refusal(tmp_path / "rows.csv")


def digests(path: Path, columns: list[str], key: str | None = "id") -> list[str | None]:
    """Of the shards of four rows, by a corpus of its own."""
    corpus = opened(path, key, 4)
    found = []
    for shard in corpus.shards(4):
        raw = corpus.raw_rows(shard)
        assert raw is not None
        found.append(corpus.rows_digest(shard, columns, raw))
    return found


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_shard_of_the_same_bytes_has_the_same_digest_wherever_it_stands(tmp_path: Path, ending: str) -> None:
    lines = [f"{n},text {n}\n" if ending == "csv" else jsonl([{"id": n, "text": f"text {n}"}]) for n in range(10)]
    top = ["id,text\n"] if ending == "csv" else []
    path, moved = tmp_path / f"a.{ending}", tmp_path / "other" / f"b.{ending}"
    moved.parent.mkdir()
    path.write_text("".join(top + lines[:8]))
    moved.write_text("".join(top + lines))
    before, after = digests(path, ["text"]), digests(moved, ["text"])
    assert after[:2] == before
    assert len(set(after)) == 3
    moved.write_text("".join(top + lines).replace("text 6", "text Y"))
    assert [new == old for new, old in zip(digests(moved, ["text"]), after, strict=True)] == [True, False, True]


def test_a_digest_of_a_shard_is_of_all_that_decides_its_rows(tmp_path: Path) -> None:
    rows = [{"id": n, "text": n, "other": str(n)} for n in range(4)]
    path = tmp_path / "year=1" / "a.jsonl"
    path.parent.mkdir()
    path.write_text(jsonl(rows))
    csv = tmp_path / "a.csv"
    csv.write_text("id,text\n1,2\n")
    turned = tmp_path / "b.csv"
    turned.write_text("text,id\n1,2\n")
    parts = [digests(path, ["text"]), digests(path, ["other"]), digests(path, ["text"], "other")]
    parts += [digests(csv, ["text"]), digests(turned, ["text"])]
    later = tmp_path / "year=2" / "a.jsonl"
    later.parent.mkdir()
    path.rename(later)
    parts.append(digests(later, ["text", "year"]))
    later.write_text(jsonl([*rows, {"id": 9, "text": "no number"}]))
    parts.append(digests(later, ["text"])[:1])
    assert len({part[0] for part in parts}) == len(parts) == 7
    assert digests(later, ["text"], None) == [None, None], "a row without a key is named by its file and number"


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_compressed_file_is_not_read_twice(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    data = jsonl([{"id": 1}]).encode()
    path.write_bytes(gzip.compress(data) if suffix == ".gz" else pa.compress(data, "zstd", asbytes=True))
    corpus = opened(path, "id")
    assert corpus.raw_rows(corpus.shards(4)[0]) is None


@pytest.mark.parametrize("number", ["1e999", "-1E+400", "9" * 310 + ".0", "1e308", "0.1e-400", "12e5"])
def test_a_number_is_read_whatever_its_size(tmp_path: Path, number: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"id": 1, "x": {number}}}\n')
    (value,) = read(opened(path, "id"), ["x"])["x"]
    assert value == (number if abs(float(number)) == float("inf") else float(number))
