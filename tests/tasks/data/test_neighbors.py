import json
from dataclasses import replace

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.fusion.dataset.schema import FeatureFile, Manifest, vectors_to_array
from barycenter.fusion.metrics import unit_rows
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import commit_manifest
from barycenter.infra.versions.garbage import find_garbage
from barycenter.infra.versions.lease import acquire, hold
from barycenter.infra.versions.manifests import read_manifest
from barycenter.tasks.data.neighbors import index_paths, open_neighborhood

VECTORS = np.random.default_rng(0).normal(size=(90, 16)).astype(np.float32)
INPUTS = {"text": {"kind": "text", "encoder_id": "t"}, "image": {"kind": "image", "encoder_id": "i"}}


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.slow)])
def committed(request, tmp_path):
    """Ninety rows in two partitions, one of them without a name."""
    if request.param == "local":
        storage = Storage(str(tmp_path / "out"))
    else:
        storage = Storage(f"s3://{request.getfixturevalue('s3_bucket')}/out", request.getfixturevalue("s3_server"))
    files = []
    for number, shop in enumerate(("a", None)):
        rows = range(45 * number, 45 * number + 45)
        path = f"features/v1/shop={shop}/part-0.parquet"
        columns = {"id": [f"k{row}" for row in rows], "label": [f"c{row % 3}" for row in rows]}
        storage.write_table(path, pa.table(columns | {"fused": vectors_to_array(VECTORS[rows.start : rows.stop])}))
        files.append(FeatureFile(path, 45, partition={"shop": shop}))
    manifest = Manifest(
        version="v1", key="id", kept=("label", "shop"), partition_by=("shop",), dim=16, dtype="float32",
        partition_types={"shop": "string"}, inputs=INPUTS, files=tuple(files),
    )  # fmt: skip
    with hold(storage, "test") as lease:
        commit_manifest(storage, manifest, lease)
    return storage


def truth(vector, top):
    return np.argsort(-(unit_rows(VECTORS) @ unit_rows(vector[None])[0]), kind="stable")[:top]


def test_rows_nearest_to_a_row_are_those_of_an_exact_search(committed):
    there = open_neighborhood(committed, read_manifest(committed))
    assert len(there.index) == 90
    found = there.of_key("k50", 5)
    assert found.column_names == ["id", "similarity", "label", "shop"]
    expected = [row for row in truth(VECTORS[50], 6) if row != 50]
    assert found.column("id").to_pylist() == [f"k{row}" for row in expected]
    assert found.column("shop").to_pylist() == ["a" if row < 45 else None for row in expected]
    cosines = unit_rows(VECTORS[expected]) @ unit_rows(VECTORS[50:51])[0]
    assert np.abs(np.array(found.column("similarity")) - cosines).max() < 2e-3


def test_the_index_is_built_once_and_goes_with_its_version(committed):
    manifest = read_manifest(committed)
    first = open_neighborhood(committed, manifest)
    paths = index_paths("v1")
    assert all(committed.exists(path) for path in paths)
    committed.remove([file.path for file in manifest.files])
    again = open_neighborhood(committed, manifest)
    assert again.rows.equals(first.rows)
    assert again.of_key("k7", 9).equals(first.of_key("k7", 9))
    assert find_garbage(committed).paths == []
    lease = acquire(committed, "test")
    commit_manifest(committed, replace(manifest, version="v2", files=(), parent=1), lease)
    assert set(paths) <= set(find_garbage(committed).paths)


class FakeFuser:
    """Says which values it was handed, by the row whose vector it gives."""

    @classmethod
    def load(cls, _folder, **_options):
        return cls()

    def encode(self, values):
        assert set(values) <= {"text", "image"}
        return VECTORS[[len(values) * 10 + len(next(iter(values.values()))[0])]]


def invoke(committed, *arguments):
    endpoint = ["--endpoint-url", committed.endpoint_url] if committed.endpoint_url else []
    return CliRunner().invoke(app, ["neighbors", committed.uri(), *arguments, *endpoint])


def test_the_command_looks_up_keys_texts_and_pictures(committed, monkeypatch, tmp_path):
    monkeypatch.setattr("barycenter.tasks.data.new_rows.Fuser", FakeFuser)
    picture = tmp_path / "p.png"
    picture.write_bytes(b"1234567")
    for arguments, row in (
        (["--key", "k3"], None),
        (["--text", "abcde"], 15),
        (["--image", str(picture)], 17),
        (["--text", "abc", "--image", str(picture)], 23),
    ):
        result = invoke(committed, *arguments, "--top", "4")
        assert result.exit_code == 0, result.output
        lines = result.stdout.splitlines()
        assert lines[0].split() == ["id", "similarity", "label", "shop"]
        assert len(lines) == 5
        expected = truth(VECTORS[3], 5)[1:] if row is None else truth(VECTORS[row], 4)
        assert [line.split()[0] for line in lines[1:]] == [f"k{at}" for at in expected]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to look for"),
        (["--key", "k1", "--text", "x"], "give either a key, or a text"),
        (["--key", "nobody"], "no row has the key 'nobody'"),
        (["--image", "/no/such.png"], "/no/such.png cannot be read"),
    ],
)
def test_a_wrong_flag_is_one_line(tmp_path, arguments, message):
    storage = Storage(str(tmp_path / "out"))
    storage.write_table("features/v1/p.parquet", pa.table({"id": ["a"], "fused": vectors_to_array(VECTORS[:1])}))
    files = (FeatureFile("features/v1/p.parquet", 1),)
    manifest = Manifest(version="v1", key="id", dim=16, dtype="float32", inputs=INPUTS, files=files)
    commit_manifest(storage, manifest, acquire(storage, "test"))
    result = CliRunner().invoke(app, ["neighbors", storage.uri(), *arguments])
    assert result.exit_code == 2
    assert len(result.stderr.strip().splitlines()) == 1
    assert message in result.stderr


def test_an_exported_index_is_read_by_faiss(committed, tmp_path):
    path = tmp_path / "far" / "index.faiss"
    result = invoke(committed, "--export", str(path))
    assert result.exit_code == 0, result.output
    index = faiss.read_index(str(path))
    assert (index.ntotal, index.d) == (90, 16)
    _, rows = index.search(unit_rows(VECTORS[:1]), 3)
    keys = pq.read_table(path.with_suffix(".keys.parquet")).column("id").to_pylist()
    assert [keys[row] for row in rows[0]] == [f"k{row}" for row in truth(VECTORS[0], 3)]


def test_one_of_several_inputs_of_a_kind_is_named(committed, monkeypatch):
    monkeypatch.setattr("barycenter.tasks.data.new_rows.Fuser", FakeFuser)
    manifest = json.loads(committed.read("manifest.json"))
    manifest["inputs"]["title"] = manifest["inputs"]["text"]
    committed.write("manifest.json", json.dumps(manifest).encode())
    committed.write(f"manifests/{manifest['number']}.json", json.dumps(manifest).encode())
    refused = invoke(committed, "--text", "abcde")
    assert refused.exit_code == 2
    assert "--text: this data set has several text inputs; name one by --input: text, title" in refused.stderr
    assert invoke(committed, "--text", "abcde", "--input", "text").exit_code == 0
    unknown = invoke(committed, "--text", "abcde", "--input", "name")
    assert "--input: no input 'name'; the inputs are text, image, title" in unknown.stderr
