"""The embed stage of a job as one contender: real workers, real files, its rate without its start-up."""

import json
import secrets
from pathlib import Path
from typing import Any

import numpy as np

from barycenter.infra.job.models import Job
from barycenter.infra.ray.connection import connect
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.embed.stage import embed_input
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids


class Stage:
    """Embeds one input of a corpus, each time into a new folder.

    Args:
        folder: Where outputs go.
        corpus: The job's ``corpus``.
        given: The job's input.
        outside: Whether pictures lie outside the corpus folder.
    """

    def __init__(self, folder: Path, corpus: dict[str, Any], given: dict[str, Any], outside: bool = False) -> None:
        self._folder, self._corpus, self._given, self._outside = folder, corpus, given, outside
        self._run: Run | None = None
        self.start_seconds = 0.0

    def rate(self) -> float:
        """Rows a second from the moment the worker is ready to the last file written."""
        out = self._folder / f"out-{secrets.token_hex(3)}"
        job = {"corpus": self._corpus, "inputs": {"it": self._given}, "output": {"path": str(out)}}
        job["limits"] = {"outside_corpus": self._outside}
        self._run = prepare(Job.model_validate(job))
        with connect("local") as cluster:
            figures = embed_input(self._run, "it", cluster)
        self.start_seconds = figures["start_seconds"]
        return float(figures["rows"] / (figures["seconds"] - figures["start_seconds"]))

    def plan(self) -> dict[str, Any]:
        """What plan.json fixed the last time."""
        assert self._run is not None
        plan: dict[str, Any] = json.loads(self._run.storage.read("plan.json"))["machines"]
        return next(machine["inputs"]["it"] for machine in plan.values())

    def vectors(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """(n, dim) of the last time, in corpus order."""
        run = self._run
        assert run is not None
        paths = [embedding_path("it", embedding_ids(run)["it"], shard.id) for shard in run.shards]
        columns = [run.storage.read_table(path, columns=["vector"]).column(0).combine_chunks() for path in paths]
        return np.concatenate([column.flatten().to_numpy().reshape(len(column), -1) for column in columns])
