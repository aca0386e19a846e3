"""What does a second run cost, after each change of a corpus that people really make?

Rows that reach the text model are counted by the model: a folder with code of its own, which writes down the token ids
of every row that it is run on. Of pictures the embed stage's own count is shown. Every change is compared with a run
of the same plan in an empty folder: vectors by key, and the feature files after a refit of both, byte by byte. One row
is appended to 200,000 then, and both runs are timed as a whole, from the command line: the second one with a Ray of its
own, as the first, and once more without (``ray: {address: none}``), from the same state. ROWS=0 leaves the changes out.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}
os.environ |= {"HF_HUB_OFFLINE": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

import barycenter.fusion.torch_compat  # noqa: F401 - before transformers
from benchmarks import harness

# isort: split

from transformers import AutoTokenizer

from barycenter.infra.job.models import Job
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.pipeline import run_job
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.workers import THIS_PROCESS

ROWS = int(os.environ.get("ROWS", "600"))
MANY = int(os.environ.get("MANY", "200000"))
PARTS = ("kept", "copied", "duplicate", "encoded", "missing", "rejected")

LOGGING_MODEL = """
import json
import os
from transformers import BertModel


class LoggingBert(BertModel):
    def forward(self, input_ids=None, **given):
        with open(os.environ["AGAIN_LOG"], "a") as log:
            row = []
            for token in input_ids.flatten().tolist():
                if token == 101:
                    row = []
                row.append(token)
                if token == 102:
                    log.write(json.dumps(row) + "\\n")
        return super().forward(input_ids=input_ids, **given)
"""


def logging_model(folder: Path) -> Path:
    """all-MiniLM-L6-v2 with code that writes down each row."""
    shutil.copytree(harness.minilm(), folder)
    (folder / "logging_bert.py").write_text(LOGGING_MODEL)
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoModel": "logging_bert.LoggingBert"}, "architectures": ["LoggingBert"]}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


class ModelLog:
    """The rows that the model was run on; those that a loaded encoder tries itself on are none of a corpus."""

    def __init__(self, path: Path, model: Path) -> None:
        self._path, self._tokenizer = path, AutoTokenizer.from_pretrained(model)
        os.environ["AGAIN_LOG"] = str(path)
        path.touch()

    def clear(self) -> None:
        self._path.write_text("")

    def rows(self, texts: list[str]) -> int:
        """How many of the texts' rows were in the log."""
        known = {tuple(self._tokenizer(text, truncation=True, max_length=256)["input_ids"]) for text in set(texts)}
        return sum(tuple(json.loads(line)) in known for line in self._path.read_text().splitlines())


