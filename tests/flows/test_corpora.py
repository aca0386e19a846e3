"""One job over six inputs, some with tables of their own, some with several values a row."""

import json
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from barycenter.fusion.encoders import EncoderSpec, load
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.tasks.planning.plan import describe_plan, prepare
from tests.flows.corpora import WORDS, output, read_features, run_here, vectors, write_lines

ROWS, PICTURES = 120, 8


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Questions about few pictures, some of them files and some listed in other tables."""
    folder = tmp_path_factory.mktemp("corpora")
    rng = np.random.default_rng(0)
    (folder / "shelf" / "deep").mkdir(parents=True)
    for number in range(PICTURES):
        pixels = rng.integers(0, 255, (40, 40, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"p{number}.png")
        Image.fromarray(pixels[::-1]).save(folder / "shelf" / "deep" / f"q{number}.png")
    (folder / "shelf" / "deep" / "bad.png").write_bytes(b"no picture")
    rows = [
        {
            "id": f"r{row:03d}",
            "question": " ".join(rng.choice(WORDS, 3)),
            "answers": [str(word) for word in rng.choice(WORDS, 2)] if row else ["plate", ""],
            "photo": f"p{row % PICTURES}.png",
            "group": f"g{row % PICTURES}",
            "label": f"class {row % 3}",
        }
        for row in range(ROWS)
    ]
    write_lines(folder / "rows.jsonl", rows)
    notes = [
        {"note_of": row["id"], "note": f"{row['label']} {row['question']}"} for row in rows[::-1] if row["id"] > "r009"
    ]
    write_lines(folder / "notes.jsonl", [*notes, {"note_of": "alone", "note": "a note of nothing"}])
    shelf = [{"id": f"r{row:03d}", "file": f"q{(row + k) % PICTURES}.png"} for k in range(2) for row in range(ROWS)]
    write_lines(folder / "shelf" / "deep" / "list.jsonl", [*shelf, {"id": "r001", "file": "bad.png"}])
    flat = rng.standard_normal((ROWS, 2, 5)).astype(np.float32)
    lists = pa.array(flat.tolist(), pa.list_(pa.list_(pa.float32(), 5)))
    pq.write_table(pa.table({"id": [row["id"] for row in rows], "vec": lists}), folder / "vectors.parquet")
    return folder


@pytest.fixture(scope="module")
def done(corpus, tmp_path_factory):
    """The job and its report."""
    text = {"kind": "text", "encoder": "builtin/hashing", "batch": 512}
    image = {"kind": "image", "encoder": "builtin/descriptor", "batch": 16}
    job = {
        "name": "six",
        "corpus": {"path": str(corpus / "rows.jsonl"), "key": "id", "keep": ["label", "group"], "rows_per_shard": 50},
        "inputs": {
            "question": {**text, "column": "question"},
            "answers": {**text, "column": "answers"},
            "note": {**text, "column": "note", "corpus": {"path": str(corpus / "notes.jsonl"), "key": "note_of"}},
            "photo": {**image, "column": "photo"},
            "shelf": {**image, "column": "file", "corpus": {"path": str(corpus / "shelf")}},
            "vec": {"kind": "vector", "column": "vec", "corpus": {"path": str(corpus / "vectors.parquet")}},
        },
        "alignment": {"dim": 8, "method": "joint", "regularization": 1.0, "folds": 2},
        "output": {"path": str(tmp_path_factory.mktemp("six"))},
        "ray": {"workers": 1, "threads_per_worker": 1},
    }
    return job, run_here(job)


def embedded(job, name):
    """{key: row} of one input's embedding files."""
    folder = Path(job["output"]["path"]) / "embeddings" / name
    files = sorted(folder.rglob("*.parquet"))
    return {row["key"]: row for file in files for row in pq.read_table(file).to_pylist()}


def test_rows_of_one_table_only_are_kept(done):
    job, report = done
    features = read_features(job)
    rows = {row["id"]: row for row in features.to_pylist()}
    assert report["rows"]["read"] == report["rows"]["written"] == features.num_rows == ROWS + 1
    alone = rows["alone"]
    assert [alone[f"has_{name}"] for name in job["inputs"]] == [False, False, True, False, False, False]
    assert (alone["label"], rows["r005"]["has_note"], rows["r050"]["has_note"]) == (None, False, True)
    assert report["speed"]["join"]["matches"]["note"] == {"both": ROWS - 10, "table_only": 1}
    assert np.isfinite(vectors(features)).all()
    assert sorted(features.column("id").to_pylist()) == sorted(rows)


def test_several_values_are_averaged_and_counted(done, corpus):
    job, _ = done
    rows = {row["id"]: row for row in read_features(job).to_pylist()}
    counts = [name for name in rows["r001"] if name.startswith("count_")]
    assert counts == ["count_answers", "count_note", "count_shelf", "count_vec"]
    assert [rows["r000"][name] for name in counts] == [1, 0, 2, 2]
    assert rows["alone"]["count_shelf"] == 0
    answers = [json.loads(line) for line in (corpus / "rows.jsonl").read_text().splitlines()][7]["answers"]
    encoder = load(EncoderSpec("text", "builtin/hashing"))
    expected = encoder.encode([encoder.prepare(answer) for answer in answers]).mean(axis=0)
    assert np.abs(np.array(embedded(job, "answers")["r007"]["vector"]) - expected).max() < 1e-6
    [(_, stored)] = duckdb.sql(f"select id, vec from '{corpus}/vectors.parquet' where id = 'r007'").fetchall()
    assert np.abs(np.array(embedded(job, "vec")["r007"]["vector"]) - np.mean(stored, axis=0)).max() < 1e-6


def test_a_bad_value_is_a_reject_and_the_row_is_kept(done):
    job, report = done
    manifest = json.loads(output(job).read("manifest.json"))
    lines = [line for path in manifest["rejects"] for line in output(job).read_table(path).to_pylist()]
    [picture] = [line for line in lines if line["input"] == "shelf" and line["key"] != "alone"]
    assert (picture["key"], picture["reason"]) == ("r001", "not_an_image")
    assert picture["detail"].startswith("value 3")
    assert picture["source"] == "deep/bad.png"
    [answer] = [line for line in lines if line["input"] == "answers" and line["key"] != "alone"]
    assert (answer["key"], answer["reason"], answer["detail"]) == ("r000", "empty", "value 2")
    assert report["rows"]["missing"]["shelf"] == 1


def test_each_picture_is_encoded_once_in_a_shard(done):
    job, report = done
    shards = len(json.loads(output(job).read("manifest.json"))["shards"])
    speed = report["speed"]
    assert speed["embed photo"]["encoded"] <= shards * (PICTURES + 1)
    assert speed["embed shelf"]["encoded"] <= shards * (PICTURES + 2)
    assert speed["embed vec"]["encoded"] > 2 * ROWS


def test_a_second_run_joins_and_embeds_nothing(done):
    job, _ = done
    run = prepare(Job.model_validate(job))
    plan = describe_plan(run)
    assert not plan["unjoined"]
    assert all(figures["shards_left"] == 0 for figures in plan["inputs"].values())
    assert not [path for path in Storage(job["output"]["path"]).list("corpus") if "spill" in path]


def test_another_column_under_the_same_name_is_embedded_beside(done):
    job, _ = done
    inputs = job["inputs"] | {"question": job["inputs"]["question"] | {"column": "label"}}
    plan = describe_plan(prepare(Job.model_validate({**job, "inputs": inputs})))
    left = {name: figures["shards_left"] for name, figures in plan["inputs"].items()}
    assert left.pop("question") == plan["shards"]
    assert not any(left.values())
