"""`barycenter encode DIR --on FILE` and `predict DIR --on FILE`: new rows, any input missing."""

import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.fusion.errors import JobError
from barycenter.fusion.fuser import Fuser
from barycenter.tasks.data.new_rows import NewRows
from tests.flows.corpora import read_features, run_here, text_and_vector_rows, vectors

ROWS = 60
COLORS = {"class 0": (200, 30, 30), "class 1": (30, 200, 30), "class 2": (30, 30, 200)}


def picture(row):
    noise = np.random.default_rng(int(row["id"][1:])).integers(-20, 20, (10, 10, 3))
    stream = io.BytesIO()
    Image.fromarray(np.clip(COLORS[row["label"]] + noise, 0, 255).astype(np.uint8)).save(stream, "PNG")
    return stream.getvalue()


def table_of(rows):
    parts = [("train", "test", "validation")[n % 3] if n % 6 else "train" for n in range(len(rows))]
    more = [
        {"title": row["text"].split()[0], "image": picture(row), "split": part}
        for row, part in zip(rows, parts, strict=True)
    ]
    return pa.Table.from_pylist([row | extra for row, extra in zip(rows, more, strict=True)])


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A job of three inputs with a linear head, and its corpus."""
    folder = tmp_path_factory.mktemp("new-rows")
    table = table_of(text_and_vector_rows(ROWS))
    pq.write_table(table, folder / "rows.parquet")
    job = {
        "name": "new",
        "corpus": {"path": str(folder / "rows.parquet"), "key": "id", "keep": ["label", "split"]},
        "inputs": {
            "text": {"kind": "text", "column": ["title", "text"], "encoder": "builtin/hashing"},
            "image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor"},
            "vec": {"kind": "vector", "column": "vec"},
        },
        "alignment": {"method": "joint", "dim": 8, "regularization": 1.0, "folds": 2},
        "output": {"path": str(folder / "out")},
        "train": {"target": "label", "split": "split"},
    }
    run_here(job)
    return job, table, folder


@pytest.fixture
def call(done, tmp_path, monkeypatch):
    """Calls one of the commands in a folder of its own."""
    job, _, _ = done
    monkeypatch.chdir(tmp_path)

    def command(name, *arguments, code=0):
        result = CliRunner().invoke(app, [name, job["output"]["path"], *map(str, arguments)])
        assert result.exit_code == code, result.output
        return result

    return command


def test_the_corpus_itself_gets_the_vectors_that_the_job_wrote(done, call, tmp_path):
    job, _, folder = done
    result = call("encode", "--on", folder / "rows.parquet")
    assert result.stdout.splitlines() == [
        "rows         60",
        "dim          8",
        f"vectors      {tmp_path}/rows.fused.parquet",
    ]
    assert result.stderr == ""
    made, features = pq.read_table(tmp_path / "rows.fused.parquet"), read_features(job)
    assert made.column_names == features.column_names
    np.testing.assert_allclose(vectors(made), vectors(features), atol=1e-6)
    assert made.drop_columns("fused").to_pylist() == features.drop_columns("fused").to_pylist()


def test_inputs_that_a_table_lacks_are_missing(done, call, tmp_path):
    job, table, _ = done
    with (tmp_path / "texts.csv").open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerows(
            [["text", "label"], *zip(table.column("text").to_pylist(), ["x"] * ROWS, strict=True), ["", "y"]]
        )
    result = call("encode", "--on", "texts.csv", "--out", "made/texts.parquet")
    assert "61 of 61 rows without `image`\n" in result.stderr
    assert "1 of 61 rows without `text`\n" in result.stderr
    assert "1 of 61 rows without any input that can be used: null results\n" in result.stderr
    made = pq.read_table(tmp_path / "made" / "texts.parquet")
    assert made.column_names == ["id", "label", "fused", "has_text", "has_image", "has_vec"]
    assert made.column("id").to_pylist()[:2] == ["texts.csv#0", "texts.csv#1"]
    assert made.column("fused")[-1].as_py() is None
    assert made.column("has_image").to_pylist() == [False] * 61
    alone = Fuser.load(job["output"]["path"]).encode(
        {"text": [[None, text] for text in table.column("text").to_pylist()]}
    )
    np.testing.assert_allclose(vectors(made.slice(0, ROWS)), alone, atol=1e-6)


def test_predictions_of_new_rows(done, call, tmp_path):
    new = table_of(text_and_vector_rows(ROWS, first=500))
    labels = [
        "" if n == 0 else "unseen" if n == 1 else label for n, label in enumerate(new.column("label").to_pylist())
    ]
    new = new.drop_columns(["label", "split"]).append_column("label", pa.array(labels))
    images = [b"no picture" if n == 2 else image for n, image in enumerate(new.column("image").to_pylist())]
    pq.write_table(new.drop_columns("image").append_column("image", pa.array(images)), tmp_path / "new.parquet")
    result = call("predict", "--on", "new.parquet")
    assert result.stdout.splitlines()[:2] == ["rows         60", "head         linear, classification"]
    assert "1 of 60 rows without `image`: not_an_image 1 (r0502: " in result.stderr
    made = pq.read_table(tmp_path / "new.predictions.parquet")
    assert made.column_names == ["id", "target", "prediction", "probability", "has_text", "has_image", "has_vec"]
    rows = made.to_pylist()
    assert [row["id"] for row in rows if not row["has_image"]] == ["r0502"]
    assert all(row["has_text"] and row["has_vec"] for row in rows)
    assert [row["id"] for row in rows] == new.column("id").to_pylist()
    assert [row["target"] for row in rows] == [None, *labels[1:]]
    assert np.mean([row["target"] == row["prediction"] for row in rows]) > 0.8
    alike = Fuser.load(done[0]["output"]["path"])
    assert alike.encode({"vec": new.column("vec").to_pylist()}).shape == (ROWS, 8)


def test_predictions_name_the_part_of_the_split(done, call, tmp_path):
    _, table, folder = done
    call("predict", "--on", folder / "rows.parquet", "--out", "new.parquet")
    call("predict", "--out", "all.parquet")
    new, rows = pq.read_table("new.parquet"), pq.read_table("all.parquet")
    has = ["has_text", "has_image", "has_vec"]
    assert new.column_names == ["id", "target", "prediction", "probability", "split", *has]
    expected = [part if part != "validation" else "other" for part in table.column("split").to_pylist()]
    assert new.column("split").to_pylist() == rows.column("split").to_pylist() == expected
    assert new.drop_columns("probability").equals(rows.drop_columns("probability"))
    np.testing.assert_allclose(new.column("probability"), rows.column("probability"), atol=1e-5)


def test_a_row_without_inputs_has_no_prediction(call, tmp_path):
    pq.write_table(pa.table({"id": ["a", "b"], "text": ["red kite", None]}), tmp_path / "new.parquet")
    call("predict", "--on", "new.parquet")
    first, second = pq.read_table(tmp_path / "new.predictions.parquet").to_pylist()
    nothing, inputs = {"id": "b", "prediction": None, "probability": None}, ("has_text", "has_image", "has_vec")
    assert (first["prediction"] in COLORS, second) == (True, nothing | dict.fromkeys(inputs, False))


def test_a_folder_of_pictures(done, call, tmp_path):
    for row in text_and_vector_rows(6, first=900):
        (tmp_path / "photos").mkdir(exist_ok=True)
        (tmp_path / "photos" / f"{row['label']}-{row['id']}.png").write_bytes(picture(row))
    call("predict", "--on", "photos", "--out", "made.parquet")
    rows = pq.read_table(tmp_path / "made.parquet").to_pylist()
    assert [row["id"] for row in rows] == sorted(path.name for path in (tmp_path / "photos").iterdir())
    assert np.mean([row["id"].startswith(row["prediction"]) for row in rows]) > 0.8


@pytest.mark.parametrize(
    ("content", "arguments", "words"),
    [
        ({"other": [1]}, ["--on", "new.parquet"], "--on: {}/new.parquet has no column of any input; the inputs read "),
        ({"text": ["a"]}, ["--on", "none.parquet"], "--on: {}/none.parquet: there is no such file or folder"),
        ({"text": ["a"]}, ["--on", ".", "--out", "made.parquet"], "--out: {}/made.parquet lies inside the rows {}"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["predict", "encode"])
def test_what_cannot_be_is_refused_in_a_line(call, tmp_path, command, content, arguments, words):
    pq.write_table(pa.table(content), tmp_path / "new.parquet")
    line = call(command, *arguments, code=2).stderr
    assert line.startswith("barycenter: " + words.replace("{}", str(tmp_path)))
    assert len(line.splitlines()) == 1


def test_pictures_outside_and_of_the_web_need_a_flag(call, tmp_path, monkeypatch):
    monkeypatch.setattr("barycenter.infra.corpus.pictures.sources.fetch", lambda *_: b"no picture")
    (tmp_path / "rows").mkdir()
    (tmp_path / "a.png").write_bytes(picture({"id": "r1", "label": "class 0"}))
    table = pa.table({"id": ["a", "b"], "image": ["../a.png", "https://127.0.0.1:9/b.png"]})
    pq.write_table(table, tmp_path / "rows" / "new.parquet")
    line = call("encode", "--on", "rows/new.parquet").stderr
    assert "2 of 2 rows without `image`: outside_corpus 1 (a: " in line
    assert "http_not_allowed 1 (b: " in line
    assert "--outside-corpus allows it" in line
    assert "limits." not in line
    line = call("encode", "--on", "rows/new.parquet", "--outside-corpus", "--http").stderr
    assert "1 of 2 rows without `image`: not_an_image 1 (b: " in line


def test_rows_that_cannot_be_read_and_values_that_do_not_fit(call, tmp_path):
    (tmp_path / "new.csv").write_text("id,text\na,red kite\nb,two,fields more\n")
    line = call("encode", "--on", "new.csv").stderr
    assert "1 of 2 rows without `text`: unreadable_row 1 (new.csv#1: 3 fields where the header has 2)" in line
    made = pq.read_table(tmp_path / "new.fused.parquet")
    assert made.column("id").to_pylist() == ["a", "new.csv#1"]
    assert made.column("has_text").to_pylist() == [True, False]


def test_columns_may_be_called_by_their_input(call, tmp_path):
    vector = [1.0, 2.0, 0.5, -1.0, 0.0, 3.0]
    for name, columns in (("plain", {"vec": [vector]}), ("dotted", {"vec": [vector[::-1]], "vec.vec": [vector]})):
        pq.write_table(pa.table({"id": ["a"], **columns}), tmp_path / f"{name}.parquet")
        call("encode", "--on", f"{name}.parquet")
    plain, dotted = (pq.read_table(tmp_path / f"{name}.fused.parquet") for name in ("plain", "dotted"))
    assert plain.equals(dotted)


def test_weights_that_a_table_lacks_are_named(done, tmp_path):
    pq.write_table(pa.table({"text": ["a red kite"]}), tmp_path / "new.parquet")
    fuser = Fuser.load(done[0]["output"]["path"])
    fuser.manifest.inputs["text"]["spec"]["weights_column"] = "w"
    with pytest.raises(JobError, match=r"--on: no column 'w', the weights of inputs\.text; add it"):
        NewRows(fuser, str(tmp_path / "new.parquet"))
