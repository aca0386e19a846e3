"""Tiny corpora and the jobs that read them."""

import copy
import json
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage

WORDS = ("red", "blue", "green", "plate", "kite", "badge", "winter", "wedding", "birthday", "small", "large", "new")


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def text_and_vector_rows(count: int, *, first: int = 0, width: int = 6, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of a text and a vector that share a class, so that there is something to align."""
    rng = np.random.default_rng([seed, first])
    centers = np.random.default_rng(seed).normal(size=(3, width))
    rows = []
    for number in range(first, first + count):
        label = int(rng.integers(3))
        words = [*WORDS[4 * label : 4 * label + 2], *rng.choice(WORDS, 2)]
        vector = centers[label] + 0.3 * rng.normal(size=width)
        rows.append(
            {
                "id": f"r{number:04d}",
                "text": " ".join(words),
                "vec": [float(value) for value in vector],
                "label": f"class {label}",
            }
        )
    return rows


def text_and_vector_job(corpus: Path, out: Path, name: str, **sections: Any) -> dict[str, Any]:
    """The job over such rows; ``sections`` replace or extend what it says."""
    data: dict[str, Any] = {
        "name": name,
        "corpus": {"path": str(corpus), "key": "id", "keep": ["label"], "rows_per_shard": 20},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing", "batch": 512},
            "vec": {"kind": "vector", "column": "vec", "batch": 16},
        },
        "alignment": {"dim": 8},
        "output": {"path": str(out)},
        "ray": {"workers": 1, "threads_per_worker": 1},
    }
    for section, value in sections.items():
        merged = {**data[section], **value} if isinstance(value, dict) and section in data else value
        data[section] = copy.deepcopy(merged)
    return data


def write_job(path: Path, data: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    return path


def undescribed(schema: dict[str, Any]) -> list[str]:
    """The fields of a flow's parameter schema without a title or a description, by the part that they are in."""
    parts = {"": schema, **schema.get("definitions", {})}
    return [
        f"{part}.{name}"
        for part, content in parts.items()
        for name, field in content["properties"].items()
        if not (field.get("title") and field.get("description"))
    ]


def run_here(data: dict[str, Any], *, drawn: bool = False, **flags: Any) -> dict[str, Any]:
    """The report of the whole job, run in this process: for what neither Ray nor Prefect has a part in.

    Its figures and its page are made only if they are to be ``drawn``; memory is not given back, a few rows need none.
    """
    from barycenter.tasks.pipeline import run_job
    from barycenter.tasks.planning.plan import prepare
    from barycenter.tasks.run.workers import THIS_PROCESS

    with ExitStack() as stack:
        stack.enter_context(mock.patch("barycenter.tasks.pipeline.give_back_memory"))
        if not drawn:
            stack.enter_context(mock.patch("barycenter.tasks.report.rendering.figures.plots", return_value={}))
            stack.enter_context(mock.patch("barycenter.tasks.report.stage.html", return_value=""))
        return run_job(prepare(Job.model_validate(data), **flags), THIS_PROCESS)


def run_on_ray(data: dict[str, Any], **flags: bool) -> dict[str, Any]:
    """The same on the Ray of ``ray_session``, without Prefect."""
    from barycenter.infra.ray.connection import connect
    from barycenter.tasks.pipeline import run_job
    from barycenter.tasks.planning.plan import prepare

    with connect("auto") as cluster:
        return run_job(prepare(Job.model_validate(data), **flags), cluster)


def run_pipeline(data: dict[str, Any], **flags: bool) -> dict[str, Any]:
    """The same as a user runs it: the flow, on the server of ``prefect_server``, its workers at ``ray.address``."""
    from barycenter.flows.pipeline import pipeline

    report: dict[str, Any] = pipeline(Job.model_validate(data), **flags)
    return report


def output(data: dict[str, Any]) -> Storage:
    return Storage(data["output"]["path"])


def read_features(data: dict[str, Any]) -> pa.Table:
    """Every feature row that the newest manifest lists, in its order."""
    folder = Path(data["output"]["path"])
    manifest = json.loads((folder / "manifest.json").read_text())
    return pa.concat_tables([pq.ParquetFile(folder / file["path"]).read() for file in manifest["files"]])


def vectors(table: pa.Table, column: str = "fused") -> np.ndarray:
    return np.array(table.column(column).to_pylist(), dtype=np.float64)
