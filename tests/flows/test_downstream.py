import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.flows.downstream import HeadConfig, downstream
from barycenter.fusion.dataset import FusedRows
from barycenter.fusion.fuser import Fuser
from barycenter.infra.storage import Storage
from barycenter.infra.versions.manifests import read_manifest
from barycenter.tasks.data.labeled_rows import HeadInputs, read_file
from barycenter.tasks.heads.predict import find_head
from barycenter.tasks.heads.stage import load_head
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with a gated head whose features hold no aligned vectors, partitioned, some inputs missing."""
    folder = tmp_path_factory.mktemp("gated")
    rows = text_and_vector_rows(120)
    for number, row in enumerate(rows):
        row["text"] = None if number % 10 == 3 else row["text"]
        row["vec"] = None if number % 10 == 7 else row["vec"]
    rows[11]["id"] = rows[10]["id"]
    corpus = write_lines(folder / "rows.jsonl", rows)
    job = text_and_vector_job(
        corpus, folder / "out", "gated", train={"target": "label", "head": "gated"}, output={"partition_by": ["label"]}
    )
    return folder / "out", rows, run_here(job)


def test_the_job_trains_the_head_it_names(trained):
    out, _, report = trained
    assert report["head"]["head"] == "gated"
    assert report["head"]["score"] > 0.8
    _, folder = find_head(Storage(str(out)), report["version"], None)
    files = sorted(path.name for path in (out / folder).rglob("*"))
    assert files == ["head.json", "head.safetensors", "metrics.json", "predictions.parquet"]


def test_aligned_vectors_are_those_that_the_average_is_made_of(trained):
    out, _, _ = trained
    storage = Storage(str(out))
    manifest = read_manifest(storage)
    inputs = HeadInputs(storage, manifest, "gated")
    for file in manifest.files:
        table = read_file(storage, manifest, file, ["id", "fused", "has_text", "has_vec"])
        aligned = inputs.of(table)
        fused = np.stack(table.column("fused").to_numpy())
        both = table.column("has_text").to_numpy() & table.column("has_vec").to_numpy()
        np.testing.assert_allclose((aligned["text"] + aligned["vec"])[both] / 2, fused[both], atol=1e-5)
        for name, vectors in aligned.items():
            assert np.array_equal(~np.isnan(vectors[:, 0]), table.column(f"has_{name}").to_numpy())


def test_predict_writes_every_row(trained, tmp_path):
    out, rows, report = trained
    result = CliRunner().invoke(app, ["predict", str(out), "--out", str(tmp_path / "all.parquet")])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:2] == ["rows         119", "head         gated, classification"]
    made = pq.read_table(tmp_path / "all.parquet")
    assert made.column_names == ["id", "target", "prediction", "probability", "split", "has_text", "has_vec"]
    predicted = made.to_pydict()
    assert len(predicted["id"]) == len(set(predicted["id"])) == report["rows"]["written"] == 119
    truth = {row["id"]: row["label"] for number, row in enumerate(rows) if number != 11}
    assert dict(zip(predicted["id"], predicted["target"], strict=True)) == truth
    assert np.mean([a == b for a, b in zip(predicted["target"], predicted["prediction"], strict=True)]) > 0.85
    assert all(0 < p <= 1 for p in predicted["probability"])
    tested = pq.read_table(next(out.glob("head/*/*/predictions.parquet"))).to_pylist()
    by_key = {row["id"]: row for row in made.to_pylist()}
    assert {row["id"] for row in tested} == {key for key, row in by_key.items() if row["split"] == "test"}
    assert 0 < len(tested) < 119
    for row in tested:
        there = {name: value for name, value in by_key[row["id"]].items() if not name.startswith("has_")}
        assert there == row | {"probability": pytest.approx(row["probability"])}


def test_predict_gives_new_rows_what_it_gives_those_of_the_features(trained, tmp_path):
    out, _, _ = trained
    for name, more in (("all", []), ("new", ["--on", str(out.parent / "rows.jsonl")])):
        result = CliRunner().invoke(app, ["predict", str(out), *more, "--out", str(tmp_path / f"{name}.parquet")])
        assert result.exit_code == 0, result.output
    known, new = (pq.read_table(tmp_path / f"{name}.parquet").to_pylist() for name in ("all", "new"))
    known, new = ({row["id"]: row for row in reversed(rows)} for rows in (known, new))  # of a key the first row counts
    assert new.keys() == known.keys()
    assert "split" not in new["r0000"]
    for key, row in new.items():
        assert known[key] | {"probability": None} == row | {"probability": None, "split": known[key]["split"]}
        assert row["probability"] == pytest.approx(known[key]["probability"], abs=1e-4)


def test_what_predict_cannot_find_is_reported(trained, tmp_path):
    out, _, _ = trained
    for arguments, code, words in (
        ([str(tmp_path)], 1, "nothing has been committed"),
        ([str(out), "--head", "mlp"], 1, "no mlp head is trained"),
        ([str(out), "--head", f"{tmp_path}/none"], 1, "holds no trained head"),
    ):
        result = CliRunner().invoke(app, ["predict", *arguments])
        assert result.exit_code == code
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1


def test_the_heads_that_predict_offers_are_found_by_those_names(trained, tmp_path):
    out = shutil.copytree(trained[0], tmp_path / "out")
    (folder,) = out.glob("head/*/*")
    shutil.copytree(folder, folder.with_name("another"))
    result = CliRunner().invoke(app, ["predict", str(out)])
    assert result.exit_code == 2
    offered = result.stderr.strip().partition("name one: ")[2].split(", ")
    assert sorted(each.partition(" ")[0] for each in offered) == sorted(["another", folder.name])
    for name in ("another", str(folder.relative_to(out)), str(folder)):
        result = CliRunner().invoke(app, ["predict", str(out), "--head", name, "--out", str(tmp_path / "made.parquet")])
        assert result.exit_code == 0, result.stderr


def test_another_team_trains_from_the_manifest_alone(trained, prefect_server, tmp_path):
    out, _, _ = trained
    made = downstream(dataset=str(out), head={"train": {"target": "label"}}, out=str(tmp_path / "theirs"))
    assert made["metrics"]["head"] == "linear"
    assert made["metrics"]["score"] > 0.8
    assert made["predictions"]["rows"] == 119
    assert Path(made["predictions"]["path"]).is_file()
    assert load_head(Storage(made["head"]), "").task_ == "classification"
    assert len(list(out.glob("head/*/*"))) == 1, "the data set itself is left alone"
    with pytest.raises(Exception, match=r"train.target: 'color' is no column of the features; they keep label"):
        downstream(str(out), HeadConfig(train={"target": "color"}), str(tmp_path / "theirs"))


def test_new_rows_get_the_vectors_that_the_job_wrote(trained):
    out, rows, _ = trained
    fuser = Fuser.load(out)
    encoded = fuser.encode({"text": [row["text"] for row in rows], "vec": [row["vec"] for row in rows]})
    by_key = {row["id"]: vector for row, vector in reversed(list(zip(rows, encoded, strict=True)))}
    written = FusedRows(out).read()
    np.testing.assert_allclose(np.stack([by_key[key] for key in written["key"]]), written["fused"].numpy(), atol=1e-5)
    assert not all(written["has"]["text"])
    alone = fuser.encode({"text": [rows[0]["text"], None, "  "]})
    assert alone.shape == (3, 8)
    assert np.isnan(alone).all(axis=1).tolist() == [False, True, True]
    np.testing.assert_allclose(alone[0], fuser.encode({"text": [rows[0]["text"]], "vec": [None]})[0], atol=1e-6)
    assert fuser.embed({"text": ["  "]})["text"].reasons == ["empty"]
