"""The stages from a corpus to committed features in this process, without Ray or Prefect."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from barycenter.fusion.alignment import Alignment, Identity
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.encoders import builtin
from barycenter.infra.corpus import opening
from barycenter.infra.corpus.formats import lines
from barycenter.infra.job.models import Job
from barycenter.tasks.data.alignment_files import FittedAlignment
from barycenter.tasks.embed.settings import Execution
from barycenter.tasks.embed.stage import embed_setting
from barycenter.tasks.embed.worker import EmbedWorker, ShardJob
from barycenter.tasks.fuse import stage as fuse
from barycenter.tasks.fuse import worker as fusing
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.workers import THIS_PROCESS
from tests.fuzz.case import Case
from tests.fuzz.files import write_files
from tests.fuzz.tables import WIDTH


@cache
def alignment(inputs: tuple[str, ...]) -> Alignment:
    """No alignment of some inputs."""
    rng = np.random.default_rng(0)
    return Identity().fit({name: rng.normal(size=(4, WIDTH)) for name in inputs})


@contextmanager
def narrow_texts() -> Iterator[None]:
    """Texts are hashed to vectors of the width that vector inputs have."""
    with (
        mock.patch.object(builtin, "_WORDS", WIDTH // 2),
        mock.patch.object(builtin, "_CHARACTERS", WIDTH // 2),
        mock.patch.object(builtin.HashingEncoder, "dim", WIDTH),
    ):
        yield


def job_of(case: Case, folder: Path) -> Job:
    """The job of a case, its files written."""
    write_files(case, folder / "corpus")
    kinds = {name: {"kind": "vector", "column": name} for name in case.inputs}
    if "txt" in kinds:
        kinds["txt"] = {"kind": "text", "column": "txt", "encoder": "builtin/hashing"}
    values: dict[str, Any] = {
        "corpus": {"path": str(folder / "corpus"), "key": case.key, "keep": list(case.kept), "rows_per_shard": 4},
        "inputs": kinds,
        "alignment": {"method": "none"},
        "average": {"method": "mean"},
        "output": {"path": str(folder / "out"), "partition_by": case.partition},
        "limits": {"max_bad_fraction": 1.0},
    }
    if case.target is not None:
        values["train"] = {"target": case.target}
    return Job.model_validate(values)


def run_stages(job: Job, sample: int) -> tuple[Run, Manifest]:
    """Embeds and fuses; the manifest.

    Args:
        job: The job.
        sample: Rows that the types of JSON Lines are taken from.
    """
    with mock.patch.object(opening, "index_sources", _sampled(sample)):
        run = prepare(job)
    execution = Execution(batch=64, threads=1, dtype="float32", device="cpu")
    for name in run.inputs:
        worker = EmbedWorker(embed_setting(run, name, execution))
        with worker.pipeline:
            for shard in run.shards:
                worker.run(ShardJob(shard, 64))
    fit = alignment(run.inputs)
    fitted = FittedAlignment(fit, "none", {"average": "mean", "weights": None})
    with (
        mock.patch.object(fusing, "load_alignment", return_value=fit),
        mock.patch.object(fuse, "StageProgress", _Progress),
        mock.patch.object(fuse, "dataset_committed", return_value=None),
    ):
        manifest, _ = fuse.fuse_features(run, THIS_PROCESS, fitted, "mean", None)
    return run, manifest


def _sampled(sample: int) -> Any:
    """Indexes files as the corpus does, with the types of fewer of their first rows and of none of the later."""
    real = opening.index_sources

    def index_sources(files: Any, form: Any, entries: Any, rows_per_shard: int) -> Any:
        index = type(form).index_source
        with (
            mock.patch.object(type(form), "index_source", lambda self, *args: index(self, *args[:-1], sample)),
            mock.patch.object(lines, "_LATER_RECORDS", 0),
        ):
            return real(files, form, entries, rows_per_shard)

    return index_sources


class _Progress:
    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __enter__(self) -> "_Progress":
        return self

    def __exit__(self, *_: Any) -> None: ...

    def advance(self, rows: int) -> None: ...

    def figures(self) -> dict[str, Any]:
        return {}
