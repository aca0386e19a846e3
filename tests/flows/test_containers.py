"""The same rows end as the same fused features, byte for byte, whatever container they came in.

Files end where shards do: moments are gathered shard by shard, so other shards give other last bits.
"""

import fsspec
import pytest

from barycenter.infra.job.models import Job
from barycenter.tasks.pipeline import PLAIN
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.workers import THIS_PROCESS
from tests.flows.corpora import read_features
from tests.infra.corpus.formats.test_detection import FORMS, ROWS, write


def features(data):
    """Embeds, aligns and fuses; no report."""
    run = prepare(Job.model_validate(data))
    PLAIN.embed_inputs(run, THIS_PROCESS)
    PLAIN.fuse_inputs(run, THIS_PROCESS)
    return read_features(data)


def job(corpus, key, out, **sections):
    return {
        "name": "containers",
        "corpus": {"path": corpus, "key": key, "rows_per_shard": 6},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing", "batch": 512},
            "image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor", "batch": 16},
        },
        "alignment": {"method": "joint", "dim": 8, "regularization": 0.1},
        "output": {"path": str(out)},
        "ray": {"workers": 1, "threads_per_worker": 1},
        **sections,
    }


def content(table, key):
    """Keys and presence of the rows, and the bytes of their vectors."""
    fused = table.column("fused").combine_chunks().flatten().to_numpy()
    flags = [table.column(f"has_{name}").to_pylist() for name in ("text", "image")]
    return table.column(key).to_pylist(), flags, fused.tobytes()


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    folder = tmp_path_factory.mktemp("containers")
    path, key = write(folder / "corpus", "jsonl", by_label=False)
    table = features(job(f"{folder}/corpus{path}", key, folder / "out"))
    assert table.num_rows == ROWS
    return content(table, key)


@pytest.mark.parametrize("form", [form for form in FORMS if not form.startswith("jsonl") and form != "csv.gz"])
def test_on_disk(form, expected, tmp_path):
    path, key = write(tmp_path / "corpus", form, by_label=False)
    assert content(features(job(f"{tmp_path}/corpus{path}", key, tmp_path / "out")), key) == expected


@pytest.mark.parametrize("form", ["jsonl.zst", "hive", "tar"])
def test_on_s3(form, expected, tmp_path, s3_server, s3_bucket):
    path, key = write(tmp_path / "corpus", form, by_label=False)
    remote = fsspec.filesystem("s3", endpoint_url=s3_server, skip_instance_cache=True)
    remote.put(f"{tmp_path}/corpus/", f"{s3_bucket}/c/", recursive=True)
    storage = {"storage": {"endpoint_url": s3_server}}
    there = features(job(f"s3://{s3_bucket}/c{path}", key, tmp_path / "out", **storage))
    assert content(there, key) == expected