@dataclass
class World:
    """A corpus in any layout, and the job over it."""

    folder: Path
    model: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    files: int = 1
    format: str = "jsonl"
    shard: int = 256

    def write(self) -> None:
        for path in (self.folder / "corpus").glob("rows*"):
            path.unlink()
        step = -(-len(self.rows) // self.files)
        for number, start in enumerate(range(0, len(self.rows), step)):
            part, path = self.rows[start : start + step], self.folder / "corpus" / f"rows{number}.{self.format}"
            if self.format == "jsonl":
                path.write_text("".join(json.dumps(row) + "\n" for row in part))
            else:
                pq.write_table(pa.Table.from_pylist(part), path, compression="zstd")

    def job(self, out: Path) -> dict[str, Any]:
        return {
            "name": "again",
            "corpus": {
                "path": str(self.folder / "corpus" / f"*.{self.format}"), "key": "id", "rows_per_shard": self.shard,
            },
            "inputs": {
                "text": {"kind": "text", "column": "text", "encoder": str(self.model), "trust_remote_code": True},
                "image": {
                    "kind": "image", "column": "image", "encoder": "torchvision/mobilenet_v2",
                    "weights": str(harness.shared("weights/mobilenet_v2/mobilenet_v2.safetensors")),
                },
            },
            "alignment": {"method": "cca", "dim": 64},
            "output": {"path": str(out)},
        }  # fmt: skip

    def run(
        self, out: Path, *, refit: bool = False
    ) -> tuple[dict[str, Any], dict[str, dict[str, bytes]], dict[str, bytes]]:
        """The report, vectors by input and key, and the feature files."""
        run = prepare(Job.model_validate(self.job(out)), refit=refit)
        report = run_job(run, THIS_PROCESS)
        manifest = json.loads((out / "manifest.json").read_text())
        vectors = {}
        for name, about in manifest["inputs"].items():
            found = vectors.setdefault(name, {})
            for shard in manifest["shards"]:
                table = pq.read_table(out / embedding_path(name, about["embedding_id"], shard), partitioning=None)
                for key, vector in zip(table["key"].to_pylist(), table["vector"].to_pylist(), strict=True):
                    found[key] = repr(vector).encode()
        features = {file["path"]: (out / file["path"]).read_bytes() for file in manifest["files"]}
        return report, vectors, features

    def picture(self, name: str) -> Path:
        return self.folder / "corpus" / "images" / name


def share(world: World) -> list[int]:
    """Places of 1 % of the rows."""
    return random.Random(1).sample(range(len(world.rows)), max(1, len(world.rows) // 100))


def new_row(world: World, number: int) -> dict[str, Any]:
    """A row that was not there: its picture is another one's, a pixel changed."""
    from PIL import Image

    row = world.rows[number] | {
        "id": f"new{number}",
        "text": f"a new thing, number {number}",
        "image": f"new{number}.png",
    }
    with Image.open(world.picture(world.rows[number]["image"])) as opened:
        picture = opened.convert("RGB")
    picture.putpixel((number % picture.width, 1), (number % 251, 3, 77))
    picture.save(world.picture(row["image"]))
    return row


def append(world: World) -> int:
    world.rows += [new_row(world, number) for number in share(world)]
    return sum(row["id"].startswith("new") for row in world.rows)


def insert(world: World) -> int:
    rows = [new_row(world, number) for number in share(world)]
    for row in rows:
        world.rows.insert(random.Random(row["id"]).randrange(len(world.rows)), row)
    return len(rows)


def delete(world: World) -> int:
    gone = set(share(world))
    world.rows = [row for number, row in enumerate(world.rows) if number not in gone]
    return 0


def edit(world: World) -> int:
    places = share(world)
    for number in places:
        new = new_row(world, number)
        world.rows[number] = world.rows[number] | {"text": new["text"], "image": new["image"]}
    return len(places)


def reorder(world: World) -> int:
    random.Random(2).shuffle(world.rows)
    return 0


def touch(world: World) -> int:
    del world
    return 0  # it is written anew in any case


def copy_folder(world: World) -> int:
    shutil.copytree(world.folder / "corpus", world.folder / "copy" / "corpus")
    world.folder = world.folder / "copy"
    return 0


def move_folder(world: World) -> int:
    (world.folder / "moved").mkdir()
    (world.folder / "corpus").rename(world.folder / "moved" / "corpus")
    world.folder = world.folder / "moved"
    return 0


def split(world: World) -> int:
    world.files = 5
    return 0


def other_format(world: World) -> int:
    world.format = "parquet"
    return 0


def other_shards(world: World) -> int:
    world.shard = 100
    return 0


def rename_pictures(world: World) -> int:
    for name in {row["image"] for row in world.rows}:
        world.picture(name).rename(world.picture(f"renamed-{name}"))
    for row in world.rows:
        row["image"] = f"renamed-{row['image']}"
    return 0


def many_paths(world: World) -> int:
    for number in share(world):
        row = dict(world.rows[number]) | {"id": f"same{number}", "image": f"same{number}.png"}
        shutil.copy(world.picture(world.rows[number]["image"]), world.picture(row["image"]))
        world.rows.append(row)
    return 0


CHANGES: dict[str, Callable[[World], int]] = {
    "1 % appended": append, "1 % inserted": insert, "1 % deleted": delete, "1 % edited": edit, "reordered": reorder,
    "written again": touch, "folder copied": copy_folder, "folder moved": move_folder, "split in five": split,
    "as Parquet": other_format, "other shard size": other_shards, "pictures renamed": rename_pictures,
    "pictures under more paths": many_paths,
}  # fmt: skip


def changes(scratch: Path, model: Path, log: ModelLog) -> list[dict[str, Any]]:
    """Every change after a first run over the emoji set."""
    data = harness.shared("data/emojitwo")
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text(encoding="utf-8").splitlines()][:ROWS]
    rows = [{"id": str(row["id"]), "text": row["text"], "image": row["image"]} for row in rows]
    base = World(scratch / "base", model, rows)
    (base.folder / "corpus" / "images").mkdir(parents=True)
    for row in rows:
        shutil.copy(data / "images" / row["image"], base.picture(row["image"]))
    base.write()
    began = time.perf_counter()
    base.run(scratch / "out")
    first = time.perf_counter() - began
    figures = []
    for name, change in CHANGES.items():
        folder = scratch / name.replace(" ", "-").replace("%", "")
        shutil.copytree(base.folder, folder / "world")
        shutil.copytree(scratch / "out", folder / "out")
        world = World(folder / "world", model, [dict(row) for row in rows])
        world.write()
        new = change(world)
        world.write()
        log.clear()
        began = time.perf_counter()
        report, vectors, _ = world.run(folder / "out")
        seconds = time.perf_counter() - began
        seen = log.rows([row["text"] for row in world.rows])
        fresh = folder / "fresh"
        fresh.mkdir()
        shutil.copy(folder / "out" / "plan.json", fresh / "plan.json")
        _, of_fresh, features = world.run(fresh)
        same_features = world.run(folder / "out", refit=True)[2] == features
        reuse = report["reuse"]
        figures.append(
            {
                "change": name, "rows": len(world.rows), "new": new, "texts to the model": seen,
                "pictures encoded": reuse["image"]["encoded"], "copied": reuse["text"]["copied"],
                "vectors equal": vectors == of_fresh, "features equal": same_features,
                "seconds": seconds, "of the first": seconds / first,
            }
        )  # fmt: skip
        harness.note(figures[-1])
        shutil.rmtree(folder)
    return figures


def one_row(scratch: Path, model: Path, log: ModelLog) -> dict[str, Any]:
    """One row appended to many, both runs from the command line."""
    chance = random.Random(0)
    words = [word for word in (harness.minilm() / "vocab.txt").read_text().split("\n") if word.isalpha()]
    texts = [" ".join(chance.choices(words, k=8)) for _ in range(MANY)]
    corpus = scratch / "many.jsonl"
    vector = [[round(chance.gauss(0, 1), 4) for _ in range(8)] for _ in range(997)]
    corpus.write_text(
        "".join(json.dumps({"id": n, "text": text, "v": vector[n % 997]}) + "\n" for n, text in enumerate(texts))
    )
    job = {
        "name": "many",
        "corpus": {"path": str(corpus), "key": "id"},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": str(model), "trust_remote_code": True},
            "v": {"kind": "vector", "column": "v"},
        },
        "alignment": {"method": "cca", "dim": 8},
        "output": {"path": str(scratch / "many")},
    }
    (scratch / "many.yaml").write_text(yaml.safe_dump(job))
    new = "the one row that is new here"
    first, _ = timed_run(scratch, "first")
    shutil.copytree(scratch / "many", scratch / "before")
    with corpus.open("a") as stream:
        stream.write(json.dumps({"id": MANY, "text": new, "v": vector[0]}) + "\n")
    found = {"rows": MANY, "first_seconds": first}
    for name, settings in {"ray": [], "no ray": ["--set", "ray.address=none"]}.items():
        shutil.rmtree(scratch / "many")
        shutil.copytree(scratch / "before", scratch / "many")
        log.clear()
        seconds, report = timed_run(scratch, name, *settings)
        found[name] = {
            "seconds": seconds, "share": seconds / first,
            "parts": {stage: figures["seconds"] for stage, figures in report["speed"].items()},
            "texts_to_the_model": log.rows([new, *texts]), "reuse": report["reuse"]["text"],
        }  # fmt: skip
    return found


def timed_run(scratch: Path, name: str, *settings: str) -> tuple[float, dict[str, Any]]:
    """Seconds of the whole command, and its report."""
    words = [str(Path(sys.prefix) / "bin" / "barycenter"), "run", str(scratch / "many.yaml"), *settings]
    began = time.perf_counter()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL, stderr=sys.stderr)
    seconds = time.perf_counter() - began
    report = json.loads((scratch / "many" / "report" / "report.json").read_text())
    harness.note(f"{name}: {seconds:.1f} s", report["reuse"])
    harness.note({stage: figures["seconds"] for stage, figures in report["speed"].items()})
    return seconds, report


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = logging_model(scratch / "model")
        log = ModelLog(scratch / "log.jsonl", model)
        found = changes(scratch, model, log) if ROWS else []
        if found:
            harness.table(found)
        many = one_row(scratch, model, log)
    for name in ("ray", "no ray"):
        harness.note(f"one row appended to {MANY:,}, {name}: {many[name]['seconds']:.1f} s, {many[name]['share']:.1%}")
    harness.finish({"changes": found, "one_row": many, "versions": harness.versions("torch", "transformers")})


if __name__ == "__main__":
    main()
