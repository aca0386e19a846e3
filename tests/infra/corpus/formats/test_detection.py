"""The same rows in every container, on disk, on S3 and in memory."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from barycenter.infra.corpus import Pictures
from tests.infra.corpus.helpers import opened, read, refusal

ROWS = 23


def png(row: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (row, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


TABLE = [
    {"id": f"r{row:03d}", "text": f'the "{row}"th,\nrow ü', "image": f"pictures/r{row:03d}.png", "label": f"c{row % 3}"}
    for row in range(ROWS)
]
EXPECTED = {
    "": [row["id"] for row in TABLE],
    "text": [row["text"] for row in TABLE],
    "label": [row["label"] for row in TABLE],
    "image": [png(row) for row in range(ROWS)],
}


def quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"'


def delimited(mark: str, names=("id", "text", "image", "label")) -> bytes:
    lines = [mark.join(names), *(mark.join(quoted(row[name]) for name in names) for row in TABLE)]
    return "\r\n".join(lines).encode()


def lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in TABLE).encode()


def parquet(rows, path_or_sink) -> None:
    pq.write_table(pa.Table.from_pylist(rows), path_or_sink, row_group_size=5)


def tar(folder: Path) -> None:
    with tarfile.open(folder / "rows.tar", "w") as file:
        for row, values in enumerate(TABLE):
            members = {
                "png": png(row),
                "txt": values["text"].encode(),
                "json": json.dumps({"label": values["label"]}).encode(),
            }
            for extension, content in members.items():
                info = tarfile.TarInfo(f"{values['id']}.{extension}")
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))


def pictures(folder: Path, by_label: bool = False) -> None:
    for row, values in enumerate(TABLE):
        place = folder / (values["label"] if by_label else "pictures")
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{values['id']}.png").write_bytes(png(row))


def write(folder: Path, form: str, by_label: bool = True) -> tuple[str, str]:
    """Writes the rows; path of the corpus in the folder, and its key column.

    Args:
        folder: A new one.
        form: One of ``FORMS``.
        by_label: Whether folders named by the label part rows that stand together, where the container has folders.
    """
    folder.mkdir(parents=True)
    if form in ("jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "tsv"):
        pictures(folder)
        content = lines() if form.startswith("jsonl") else delimited("\t" if form == "tsv" else ",")
        if form.endswith(".gz"):
            content = gzip.compress(content)
        if form.endswith(".zst"):
            content = pa.compress(content, codec="zstd", asbytes=True)
        (folder / f"rows.{form}").write_bytes(content)
        return f"/rows.{form}", "id"
    if form == "parquet":
        pictures(folder)
        parquet(TABLE[:12], folder / "a.parquet")
        parquet(TABLE[12:], folder / "b.parquet")
        return "/*.parquet", "id"
    if form == "parquet of bytes":
        parquet([{**row, "image": png(number)} for number, row in enumerate(TABLE)], folder / "a.parquet")
        return "", "id"
    if form == "hive":
        for part in range(0, ROWS, 6):
            for label in {row["label"] for row in TABLE[part : part + 6]} if by_label else {None}:
                place = folder / f"part={part:02d}" / (f"label={label}" if by_label else "")
                place.mkdir(parents=True)
                rows = [
                    {"id": row["id"], "text": row["text"], "image": png(number + part)}
                    for number, row in enumerate(TABLE[part : part + 6])
                    if label in (row["label"], None)
                ]
                parquet(rows, place / "rows.parquet")
        return "", "id"
    if form == "tar":
        tar(folder)
        return "/rows.tar", "__key__"
    if form == "imagefolder":
        pictures(folder, by_label)
        for values in TABLE:
            place = folder / (values["label"] if by_label else "pictures")
            (place / f"{values['id']}.txt").write_text(values["text"], newline="")
        return "", "stem"
    assert form == "metadata"
    pictures(folder)
    rows = [{"file_name": row["image"], **{name: row[name] for name in ("id", "text", "label")}} for row in TABLE]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "", "id"


FORMS = (
    "jsonl", "jsonl.gz", "jsonl.zst", "csv", "csv.gz", "tsv", "parquet", "parquet of bytes", "hive", "tar",
    "imagefolder", "metadata",
)  # fmt: skip


def rows_of(path: str, key: str, **options) -> dict[str, list]:
    """The rows in the order of their keys, pictures as bytes."""
    corpus = opened(path, key, 5, **options)
    finder = Pictures(corpus.root, storage_options=options)
    found: dict[str, list] = {name: [] for name in EXPECTED}
    for shard in corpus.shards(5):
        table = corpus.read(shard, ["text", "label", "image"])
        assert table.column("__bad__").null_count == table.num_rows
        found[""] += corpus.keys(shard, table)
        found["text"] += table.column("text").to_pylist()
        found["label"] += table.column("label").to_pylist()
        found["image"] += [finder.find(value, shard.folder).read() for value in table.column("image").to_pylist()]
    order = sorted(range(len(found[""])), key=lambda row: found[""][row])
    return {name: [values[row] for row in order] for name, values in found.items()}


@pytest.mark.parametrize("form", FORMS)
def test_every_format_gives_the_same_rows_on_disk_on_s3_and_in_memory(form, tmp_path, s3_server, s3_bucket):
    folder = tmp_path / "corpus"
    path, key = write(folder, form)
    assert rows_of(f"{folder}{path}", key) == EXPECTED
    options = {"endpoint_url": s3_server}
    fsspec.filesystem("s3", **options, skip_instance_cache=True).put(f"{folder}/", f"{s3_bucket}/c/", recursive=True)
    assert rows_of(f"s3://{s3_bucket}/c{path}", key, **options) == EXPECTED
    memory = fsspec.filesystem("memory")
    root = f"/{tmp_path.name}-{form.replace(' ', '-')}"
    for file in folder.rglob("*.*"):
        if file.is_file():
            memory.pipe_file(f"{root}/{file.relative_to(folder)}", file.read_bytes())
    assert rows_of(f"memory:/{root}{path}", key) == EXPECTED


def test_thousands_of_files_are_listed_in_order(tmp_path):
    for number in range(3000):
        place = tmp_path / f"part={number % 7}"
        place.mkdir(exist_ok=True)
        (place / f"{number:05d}.jsonl").write_text(f'{{"id": "k{number:05d}", "n": {number}}}\n')
    corpus = opened(tmp_path, "id")
    names = [source.relative for source in corpus.sources]
    assert len(names) == 3000
    assert names == sorted(names)
    assert [shard.id for shard in corpus.shards(4096)] == [shard.id for shard in opened(tmp_path, "id").shards(4096)]
    assert len(set(read(corpus, ["n", "part"])["n"])) == 3000


def test_one_unreadable_file_among_thousands_is_named(tmp_path):
    one = io.BytesIO()
    parquet(TABLE[:1], one)
    for number in range(1200):
        (tmp_path / f"{number:05d}.parquet").write_bytes(one.getvalue() if number not in (700, 900) else b"PAR1 broken")
    line = refusal(tmp_path)
    assert line.startswith("corpus.path: 00700.parquet is not a whole Parquet file")
    assert line.endswith("(and 1 more such files)")


def test_lists_of_vectors_in_json_are_lists_of_vectors(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"v": [[1, 2.5], [3, 4]]}\n{"v": []}\n{"v": [[1], 2]}\n')
    corpus = opened(tmp_path / "a.jsonl")
    assert corpus.columns["v"] == pa.string()
    assert read(corpus, ["v"])["v"] == ["[[1, 2.5], [3, 4]]", "[]", "[[1], 2]"]
    (tmp_path / "a.jsonl").write_text('{"v": [[1, 2.5], [3, 4]]}\n{"v": []}\n')
    corpus = opened(tmp_path / "a.jsonl")
    assert corpus.columns["v"] == pa.list_(pa.list_(pa.float64()))
    assert read(corpus, ["v"])["v"] == [[[1.0, 2.5], [3.0, 4.0]], []]
