"""The whole pipeline on tiny corpora: one job on a real Ray and Prefect server, its variations in this process."""

import json
import time
from pathlib import Path
from urllib.parse import unquote

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    ArtifactFilterKey,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterName,
)
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

from barycenter.fusion.errors import RunError
from barycenter.infra.demo import demo_job, write_demo_corpus
from barycenter.infra.versions.manifests import read_manifest, verify, versions
from tests.flows.corpora import (
    output,
    read_features,
    run_here,
    run_pipeline,
    text_and_vector_job,
    text_and_vector_rows,
    vectors,
    write_lines,
)
from tests.flows.secrets import files_with_marks, marked_environment, marks_in

ROWS = 150


@pytest.fixture(scope="module")
def two_vectors(tmp_path_factory):
    """Sixty rows of two inputs of equal width, as a Parquet file, and the inputs themselves."""
    folder = tmp_path_factory.mktemp("vectors")
    left, right = np.random.default_rng(3).uniform(-1, 1, (2, 60, 5)).astype(np.float32)
    table = pa.table(
        {
            "id": [f"v{row}" for row in range(60)],
            "left": pa.array(left.tolist(), pa.list_(pa.float32(), 5)),
            "right": pa.array(right.tolist(), pa.list_(pa.float32())),
        }
    )
    pq.write_table(table, folder / "rows.parquet")
    return folder, left.astype(np.float64), right.astype(np.float64)


@pytest.mark.parametrize(
    "average", [{"method": "mean"}, {"method": "weighted", "weights": {"left": 3.0, "right": 1.0}}]
)
def test_none_is_the_average_itself(two_vectors, average, tmp_path):
    folder, left, right = two_vectors
    inputs = {name: {"kind": "vector", "column": name, "batch": 16} for name in ("left", "right")}
    job = {
        "name": "none",
        "corpus": {"path": str(folder / "rows.parquet"), "key": "id", "rows_per_shard": 25},
        "inputs": inputs,
        "alignment": {"method": "none"},
        "average": average,
        "output": {"path": str(tmp_path)},
        "ray": {"workers": 1, "threads_per_worker": 1},
    }
    report = run_here(job)
    features = read_features(job)
    assert report["rows"]["written"] == features.num_rows == 60
    assert features.column("id").to_pylist() == [f"v{row}" for row in range(60)]
    assert features.schema.field("fused").type.list_size == 5
    expected = (left + right) / 2 if average["method"] == "mean" else (3 * left + right) / 4
    assert np.abs(vectors(features) - expected).max() <= 1e-7


@pytest.fixture(scope="module")
def marked_catalog(tmp_path_factory, ray_session, prefect_server):
    """The demo's corpus, smaller and partitioned: its job, its report and what was logged, with secrets around."""
    folder = tmp_path_factory.mktemp("catalog")
    corpus = write_demo_corpus(folder / "corpus", rows=ROWS)
    job = demo_job(corpus, folder / "out")
    job |= {"name": "catalog", "alignment": {"dim": 24}}
    job["corpus"] |= {"rows_per_shard": 60}
    job["output"] |= {"partition_by": ["label"]}
    job["inputs"]["text"]["batch"], job["inputs"]["image"]["batch"] = 512, 16
    job["ray"] = {"workers": 1, "threads_per_worker": 1}
    with marked_environment() as logged:
        report = run_pipeline(job)
    return job, report, logged


@pytest.fixture(scope="module")
def catalog(marked_catalog):
    """Its job and its report."""
    return marked_catalog[:2]


def test_secrets_of_the_environment_are_nowhere(marked_catalog):
    """Not in the output, in no log, in nothing that Prefect and Ray keep."""
    job, _, logged = marked_catalog
    assert len(logged) > 100
    assert [line for line in logged if marks_in(line)] == []
    session = Path(ray._private.worker.global_worker.node.get_session_dir_path())
    assert list((session / "logs").glob("worker-*"))
    database = Path(str(PREFECT_API_DATABASE_CONNECTION_URL.value()).partition("///")[2])
    assert b"catalog" in database.read_bytes()
    assert list(files_with_marks([Path(job["output"]["path"]).parent, session, database.parent])) == []
    assert marks_in(str([ray._private.state.jobs(), ray._private.state.actors(), ray.nodes()])) == []


