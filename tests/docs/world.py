"""A folder in which the commands and the Python of the pages run: a corpus, a finished output, small files."""

import itertools
import os
import runpy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
from PIL import Image

from barycenter.infra.job.models import Job
from barycenter.tasks.pipeline import PLAIN
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.workers import THIS_PROCESS
from tests.docs.blocks import ROOT
from tests.flows.corpora import run_here, text_and_vector_rows, write_job, write_lines

ROWS = 60
COLORS = {"class 0": (200, 30, 30), "class 1": (30, 200, 30), "class 2": (30, 30, 200)}
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/*/job.yaml"))
_FEWER: dict[str, dict[str, Any]] = {
    "functions": {"parts": ("fft", "linalg")},
    "products": {"rows": 60},
    "questions": {"pictures": 20},
}
"""What makes an example smaller here."""
_KEYS = itertools.cycle(f"{0x1F600 + number:x}" for number in range(20, ROWS))
_DATE = "data/days/date=2024-01-31"


def make_world(folder: Path) -> None:
    """Writes corpus, pictures, job file, an output of five versions, the newest with a head, and the examples' data."""
    rows = [row_of(number, row, folder) for number, row in enumerate(text_and_vector_rows(ROWS))]
    write_lines(folder / _DATE / "rows.jsonl", rows)
    pacsv.write_csv(pa.Table.from_pylist(rows).drop_columns("vec"), folder / "data" / "shop.csv")
    pacsv.write_csv(pa.Table.from_pylist(rows[:3]).select(["id", "text"]), folder / "new.csv")
    for name in ("crab.png", "boat.jpg", "cat.png"):
        Image.new("RGB", (24, 24), (200, 60, 40)).save(folder / name)
    job = job_of(folder)
    for dim in range(4, 8):
        commit(job | {"alignment": job["alignment"] | {"dim": dim}, "train": None})
    run_here(job)
    write_job(folder / "JOB.yaml", job)
    for name in EXAMPLES:
        prepare_example(name, folder / "examples" / name)


def prepare_example(name: str, folder: Path) -> None:
    """Runs an example's prepare.py into a folder, and puts its job file there."""
    script = runpy.run_path(str(ROOT / "examples" / name / "prepare.py"))
    script["main"](folder, **_FEWER.get(name, {}))
    shutil.copy(ROOT / "examples" / name / "job.yaml", folder)


def commit(job: dict[str, Any]) -> None:
    """A version without a head and a report."""
    run = prepare(Job.model_validate(job))
    with run.held():
        PLAIN.embed_inputs(run, THIS_PROCESS)
        PLAIN.fuse_inputs(run, THIS_PROCESS)


def row_of(number: int, row: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A row with a picture of its class's color, a group and a split."""
    name = f"images/{number:03d}.png"
    path = folder / _DATE / name
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(number).integers(-20, 20, (12, 12, 3))
    Image.fromarray(np.clip(COLORS[row["label"]] + noise, 0, 255).astype(np.uint8)).save(path)
    more = {"id": f"{0x1F600 + number:x}", "image": name, "base": f"b{number // 2}", "price": 10 + number / 4}
    return row | more


def job_of(folder: Path) -> dict[str, Any]:
    """The job of the output, its paths absolute."""
    return {
        "name": "emoji",
        "corpus": {"path": str(folder / "data/days"), "key": "id", "keep": ["label", "base"]},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"},
            "image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor"},
        },
        "alignment": {"method": "pca", "dim": 8, "regularization": 1.0, "folds": 2},
        "output": {"path": str(folder / "out/emoji")},
        "train": {"target": "label", "group_by": "base"},
        "ray": {"address": "none"},
    }


def enter(world: Path, folder: Path) -> None:
    """Fills a block's own folder: the world's files as links, its output as a copy, which commands may change."""
    for path in world.iterdir():
        if path.name != "out":
            (folder / path.name).symlink_to(path)
    shutil.copytree(world / "out", folder / "out", copy_function=os.link)


def filled(words: Sequence[str]) -> list[str]:
    """The words of a command with the world's names for placeholders, and for files and rows that are not there."""
    before = ["", *words]
    return [_filled(word, before[at]) for at, word in enumerate(words)]


def _filled(word: str, before: str) -> str:
    path = Path(word)
    folder, _, number = word.rpartition("@")
    if folder and number.isdigit():
        return f"{_filled(folder, before)}@{number}"
    if before in ("--out", "--export"):
        return word
    if word == "KEY...":
        return next(_KEYS)
    if before == "--key":
        return "1f600"
    if before == "--head" and "head" in path.parts:
        return str(next(Path("out/emoji/head").glob("*/*/head.json")).parent)
    if word == "DIR" or ("out" in path.parts and not path.suffix and not path.exists()):
        return "out/emoji"
    if path.suffix == ".yaml" and not path.exists():
        return "JOB.yaml"
    return {"PATH": "data/shop.csv", "FILE": "new.csv"}.get(word, word)
