"""A version's files and manifest, without its commit."""

import pyarrow as pa
import pytest

from barycenter.fusion.dataset.schema import FeatureFile, Manifest
from barycenter.infra.storage import Storage
from barycenter.infra.versions.embedding_files import embedding_path

on_a_disk = pytest.mark.parametrize("storage", ["local"], indirect=True)
"""For tests of what is the same on any storage."""


def output(storage: Storage, version: str, parent=None, shards=("s1",), encoder="e1") -> Manifest:
    """Writes a whole version but for its commit, and gives its manifest."""
    path = f"features/{version}/label=1/part-0.parquet"
    storage.write_table(path, pa.table({"key": ["a", "b", version]}))
    rejects = f"rejects/{version}/part-0.parquet"
    storage.write_table(rejects, pa.table({"key": ["bad"]}))
    storage.write(f"alignment/al-{version}/alignment.json", b"{}")
    storage.write(f"head/{version}/metrics.json", b"{}")
    for shard in shards:
        storage.write(embedding_path("text", encoder, shard), b"vectors")
    size = storage.sizes("features")[path]
    return Manifest(
        version=version,
        key="key",
        dim=8,
        dtype="float32",
        inputs={"text": {"encoder_id": encoder, "embedding_id": encoder}},
        alignment_id=f"al-{version}",
        files=(FeatureFile(path, 3, size, storage.sha256(path)),),
        rejects=(rejects,),
        shards=tuple(shards),
        parent=parent,
    )
