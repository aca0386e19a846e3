"""What a head learns from, without Ray: labeled rows over all files of a data set, sides of a split, predictions."""

import json
import pickle
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import barycenter.tasks.data.labeled_rows
from barycenter.fusion.dataset.schema import FeatureFile, Manifest, vectors_to_array
from barycenter.fusion.errors import JobError
from barycenter.fusion.heads import LinearHead
from barycenter.fusion.heads.neural import NeuralHead
from barycenter.fusion.training.context import LocalContext
from barycenter.infra.job.models import TrainJob
from barycenter.infra.job.places import RayJob
from barycenter.infra.storage import Storage
from barycenter.tasks.data.labeled_rows import read_labeled, survey
from barycenter.tasks.heads.distributed import head_loop
from barycenter.tasks.heads.predict import predict
from barycenter.tasks.heads.stage import fit_head

ROWS, FILES = 100, 4


def data_set(folder, kind=None, partition_by=(), **columns):
    """A fused data set of several files; a column's values are a function of the row."""
    storage, rng = Storage(str(folder)), np.random.default_rng(0)
    files = []
    for file in range(FILES):
        numbers = range(file * ROWS, (file + 1) * ROWS)
        fused = rng.normal(size=(ROWS, 3)).astype(np.float32)
        fused[:, 0] += [2 * (n % 2) for n in numbers]
        table = {
            "id": pa.array([f"k{n}" for n in numbers]),
            "fused": vectors_to_array(fused),
            "has_text": pa.array([True] * ROWS),
        }
        partition = {name: columns[name](numbers[0]) for name in partition_by}
        for name, value in columns.items():
            if name not in partition_by:
                table[name] = pa.array([value(n) for n in numbers], kind)
        path = f"features/v/part-{file}.parquet"
        storage.write_table(path, pa.table(table))
        files.append(FeatureFile(path, ROWS, partition=partition))
    manifest = Manifest(
        version="v", key="id", kept=tuple(columns), partition_by=tuple(partition_by), files=tuple(files),
        partition_types=dict.fromkeys(partition_by, "string"), dim=3, dtype="float32",
        inputs={"text": {}}, rows={"written": ROWS * FILES},
    )  # fmt: skip
    return storage, manifest


def rows_of(storage, manifest, **train):
    train = TrainJob(**{"target": "label"} | train)
    chosen = survey(storage, manifest, train)
    return chosen, read_labeled(storage, manifest, train, chosen)


def fitted(storage, manifest, **train):
    train = TrainJob(**{"target": "label"} | train)
    return fit_head(storage, manifest, train, RayJob(), storage, "head/v/x", seed=0, name="t")[0]


def test_a_corpus_in_order_of_its_labels_gives_every_label_its_share(tmp_path, monkeypatch):
    monkeypatch.setattr(barycenter.tasks.data.labeled_rows, "MOST_ROWS", 200)
    storage, manifest = data_set(tmp_path, label=lambda n: f"class {n // ROWS}")
    chosen, rows = rows_of(storage, manifest)
    shares = Counter(rows.target.tolist())
    assert set(shares) == {"class 0", "class 1", "class 2", "class 3"}
    assert max(shares.values()) < 75
    assert 150 < len(rows.keys) < 250
    assert "the head saw 200 of 400 labeled rows, drawn by a hash of their keys" in chosen.notes()


def test_every_labeled_row_is_used_where_they_are_few(tmp_path):
    storage, manifest = data_set(tmp_path, label=lambda n: None if n % 5 == 0 else f"class {n % 3}")
    chosen, rows = rows_of(storage, manifest)
    assert [int(key[1:]) for key in rows.keys] == [n for n in range(ROWS * FILES) if n % 5]
    assert chosen.notes() == []


def test_validation_rows_are_neither_trained_on_nor_tested(tmp_path):
    names = ["train", "Train", "validation", "test", None]
    storage, manifest = data_set(tmp_path, label=lambda n: f"c{n % 3}", split=lambda n: names[n % 5])
    chosen, rows = rows_of(storage, manifest, split="split")
    assert {int(key[1:]) % 5 for key in rows.take(~rows.test).keys} == {0, 1}
    assert {int(key[1:]) % 5 for key in rows.take(rows.test).keys} == {3}
    assert chosen.facts()["labelled"] == {"train": 160, "test": 80, "other": 160}
    assert chosen.notes() == [
        "train.split: rows whose `split` is 'validation' 80, '' 80 are neither trained on nor tested"
    ]


