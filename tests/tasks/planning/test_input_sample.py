"""Before the work, without Ray: what no row of an input can be is refused by its type and by a few of its values."""

import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.tasks.planning.plan import describe_plan, prepare

ROWS = 60


def png(color):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(stream, "PNG")
    return stream.getvalue()


GOOD = [png((n, 0, 0)) for n in range(ROWS)]


def prepared(tmp_path, kind, values, arrow=None, **sections):
    """A job of one input over the values, checked."""
    table = pa.table({"id": [str(n) for n in range(len(values))], "value": pa.array(values, arrow)})
    pq.write_table(table, tmp_path / "rows.parquet")
    encoder = {"text": "builtin/hashing", "image": "builtin/descriptor"}[kind]
    data = {
        "corpus": {"path": str(tmp_path / "rows.parquet"), "key": "id", "keep": ["value"], "rows_per_shard": 20},
        "inputs": {"it": {"kind": kind, "column": "value", "encoder": encoder}},
        "output": {"path": str(tmp_path / "out")},
    }
    return prepare(Job.model_validate(data | sections))


@pytest.mark.parametrize(
    ("kind", "values", "words"),
    [
        ("text", [{"bytes": b"x", "path": None}] * ROWS, "`value` is struct<.*kind: text reads text"),
        ("text", [b"x"] * ROWS, "`value` is binary"),
        ("text", [1.5] * ROWS, "`value` is double"),
        ("text", [[1, 2]] * ROWS, "`value` is int64"),
        ("image", [7] * ROWS, "`value` is int64, and kind: image reads paths, encoded bytes"),
        ("image", [{"width": 5}] * ROWS, "`value` is struct<width: int64>"),
        ("image", [f"a red crab {n}" for n in range(ROWS)], r"none of \d+ values tried is a picture.*file_missing"),
        ("image", [b"no picture"] * ROWS, r"none of \d+ values tried .*not_an_image \d+ \(e\.g\. "),
        ("image", [f"/srv/pictures/{n}.jpg" for n in range(ROWS)], "outside_corpus .*set limits.outside_corpus"),
        ("image", [f"https://example.org/{n}.jpg" for n in range(ROWS)], "http_not_allowed .*set limits.http to true"),
    ],
)
def test_an_input_that_cannot_be_its_kind_is_refused(tmp_path, kind, values, words):
    with pytest.raises(JobError, match=rf"inputs\.it\.column: .*{words}"):
        prepared(tmp_path, kind, values)


@pytest.mark.parametrize("weights", [["1", "2"], [True], [{"a": 1.0}]])
@pytest.mark.parametrize("kind", ["text", "vector"])
def test_weights_that_are_no_numbers_are_refused(tmp_path, kind, weights):
    values = {"text": ["a", "b"], "vector": [[1.0, 2.0], [3.0, 4.0]]}[kind]
    pq.write_table(pa.table({"value": [values] * 4, "shares": [weights] * 4}), tmp_path / "rows.parquet")
    data = {
        "corpus": {"path": str(tmp_path / "rows.parquet")},
        "inputs": {"it": {"kind": kind, "column": "value", "weights_column": "shares"}},
        "output": {"path": str(tmp_path / "out")},
    }
    data["inputs"]["it"] |= {"encoder": "builtin/hashing"} if kind == "text" else {}
    with pytest.raises(JobError, match=r"inputs\.it\.weights_column: `shares` is .*, and weights are numbers"):
        prepare(Job.model_validate(data))


@pytest.mark.parametrize(
    ("kind", "values", "arrow"),
    [
        ("text", ["a", *[None] * (ROWS - 1)], None),
        ("text", [["a", "b"], [], None] * 20, None),
        ("text", ["a", "b"] * 30, pa.large_string()),
        ("text", [None] * ROWS, pa.string()),
        ("image", GOOD, None),
        ("image", [*GOOD[:30], *[b"no picture"] * 30], None),
        ("image", [{"bytes": value, "path": None} for value in GOOD], None),
        ("image", [[value, value] for value in GOOD], None),
    ],
)
def test_one_good_value_is_enough(tmp_path, kind, values, arrow):
    assert prepared(tmp_path, kind, values, arrow).rows == ROWS


def test_a_job_that_puts_up_with_anything_is_not_tried(tmp_path):
    prepared(tmp_path, "image", [b"no picture"] * ROWS, limits={"max_bad_fraction": 1.0})


@pytest.mark.parametrize(
    ("values", "train", "words"),
    [
        ([{"a": 1}] * ROWS, {}, r"train\.target: `value` is struct"),
        ([f"{n / 4:.2f}" for n in range(ROWS - 1)] + ["cheap"], {}, r"train\.target: `value` holds .*'cheap' 1"),
        (["a", "b"] * 30, {"task": "regression"}, r"train\.target: `value` holds no numbers"),
        (["val", "dev"] * 30, {"split": "value"}, r"train\.split: no `value` is 'train'.*'val' 30, 'dev' 30"),
        (["a", "b"] * 30, {"target": "id"}, r"train\.target: `id` is the key"),
    ],
)
def test_an_unusable_target_or_split_is_refused(tmp_path, values, train, words):
    data = [json.dumps(value) if isinstance(value, dict) else value for value in values]
    arrow = None
    if isinstance(values[0], dict):
        data, arrow = values, pa.struct([("a", pa.int64())])
    table = pa.table({"id": [str(n) for n in range(ROWS)], "value": pa.array(data, arrow), "text": ["a b"] * ROWS})
    pq.write_table(table, tmp_path / "rows.parquet")
    job = {
        "corpus": {"path": str(tmp_path / "rows.parquet"), "key": "id", "keep": ["value"]},
        "inputs": {"it": {"kind": "text", "column": "text", "encoder": "builtin/hashing"}},
        "output": {"path": str(tmp_path / "out")},
        "train": {"target": "value"} | train,
    }
    with pytest.raises(JobError, match=words):
        prepare(Job.model_validate(job))


def test_the_plan_says_what_the_target_is_and_what_is_left_out(tmp_path):
    values = [["a", "b", "c"][n % 3] for n in range(ROWS)]
    table = {
        "id": [str(n) for n in range(ROWS)],
        "text": values,
        "value": [str(n / 8) for n in range(ROWS - 2)] + ["NA"] * 2,
    }
    table["side"] = np.array(["train", "test", "validation"])[np.arange(ROWS) % 3].tolist()
    pq.write_table(pa.table(table), tmp_path / "rows.parquet")
    job = {
        "corpus": {"path": str(tmp_path / "rows.parquet"), "key": "id", "keep": ["value", "side"]},
        "inputs": {"it": {"kind": "text", "column": "text", "encoder": "builtin/hashing"}},
        "output": {"path": str(tmp_path / "out")},
        "train": {"target": "value", "split": "side"},
    }
    plan = describe_plan(prepare(Job.model_validate(job)))
    assert plan["target"] == "target `value`: regression (numbers with fractions)"
    assert plan["notes"] == [
        "train.target: rows whose `value` is no label are left out: 'NA' 2",
        "train.split: rows whose `side` is 'validation' 20 are neither trained on nor tested",
    ]
