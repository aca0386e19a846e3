"""What a table of predictions says of each row beside the prediction."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.heads import LinearHead
from barycenter.infra.storage import Storage
from barycenter.tasks.heads.predict import predict
from barycenter.tasks.heads.predictions import Labeling, predictions
from tests.tasks.data.test_labeled_rows import FILES, ROWS, data_set, fitted


@pytest.fixture(scope="module")
def head():
    X = np.array([[float(n % 2)] for n in range(40)])
    return LinearHead(task="classification").fit(X, [7 + n % 2 for n in range(40)])


def scores(head, *values):
    return head.raw_scores(np.array(values, dtype=np.float64)[:, None])


def test_the_key_has_its_own_name_unless_it_is_that_of_another_column(head):
    assert predictions(head, "sku", ["a"], scores(head, 0)).column_names == ["sku", "prediction", "probability"]
    made = predictions(head, "target", ["a"], scores(head, 0), labels=[7], split=["train"])
    assert made.column_names == ["key", "target", "prediction", "probability", "split"]


def test_rows_without_scores_and_labels_of_no_such_type_are_null(head):
    made = predictions(
        head, "id", list("abc"), scores(head, 0, 1), labels=[8, "x", 9], scored=np.array([True, False, True])
    )
    assert made.column("prediction").to_pylist() == [7, None, 8]
    assert made.column("probability").to_pylist()[1] is None
    assert made.column("target").to_pylist() == [8, None, 9]
    none = predictions(head, "id", ["a"], np.zeros((0, 2)), labels=[None], scored=np.array([False]))
    assert none.schema == made.schema
    assert none.to_pylist() == [{"id": "a", "target": None, "prediction": None, "probability": None}]


def test_true_values_are_labels_as_the_head_reads_them(tmp_path):
    storage, manifest = data_set(tmp_path, label=lambda n: "NA" if n % 10 == 3 else f"{n % 2 + n / 1000:.3f}")
    fitted(storage, manifest)
    predict(storage, manifest, (storage, "head/v/x"), storage, "all.parquet")
    made = pq.read_table(tmp_path / "all.parquet")
    assert made.schema.field("target").type == made.schema.field("prediction").type == pa.float64()
    assert made.column("target").to_pylist()[2:4] == [0.002, None]
    tested = pq.read_table(tmp_path / "head" / "v" / "x" / "predictions.parquet")
    there = {row["id"]: row for row in made.to_pylist()}
    assert {row["id"] for row in tested.to_pylist()} == {
        key for key, row in there.items() if row["split"] == "test" and row["target"] is not None
    }


def test_a_hash_says_nothing_of_rows_that_the_head_was_not_trained_on(tmp_path):
    storage, manifest = data_set(tmp_path, label=lambda n: f"c{n % 2}", part=lambda n: ["train", "test"][n % 3 == 0])
    fitted(storage, manifest)
    other = replace(manifest, version="w")
    for there, names in ((manifest, ["target", "split"]), (other, ["target"]), (replace(other, kept=()), [])):
        predict(storage, there, (storage, "head/v/x"), storage, "all.parquet")
        columns = pq.read_table(tmp_path / "all.parquet").column_names
        assert [name for name in columns if name in ("target", "split")] == names
    fitted_by_column = Storage(str(tmp_path / "other"))
    storage, manifest = data_set(
        tmp_path / "other", label=lambda n: f"c{n % 2}", part=lambda n: ["train", "dev"][n % 3 == 0]
    )
    fitted(storage, manifest, split="part")
    predict(storage, replace(manifest, version="w"), (storage, "head/v/x"), fitted_by_column, "all.parquet")
    parts = pq.read_table(tmp_path / "other" / "all.parquet").column("split").to_pylist()
    assert parts == ["other" if n % 3 == 0 else "train" for n in range(ROWS * FILES)]


def test_a_head_without_metrics_predicts_without_true_values(tmp_path, head):
    storage = Storage(str(tmp_path))
    head.save(tmp_path / "head")
    assert Labeling.of(storage, "head") is None
    (tmp_path / "metrics.json").write_text("{}")
    assert Labeling.of(storage, "") is None
