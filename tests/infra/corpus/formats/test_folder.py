import os
from pathlib import Path

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus import Pictures
from tests.infra.corpus.helpers import jsonl, opened, read


@pytest.fixture
def animals(tmp_path: Path) -> Path:
    for name in ("cats/b.png", "cats/a.jpg", "dogs/c.PNG", "top.webp"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(name.encode())
    (tmp_path / "cats/a.txt").write_text(" a cat\n")
    (tmp_path / "dogs/c.txt").write_bytes(b"\xff")
    (tmp_path / "NOTES.md").touch()
    return tmp_path


def test_every_picture_is_a_row(animals: Path) -> None:
    values = read(opened(animals, rows=1), ["file_name", "image", "label", "text"], 1)
    assert values["file_name"] == values[""] == ["top.webp", "cats/a.jpg", "cats/b.png", "dogs/c.PNG"]
    assert values["label"] == [None, "cats", "cats", "dogs"]
    assert values["text"] == [None, "a cat", None, None]
    assert values["__bad__"] == [None, None, None, "c.txt: not UTF-8 text (byte 0)"]
    pictures = Pictures(str(animals))
    assert [pictures.find(value).read() for value in values["image"]] == [key.encode() for key in values[""]]


def test_a_changed_picture_changes_its_own_shard(animals: Path) -> None:
    before = opened(animals, rows=1).shards(1)
    os.utime(animals / "cats/b.png", ns=(0, 1))
    corpus = opened(animals, rows=1)
    after = corpus.shards(1)
    assert [old.id == new.id for old, new in zip(before, after, strict=True)] == [True, True, False, True]
    with pytest.raises(RunError, match="has changed since this run was planned"):
        corpus.read(before[2], ["image"])


def test_the_layout_of_hugging_face_imagefolder(tmp_path: Path) -> None:
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "x.png").write_bytes(split.encode())
        (tmp_path / split / "metadata.jsonl").write_text(jsonl([{"file_name": "x.png", "text": split}]))
        (tmp_path / split / "other.csv").write_text("a\n1\n")
    corpus = opened(tmp_path)
    assert [source.relative for source in corpus.sources] == ["test/metadata.jsonl", "train/metadata.jsonl"]
    pictures = Pictures(str(tmp_path))
    for shard, split in zip(corpus.shards(10), ("test", "train"), strict=True):
        value = corpus.read(shard, ["image"]).column("image")[0].as_py()
        assert pictures.find(value, shard.folder).read() == split.encode()


def test_a_table_beside_its_pictures_is_a_table(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/x.png").write_bytes(b"x")
    (tmp_path / "metadata.csv").write_text("id,image\n1,x.png\n")
    assert read(opened(tmp_path), ["image"])["image"] == ["x.png"]


def test_pictures_in_memory_of_a_remote_store() -> None:
    import fsspec

    store = fsspec.filesystem("memory")
    for name in ("/pets/cats/a.png", "/pets/cats/a.txt", "/pets/b.png"):
        store.pipe_file(name, name.encode())
    values = read(opened("memory://pets"), ["image", "text", "label"])
    assert values[""] == ["b.png", "cats/a.png"]
    assert values["text"] == [None, "/pets/cats/a.txt"]
    assert Pictures("memory://pets").find(values["image"][1]).read() == b"/pets/cats/a.png"
    assert Pictures("memory://pets").find("a.png", "cats").read() == b"/pets/cats/a.png"
    store.rm("/pets", recursive=True)