def test_report_json_has_every_key(catalog):
    job, returned = catalog
    report = json.loads(output(job).read("report/report.json"))
    assert report == json.loads(json.dumps(returned))
    assert set(report["rows"]) >= {"read", "written", "rejected", "missing", "bad"}
    assert set(report["rows"]["missing"]) == {"text", "image"}
    assert set(report["alignment"]) >= {"method", "dim", "regularization", "heldout_correlations", "chosen_by"}
    assert len(report["alignment"]["heldout_correlations"]) > 0
    for pair in ("text->image", "image->text"):
        figures = report["retrieval"][pair]
        assert set(figures) >= {"r1", "r5", "r10", "mrr"}
        assert 0 <= figures["r1"] <= figures["r5"] <= figures["r10"] <= 1
    assert 0 < report["retrieval"]["chance_r10"] <= 1
    probe = report["probe"]
    assert set(probe) >= {"metric", "n_test", "candidates"}
    names = {"text", "image", "naive_mean", "pca_mean", "concat", "concat_imputed", "fused"}
    assert set(probe["candidates"]) >= names
    for name in names - {"text", "image"}:
        assert set(probe["candidates"][name]) >= {"complete", "without text", "without image"}
    assert all(0 <= probe["candidates"][name]["complete"] <= 1 for name in names)
    assert set(report["speed"]) >= {"embed text", "embed image", "align", "fuse"}
    for figures in report["speed"].values():
        assert set(figures) >= {"rows", "seconds", "rows_per_s"}
    assert report["speed"]["embed text"]["rows"] == ROWS


def test_rows_add_up_and_every_reader_counts_them(catalog):
    job, report = catalog
    rows = report["rows"]
    assert rows["read"] == ROWS == rows["written"] + rows["rejected"]
    folder = Path(job["output"]["path"]) / "features" / report["version"]
    counted = duckdb.sql(f"SELECT count(*) FROM read_parquet('{folder}/**/*.parquet', hive_partitioning=true)")
    assert counted.fetchall() == [(rows["written"],)]
    table = pq.read_table(folder)
    assert table.num_rows == rows["written"]
    assert table.column("fused").null_count == 0
    assert np.isfinite(vectors(table)).all()
    for name in ("text", "image"):
        assert table.column(f"has_{name}").to_pylist().count(False) == rows["missing"][name]


def test_bad_inputs_are_listed_with_their_reason(catalog):
    job, report = catalog
    rejects = pa.concat_tables(output(job).read_table(path) for path in read_manifest(output(job)).rejects)
    assert set(rejects.column_names) >= {"key", "input", "reason", "detail", "source"}
    assert rejects.num_rows == sum(report["rows"]["bad"].values())
    lines = [json.loads(line) for line in Path(job["corpus"]["path"]).read_text().splitlines()]
    without_text = {line["id"] for line in lines if line["text"] is None}
    listed = {row["key"] for row in rejects.to_pylist() if row["input"] == "text" and row["reason"] == "null"}
    assert listed == without_text
    assert without_text
    images = {row["reason"] for row in rejects.to_pylist() if row["input"] == "image"}
    assert images >= {"null", "file_missing", "truncated"}


def test_partitions_hold_their_rows(catalog):
    job, report = catalog
    lines = [json.loads(line) for line in Path(job["corpus"]["path"]).read_text().splitlines()]
    labels = {line["id"]: line["label"] for line in lines}
    folder = Path(job["output"]["path"]) / "features" / report["version"]
    table = pq.read_table(folder)
    assert table.num_rows
    for key, label in zip(table.column("id").to_pylist(), table.column("label").to_pylist(), strict=True):
        assert labels[key] == label
    assert {path.parent.name.partition("=")[0] for path in folder.rglob("*.parquet")} == {"label"}
    first = next(folder.rglob("*.parquet"))
    assert set(pq.read_table(first, partitioning=None).column("label").to_pylist()) == {unquote(first.parent.name[6:])}


