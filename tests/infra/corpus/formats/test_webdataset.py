import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from barycenter.fusion.errors import JobError
from tests.infra.corpus.helpers import opened, read, refusal


def tar(path: Path, members: list[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def samples(count: int) -> list[tuple[str, bytes]]:
    vector = io.BytesIO()
    np.save(vector, np.array([1, 2.5], np.float32))
    long = "x" * 120
    return [
        (name, content)
        for number in range(count)
        for name, content in (
            (f"d/{long}{number:03}.seg.jpg", b"S"),
            (f"d/{long}{number:03}.txt", f"caption {number}\n".encode()),
            (f"d/{long}{number:03}.json", json.dumps({"label": "ab"[number % 2], "n": number}).encode()),
            (f"d/{long}{number:03}.JPG", b"J" * (number * 300)),
            (f"d/{long}{number:03}.npy", vector.getvalue()),
        )
    ]


@pytest.mark.parametrize("rows", [1, 4, 4096])
def test_members_of_one_basename_are_a_row(tmp_path: Path, rows: int) -> None:
    corpus = opened(tar(tmp_path / "a.tar", samples(9)), key="__key__", rows=rows)
    assert corpus.columns == {
        "label": pa.string(),
        "n": pa.int64(),
        "__key__": pa.string(),
        "seg.jpg": pa.binary(),
        "txt": pa.string(),
        "json": pa.string(),
        "jpg": pa.binary(),
        "npy": pa.list_(pa.float32()),
        "image": pa.binary(),
        "text": pa.string(),
    }
    values = read(corpus, ["image", "text", "label", "n", "npy", "seg.jpg"], rows)
    assert values["text"] == [f"caption {number}\n" for number in range(9)]
    assert values["image"] == [b"J" * (number * 300) for number in range(9)]
    assert values["n"] == list(range(9))
    assert values["npy"] == [[1.0, 2.5]] * 9
    assert values["seg.jpg"] == [b"S"] * 9
    assert values[""][3] == f"d/{'x' * 120}003"
    assert set(values["__bad__"]) == {None}


def test_bad_members_are_reported_and_missing_ones_null(tmp_path: Path) -> None:
    members = [
        ("a.jpg", b"A"),
        ("a.json", b"{"),
        ("b.json", b'{"label": "x"}'),
        ("c.jpg", b"C"),
        ("c.npy", b"no array"),
        ("d.txt", b"\xff"),
        (".hidden.jpg", b"H"),
        ("README", b"r"),
    ]
    corpus = opened(tar(tmp_path / "a.tar", members), key="__key__")
    assert corpus.listing["members"] == {"passed_over": 2}
    values = read(corpus, ["image", "label", "npy", "text"])
    assert values[""] == ["a", "b", "c", "d"]
    assert values["image"] == [b"A", None, b"C", None]
    assert values["label"] == [None, "x", None, None]
    reasons = values["__bad__"]
    assert reasons[0].startswith("json: ")
    assert reasons[1] is None
    assert reasons[2].startswith("c.npy: ")
    assert reasons[3].startswith("d.txt: 'utf-8' codec can't decode")


def test_a_basename_that_comes_twice_is_two_rows_of_one_key(tmp_path: Path) -> None:
    members = [("a.jpg", b"1"), ("a.jpg", b"2"), ("b.jpg", b"3"), ("a.jpg", b"4")]
    values = read(opened(tar(tmp_path / "a.tar", members), key="__key__", rows=2), ["image"], 2)
    assert values[""] == ["a", "a", "b", "a"]
    assert values["image"] == [b"1", b"2", b"3", b"4"]


def test_several_tars_in_the_order_of_their_names(tmp_path: Path) -> None:
    tar(tmp_path / "2.tar", [("a.txt", b"second")])
    tar(tmp_path / "1.tar", [("a.txt", b"first"), ("a.cls", b"5")])
    values = read(opened(tmp_path), ["text", "cls"])
    assert values["text"] == ["first", "second"]
    assert values["cls"] == ["5", None]
    assert values[""] == ["a", "a"]


def test_damaged_tars(tmp_path: Path) -> None:
    path = tar(tmp_path / "a.tar", samples(3))
    whole = path.read_bytes()
    path.write_bytes(whole[:4000])
    assert refusal(path) == "corpus.path: a.tar is not a whole tar file (unexpected end of data); write it again"
    at = whole.index(b"caption 1") // 512 * 512 + 512
    path.write_bytes(whole[:at] + b"garbage!" * 64 + whole[at + 512 :])
    assert refusal(path).startswith("corpus.path: a.tar is ")
    path.write_bytes(b"no tar" * 1000)
    assert refusal(path).startswith("corpus.path: a.tar is not a whole tar file (")


@pytest.mark.parametrize("rows", [1, 2, 100])
def test_members_in_any_order_are_rows_of_one_basename_each(tmp_path: Path, rows: int) -> None:
    members = [(f"{row}.png", b"x%d" % row) for row in range(5)]
    members += [(f"{row}.json", b'{"label": "l%d"}' % row) for row in (3, 1, 0, 4)]
    members += [(f"{row}.txt", b" t%d\n" % row) for row in (4, 0, 2, 9)] + [("2.png", b"again")]
    corpus = opened(tar(tmp_path / "a.tar", members), rows=rows)
    assert corpus.key_column == "__key__"
    values = read(corpus, ["text", "image", "label"], rows)
    assert values[""] == ["0", "1", "2", "3", "4", "9", "2"]
    assert values["text"] == [" t0\n", None, " t2\n", None, " t4\n", " t9\n", None]
    assert values["image"] == [b"x0", b"x1", b"x2", b"x3", b"x4", None, b"again"]
    assert values["label"] == ["l0", "l1", None, "l3", "l4", None, None]


def test_a_column_behind_a_dot_is_named(tmp_path: Path) -> None:
    corpus = opened(tar(tmp_path / "a.tar", [("s.v1/0.5.jpg", b"x"), ("s.v1/0.5.txt", b"t")]))
    with pytest.raises(JobError, match=r"did you mean '5.txt'\? .*first dot"):
        corpus.check_columns({"inputs.text.column": "txt"})


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_tars_one_behind_the_other_are_read_to_the_last(tmp_path: Path, rows: int) -> None:
    parts = [tar(tmp_path / f"{n}.tar", [(f"{n}{row}.txt", b"t") for row in range(4)]).read_bytes() for n in range(3)]
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole/all.tar").write_bytes(b"".join(parts))
    values = read(opened(tmp_path / "whole", rows=rows), ["text"], rows)
    assert values[""] == [f"{n}{row}" for n in range(3) for row in range(4)]


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f8', 'fortran_order': False, 'shape': (9895604649984,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (1099511627776, 9), }",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,), }",
        "{'descr': '<f8', 'fortran_order': False, 'shape': (2",
    ],
)
def test_an_array_that_claims_more_than_it_holds_is_a_bad_row(tmp_path: Path, header: str) -> None:
    data = b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + header.ljust(117).encode() + b"\n"
    values = read(opened(tar(tmp_path / "a.tar", [("0.npy", data), ("1.txt", b"t")])), ["npy", "text"])
    assert values["npy"] == [None, None]
    assert values["__bad__"][0] is not None
    assert values["__bad__"][1] is None


@pytest.mark.parametrize("size", [-512, -5120, 1 << 62])
def test_a_member_that_claims_an_absurd_size_is_a_damaged_tar(tmp_path: Path, size: int) -> None:
    info = tarfile.TarInfo("0.txt")
    info.size = size
    (tmp_path / "a.tar").write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 1024)
    assert "a.tar " in refusal(tmp_path)
