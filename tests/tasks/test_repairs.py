"""Embedding files that are made again in place, under a run that reads them."""

import json

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.dispatch.api import run_all
from barycenter.infra.versions.embedding_files import Repairs, embedding_path
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.identities import embedding_ids
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines
from tests.tasks.identity_runs import in_this_process, run_job


@pytest.fixture
def data(tmp_path, monkeypatch):
    in_this_process(monkeypatch)
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(60))
    job = text_and_vector_job(corpus, tmp_path / "out", "repairs", train={"target": "label"})
    job["inputs"].pop("text")
    return job | {"alignment": {"method": "pca", "dim": 3}}


def mend(data):
    """Another run makes the first shard's file again; it comes out different."""
    from barycenter.infra.job.models import Job

    run = prepare(Job.model_validate(data))
    path = embedding_path("vec", embedding_ids(run)["vec"], run.shards[0].id)
    other = Repairs(run.storage, [path])
    run.storage.write_table(path, run.storage.read_table(path).set_column(4, "reason", [["mended"] * 20]))
    other.settle()


def test_features_of_embeddings_before_and_after_a_repair_are_not_committed(data, monkeypatch):
    def mending(*args, **options):
        run_all(*args, **options)
        mend(data)

    with monkeypatch.context() as patch:
        patch.setattr("barycenter.tasks.fuse.stage.run_all", mending)
        with pytest.raises(RunError, match="another run made embeddings again"):
            run_job(data)
    report = run_job(data)
    assert report["rows"]["written"] == 60


def test_a_repair_by_another_run_makes_another_version(data, tmp_path):
    first = run_job(data)
    mend(data)
    second = run_job(data)
    assert second["version"] != first["version"]
    assert second["alignment"]["kept"]
    assert run_job(data)["version"] == second["version"]
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["number"] == 2