def test_the_manifest_verifies_and_damage_shows(catalog, tmp_path):
    job, _ = catalog
    storage = output(job)
    manifest = read_manifest(storage)
    assert verify(storage, manifest) == []
    assert read_manifest(storage, 1).files == manifest.files
    path = Path(job["output"]["path"]) / manifest.files[0].path
    content = path.read_bytes()
    try:
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert len(verify(storage, manifest)) == 1
    finally:
        path.write_bytes(content)


def test_feature_metadata_says_no_path_and_no_time(catalog):
    job, _ = catalog
    folder = Path(job["output"]["path"])
    metadata = pq.read_schema(folder / read_manifest(output(job)).files[0].path).metadata
    text = b" ".join(metadata.values())
    assert str(folder).encode() not in text
    assert job["corpus"]["path"].encode() not in text
    assert read_manifest(output(job)).alignment_id.encode() in text


def test_pages_and_pictures_of_the_report_are_there(catalog):
    job, _ = catalog
    folder = Path(job["output"]["path"]) / "report"
    assert (folder / "report.html").stat().st_size > 1000
    assert list(folder.glob("*.png"))


def test_the_server_knows_the_run_its_tasks_and_the_report(catalog):
    job, report = catalog
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=FlowRunFilter(name=FlowRunFilterName(any_=[job["name"]])))
        assert runs
        assert all(run.state is not None and run.state.is_completed() for run in runs)
        ids = [run.id for run in runs]
        expected = {"embed text", "embed image", "align", "fuse", "train", "report"}
        until = time.monotonic() + 60
        while True:  # the server learns of task runs through a queue
            tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)))
            text = " ".join(task.name for task in tasks)
            if all(name in text for name in expected) or time.monotonic() > until:
                break
            time.sleep(0.5)
        assert all(name in text for name in expected), text
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(
                key=ArtifactFilterKey(any_=[f"{job['name']}-report"]), flow_run_id=ArtifactFilterFlowRunId(any_=ids)
            )
        )
    assert artifacts
    assert f"{report['rows']['written']:,}" in str(artifacts[0].data)


def test_a_rerun_embeds_nothing_and_commits_nothing(catalog):
    job, first = catalog
    storage = output(job)
    before = {path.name: path.stat().st_mtime_ns for path in Path(job["output"]["path"], "features").rglob("*.parquet")}
    again = run_here(job)
    assert again["speed"]["embed text"]["rows"] == again["speed"]["embed image"]["rows"] == 0
    assert again["version"] == first["version"]
    assert again["rows"] == first["rows"]
    assert versions(storage) == [1]
    after = {path.name: path.stat().st_mtime_ns for path in Path(job["output"]["path"], "features").rglob("*.parquet")}
    assert after == before


