"""A corpus that changes in the ways that people change theirs."""

import json
import os
import random
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from barycenter.infra.job.models import Job
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.embed.stage import embed_input
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids
from barycenter.tasks.run.workers import THIS_PROCESS


class Corpus:
    """Rows of a text and a picture, written in any layout; and what an output makes of them."""

    def __init__(self, folder, rows=50):
        self.folder, self.out = folder / "corpus", folder / "out"
        self.shard, self.format, self.files, self.key = 8, "jsonl", 1, "id"
        self.reuse = []
        self.rows = [self.row(number) for number in range(rows)]

    def row(self, number):
        self.picture(f"p{number}.png", number)
        return {"id": f"k{number}", "text": f"text number {number}", "image": f"p{number}.png"}

    def picture(self, name, color):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (color % 256, color // 256, 7)).save(path)

    def write(self):
        for path in self.folder.glob("rows*"):
            path.unlink()
        step = -(-len(self.rows) // self.files)
        for number, start in enumerate(range(0, len(self.rows), step)):
            part, path = self.rows[start : start + step], self.folder / f"rows{number}.{self.format}"
            named = [{self.key: row["id"], **{k: v for k, v in row.items() if k != "id"}} for row in part]
            if self.format == "jsonl":
                path.write_text("".join(json.dumps(row) + "\n" for row in named))
            else:
                pq.write_table(pa.Table.from_pylist(named), path, compression="gzip")

    def opened(self, out=None, **flags):
        inputs = {"text": {"kind": "text", "column": "text", "encoder": "builtin/hashing", "batch": 512}}
        if any("image" in row for row in self.rows):
            inputs["image"] = {"kind": "image", "column": "image", "encoder": "builtin/descriptor", "batch": 16}
        job = {
            "corpus": {"path": f"{self.folder}/*.{self.format}", "key": self.key, "rows_per_shard": self.shard},
            "inputs": inputs,
            "output": {"path": str(out or self.out), "reuse": self.reuse},
            "ray": {"workers": 1, "threads_per_worker": 1},
        }
        return Run(Job.model_validate(job), **flags)

    def embed(self, out=None, **flags):
        """(vectors by key, what became of the rows) of each input."""
        run = self.opened(out, **flags)
        found = {}
        for name in run.inputs:
            reuse = embed_input(run, name, THIS_PROCESS)["reuse"]
            tables = [
                run.storage.read_table(embedding_path(name, embedding_ids(run)[name], shard.id)) for shard in run.shards
            ]
            table = pa.concat_tables(tables)
            vectors = {
                key: tuple(v) for key, v in zip(*(table.column(c).to_pylist() for c in ("key", "vector")), strict=True)
            }
            found[name] = vectors, reuse
        return found


def append(corpus):
    corpus.rows.append(corpus.row(100 + len(corpus.rows)))


def insert(corpus):
    corpus.rows.insert(0, corpus.row(300 + len(corpus.rows)))


def delete(corpus):
    del corpus.rows[3]


def edit_both(corpus):
    corpus.rows[7] |= {"text": "another text", "image": "other.png"}
    corpus.picture("other.png", 999)


def edit_a_picture_in_place(corpus):
    corpus.picture(corpus.rows[7]["image"], 999)


def reorder(corpus):
    random.Random(0).shuffle(corpus.rows)


def touch(corpus):
    corpus.write()
    os.utime(corpus.folder / f"rows0.{corpus.format}", ns=(1, 1))


def copy_the_folder(corpus):
    corpus.write()
    corpus.folder = Path(shutil.copytree(corpus.folder, f"{corpus.folder}-copy"))


def move_the_folder(corpus):
    corpus.folder = Path(shutil.move(corpus.folder, f"{corpus.folder}-moved"))


def split(corpus):
    corpus.files = 4


def another_format(corpus):
    corpus.format = "parquet"


def smaller_shards(corpus):
    corpus.shard = 5


def another_key_column(corpus):
    corpus.key = "name"


def rename_pictures(corpus):
    for row in corpus.rows:
        renamed = f"{row['image'].removesuffix('.png')}-new.png"
        (corpus.folder / row["image"]).rename(corpus.folder / renamed)
        row["image"] = renamed


def move_pictures(corpus):
    for row in corpus.rows:
        moved = Path("moved") / row["image"]
        (corpus.folder / moved).parent.mkdir(parents=True, exist_ok=True)
        (corpus.folder / row["image"]).rename(corpus.folder / moved)
        row["image"] = str(moved)


def one_picture_many_paths(corpus):
    for number in range(10):
        shutil.copy(corpus.folder / corpus.rows[0]["image"], corpus.folder / f"same{number}.png")
        corpus.rows.append({"id": f"s{len(corpus.rows)}", "text": "text number 1", "image": f"same{number}.png"})


CHANGES = {
    append: (1, 1), insert: (1, 1), delete: (0, 0), edit_both: (1, 1), edit_a_picture_in_place: (0, 1), reorder: (0, 0),
    touch: (0, 0), copy_the_folder: (0, 0), move_the_folder: (0, 0), split: (0, 0), another_format: (0, 0),
    smaller_shards: (0, 0), another_key_column: (0, 0), rename_pictures: (0, 0), move_pictures: (0, 0),
    one_picture_many_paths: (0, 0),
}  # fmt: skip
