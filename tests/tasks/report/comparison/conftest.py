"""Versions of an output, written without a run."""

import json

import numpy as np
import pyarrow as pa
import pytest

from barycenter.fusion.dataset.schema import FeatureFile, Manifest, vectors_to_array
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import commit_manifest
from barycenter.infra.versions.lease import hold
from barycenter.infra.versions.manifests import report_path, versions
from barycenter.tasks.report.comparison.sides import Side


class Versions:
    """An output that versions are committed to."""

    def __init__(self, folder):
        self.storage = Storage(str(folder))

    def commit(self, keys, vectors, *, alignment="a1", files=2, groups=None, report=None, promote="auto", **more):
        """The side of a new version, its rows in several files."""
        number = max(versions(self.storage), default=0)
        version = f"v{number + 1}"
        made = []
        for at, rows in enumerate(np.array_split(np.arange(len(keys)), files)):
            columns = {
                "id": pa.array([keys[row] for row in rows], pa.string()),
                "group": pa.array([groups[row] if groups else keys[row] for row in rows], pa.string()),
                "fused": vectors_to_array(np.asarray(vectors, np.float32)[rows]),
            }
            path = f"features/{version}/part-{at}.parquet"
            self.storage.write_table(path, pa.table(columns))
            made.append(FeatureFile(path, len(rows), self.storage.sizes("features")[path], self.storage.sha256(path)))
        rows = {"read": len(keys) + 1, "written": len(keys), "rejected": 1, "missing": {"text": 2}, "bad": {"null": 3}}
        values = {
            "version": version, "key": "id", "kept": ("group",), "dim": np.shape(vectors)[1], "dtype": "float32",
            "inputs": {"text": {"kind": "text", "encoder": "e", "encoder_id": "e1", "embedding_id": "e1", "dim": 4}},
            "alignment_id": alignment, "alignment": {"method": "cca"}, "average": {"method": "mean", "weights": None},
            "rows": rows, "files": tuple(made), "parent": number or None, "settings": {"alignment": {"dim": 4}},
        }  # fmt: skip
        with hold(self.storage, "test") as lease:
            committed = commit_manifest(self.storage, Manifest(**values | more), lease, promote)
        if report is not None:
            self.storage.write(report_path(version), json.dumps(report | {"version": version}).encode())
        return Side.open(f"{self.storage.root}@{committed.number}")

    def train(self, side, rows, *, kind="linear", name="h1", task="classification", group_by=None, target="label"):
        """A head's held-out predictions: (key, true value, prediction)."""
        folder = f"head/{side.manifest.version}/{name}"
        params = {} if kind == "linear" else {"kind": kind}
        self.storage.write(f"{folder}/head.json", json.dumps({"params": params}).encode())
        train = {"target": target, "group_by": group_by}
        metrics = {"head": kind, "task": task, "train": train, "version": side.manifest.version}
        self.storage.write(f"{folder}/metrics.json", json.dumps(metrics).encode())
        if rows:
            names = zip(("id", "target", "prediction"), zip(*rows, strict=True), strict=True)
            self.storage.write_table(f"{folder}/predictions.parquet", pa.table({key: list(v) for key, v in names}))


@pytest.fixture
def outputs(tmp_path):
    return Versions(tmp_path / "out")


@pytest.fixture
def vectors():
    """Sixty vectors of four numbers."""
    return np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32)


@pytest.fixture
def keys():
    return [f"k{row:02d}" for row in range(60)]