def test_a_changed_file_embeds_only_its_shards(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("barycenter.tasks.align.drift._SHIFT", 0.0)  # any is worth a warning
    monkeypatch.setattr("barycenter.tasks.align.drift._SIGMAS", 0.0)
    folder = tmp_path / "corpus"
    write_lines(folder / "a.jsonl", text_and_vector_rows(60))
    write_lines(folder / "b.jsonl", text_and_vector_rows(50, first=60))
    job = text_and_vector_job(folder, tmp_path / "out", "two files")
    first = run_here(job)
    assert first["speed"]["embed text"]["rows"] == 110
    write_lines(
        folder / "b.jsonl", [row | {"text": row["text"] + " again"} for row in text_and_vector_rows(45, first=60)]
    )
    second = run_here(job)
    assert second["speed"]["embed text"]["rows"] == second["speed"]["embed vec"]["rows"] == 45
    assert second["speed"]["embed text"]["shards"] == 3
    assert second["rows"]["read"] == 105
    assert second["version"] != first["version"]
    assert second["alignment"]["drift"]["new_shards"] == 3
    assert set(second["alignment"]["drift"]["mean_shift"]) == {"text", "vec"}
    assert "drift" not in first["alignment"]
    drifted = [line for line in second["warnings"] if line.startswith("drift: ")]
    assert drifted
    assert drifted == [record.message for record in caplog.records if record.message.startswith("drift: ")]
    assert versions(output(job)) == [1, 2]
    assert verify(output(job), read_manifest(output(job))) == []
    assert verify(output(job), read_manifest(output(job), 1)) == []


@pytest.fixture(scope="module")
def flawed(tmp_path_factory):
    """Forty rows: r0003's key twice more, two without a key, four without text, one with a wrong vector."""
    rows = text_and_vector_rows(40)
    rows[10]["id"] = rows[35]["id"] = "r0003"
    rows[20]["id"] = rows[21]["id"] = None
    for row in rows[25:29]:
        row["text"] = None
    rows[30]["vec"] = [1.0, 2.0]
    rows[31] |= {"text": None, "vec": None}
    return write_lines(tmp_path_factory.mktemp("flawed") / "rows.jsonl", rows)


def test_keep_writes_what_has_one_good_input(flawed, tmp_path):
    job = text_and_vector_job(flawed, tmp_path, "keep", output={"keep_aligned": True, "dtype": "float16"})
    rows = run_here(job)["rows"]
    assert (rows["read"], rows["written"], rows["rejected"]) == (40, 35, 5)
    assert rows["missing"] == {"text": 4, "vec": 1}
    bad = {"duplicate_key": 2, "null_key": 2, "null": 6, "wrong_length": 1}
    assert rows["bad"] == bad
    features = read_features(job)
    keys = features.column("id").to_pylist()
    assert len(keys) == len(set(keys)) == 35
    assert keys == sorted(keys)
    third = features.filter(pa.compute.equal(features.column("id"), "r0003")).to_pylist()[0]
    assert third["label"] == json.loads(Path(flawed).read_text().splitlines()[3])["label"]
    assert str(features.schema.field("fused").type.value_type) == "halffloat"
    assert features.column("aligned_text").null_count == 4
    assert features.column("aligned_vec").null_count == 1


def test_drop_writes_complete_rows_only(flawed, tmp_path):
    job = text_and_vector_job(flawed, tmp_path, "drop") | {"on_bad_input": "drop"}
    rows = run_here(job)["rows"]
    assert (rows["read"], rows["written"], rows["rejected"]) == (40, 30, 10)
    assert rows["missing"] == {"text": 0, "vec": 0}
    assert all(read_features(job).column("has_text").to_pylist())


def test_fail_stops_before_the_commit(flawed, tmp_path):
    job = text_and_vector_job(flawed, tmp_path, "fail") | {"on_bad_input": "fail"}
    with pytest.raises(RunError, match="on_bad_input"):
        run_here(job)
    assert versions(output(job)) == []
    assert not output(job).exists("manifest.json")


def test_too_many_bad_inputs_stop_before_the_commit(flawed, tmp_path):
    job = text_and_vector_job(flawed, tmp_path, "loss") | {"limits": {"max_bad_fraction": 0.1}}
    with pytest.raises(RunError, match=r"limits\.max_bad_fraction is 0\.1.*nothing was committed"):
        run_here(job)
    assert versions(output(job)) == []
    assert not output(job).exists("manifest.json")
    report = run_here(job | {"limits": {"max_bad_fraction": 0.5}})
    assert report["speed"]["embed text"]["rows"] == 0
    assert report["rows"]["written"] == 35


def test_a_corpus_without_a_key_column_gets_keys(tmp_path):
    rows = [{name: value for name, value in row.items() if name != "id"} for row in text_and_vector_rows(60)]
    corpus = write_lines(tmp_path / "rows.jsonl", rows)
    job = text_and_vector_job(corpus, tmp_path / "out", "keyless")
    job["corpus"].pop("key")
    run_here(job)
    keys = read_features(job).column("key").to_pylist()
    assert len(set(keys)) == 60
    assert all("rows.jsonl" in key for key in keys)