def test_a_target_that_is_a_partition_column_with_nulls(tmp_path):
    labels = [None, "a", "b", "a"]
    storage, manifest = data_set(tmp_path, partition_by=["label"], label=lambda n: labels[n // ROWS])
    _, rows = rows_of(storage, manifest)
    assert Counter(rows.target.tolist()) == {"a": 200, "b": 100}


def test_partition_values_of_whole_numbers_are_the_same_classes(tmp_path):
    storage, manifest = data_set(tmp_path, partition_by=["label"], label=lambda n: str(n // ROWS))
    train = TrainJob(target="label")
    target = barycenter.tasks.data.labeled_rows.find_reading("label", pa.int32(), [0, 1, 2, 3]).reading
    rows = read_labeled(storage, manifest, train, survey(storage, manifest, train, target))
    assert set(rows.target.tolist()) == {0, 1, 2, 3}


def test_missing_words_are_left_out_and_counted_in_the_metrics(tmp_path):
    storage, manifest = data_set(tmp_path, label=lambda n: "NA" if n % 10 == 3 else f"{n % 2 + n / 1000:.3f}")
    metrics = fitted(storage, manifest)
    assert (metrics["task"], metrics["left_out"]) == ("regression", {"NA": 40})
    assert metrics["n_train"] + metrics["n_test"] == 360
    assert metrics["score"] > 0.3
    assert "train.target: rows whose `label` is no label are left out: 'NA' 40" in metrics["notes"]


@pytest.mark.parametrize(("label", "why"), [("same", "all have the same `label`"), (None, "none has a `label`")])
def test_nothing_to_learn_is_said_and_no_head_written(tmp_path, label, why):
    storage, manifest = data_set(tmp_path, kind=pa.string(), label=lambda _: label)
    metrics = fitted(storage, manifest)
    assert metrics["notes"] == [f"no head was trained: of the training rows {why}; there is nothing to learn"]
    assert storage.list("head") == []


def test_a_target_that_no_head_learns_is_refused(tmp_path):
    storage, manifest = data_set(tmp_path, label=lambda n: {"a": n})
    with pytest.raises(JobError, match=r"train\.target: `label` is struct"):
        fitted(storage, manifest)


@pytest.mark.parametrize(
    ("label", "kind"),
    [
        (lambda n: f"class {n % 2}", pa.string()),
        (lambda n: n % 2, pa.int64()),
        (lambda n: 2**64 - 1 - n % 2, pa.uint64()),
        (lambda n: 1e300 * (n % 2), pa.string()),
        (lambda n: n % 2 == 0, pa.bool_()),
        (lambda n: n % 2 + 0.5, pa.float64()),
        (lambda n: [["a"], []][n >= ROWS], pa.list_(pa.string())),
        (lambda n: [[7], [], [7, 9]][n % 3], pa.list_(pa.int64())),
    ],
)
def test_predictions_of_every_file_fit_together(tmp_path, label, kind):
    storage, manifest = data_set(tmp_path, kind if pa.types.is_uint64(kind) else None, label=label)
    fitted(storage, manifest)
    manifest = replace(manifest, files=manifest.files[::-1])
    summary = predict(storage, manifest, (storage, "head/v/x"), storage, "all.parquet")
    made = pq.read_table(tmp_path / "all.parquet")
    assert summary["rows"] == made.num_rows == ROWS * FILES
    assert made.schema.field("prediction").type == kind


def test_predictions_where_the_first_file_has_none(tmp_path):
    """A head of label sets that predicts no label at all in the first file, and of two classes only one."""
    storage, manifest = data_set(tmp_path, label=lambda n: n)
    for task, y in (("multilabel", [["a"] if n % 2 else [] for n in range(40)]), ("classification", [0, 1] * 20)):
        X = np.zeros((40, 3))
        X[:, 0] = [5.0 * (n % 2) for n in range(40)]
        head = LinearHead(task=task).fit(X, y)
        head.save(tmp_path / "head")
        far = np.zeros((ROWS, 3), np.float32)
        storage.write_table(
            manifest.files[0].path,
            pa.table({"id": [f"k{n}" for n in range(ROWS)], "fused": vectors_to_array(far), "has_text": [True] * ROWS}),
        )
        predict(storage, manifest, (Storage(str(tmp_path / "head")), ""), storage, "all.parquet")
        found = pq.read_table(tmp_path / "all.parquet").column("prediction").to_pylist()
        assert len({json.dumps(value) for value in found[:ROWS]}) == 1
        assert len({json.dumps(value) for value in found}) == 2


def test_the_loop_of_every_rank_learns_from_the_same_rows(tmp_path):
    storage, manifest = data_set(tmp_path, label=lambda n: ["NA", "1.5", "2.5"][n % 3], has_text=lambda _: True)
    train = TrainJob(target="label", head="mlp")
    chosen = survey(storage, manifest, train)
    settings = {"inputs": ("text",), "shares": {"text": 1.0}, "task": chosen.target.task, "seed": 0}
    config = {"train": train.model_dump(mode="json"), "source": storage, "manifest": manifest, "chosen": chosen}
    done = head_loop(LocalContext(), pickle.loads(pickle.dumps(config | {"settings": settings})))  # noqa: S301
    head = NeuralHead.restore(done.state, done.tensors)
    assert (head.task_, chosen.left_out["NA"]) == ("regression", 134)
