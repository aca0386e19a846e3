"""An input that turned out mostly bad stops the run right after it was embedded, without Ray here."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.errors import Reason, RunError
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.job.models import Job
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.data.rows import RowReader, sample_shards
from barycenter.tasks.embed.advice import ADVICE, describe_reasons
from barycenter.tasks.embed.bad_inputs import bad_rows, check_bad_fraction
from barycenter.tasks.embed.settings import find_execution
from barycenter.tasks.embed.stage import embed_setting
from barycenter.tasks.embed.worker import EmbedWorker, ShardJob
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids

ROWS = 60


def embedded(tmp_path, texts, **limits):
    """A run whose texts are embedded, and the reasons that its workers counted."""
    table = pa.table({"id": [f"r{n}" for n in range(len(texts))], "text": pa.array(texts, pa.string())})
    pq.write_table(table, tmp_path / "rows.parquet")
    run = Run(
        Job.model_validate(
            {
                "corpus": {"path": str(tmp_path / "rows.parquet"), "key": "id", "rows_per_shard": 20},
                "inputs": {"text": {"kind": "text", "column": "text", "encoder": "builtin/hashing", "batch": 8}},
                "output": {"path": str(tmp_path / "out")},
                "limits": limits,
            }
        )
    )
    worker = EmbedWorker(embed_setting(run, "text", find_execution(run, "text", WorkerAllocation(1, 1))))
    return run, sum((worker.run(ShardJob(shard, 8))["bad"] for shard in run.shards), Counter())


def test_reasons_are_counted_with_a_row_of_each_and_what_to_do(tmp_path):
    run, bad = embedded(tmp_path, [None if n % 3 else " " for n in range(ROWS - 2)] + ["good", "good"])
    with pytest.raises(RunError) as stopped:
        check_bad_fraction(run, "text", bad, {shard.id for shard in run.shards})
    line = str(stopped.value)
    assert line.startswith(
        "input text: 58 of 60 rows (97%) cannot be used, and limits.max_bad_fraction is 0.5: "
        "null 38 (row r1; the column is null there), empty 20 (row r0; the value or the file is empty there); "
    )
    assert line.endswith("run again with --retry-bad, or raise the limit")


def test_what_an_earlier_run_embedded_counts(tmp_path):
    run, _ = embedded(tmp_path, [None] * 40 + ["good"] * 20)
    with pytest.raises(RunError, match="40 of 60 rows"):
        check_bad_fraction(run, "text")
    first, last = run.shards[0], run.shards[-1]
    identity = embedding_ids(run)["text"]
    assert bad_rows(run.storage, embedding_path("text", identity, first.id)) == 20
    assert bad_rows(run.storage, embedding_path("text", identity, last.id)) == 0


def test_an_input_without_a_good_row_is_refused_whatever_is_allowed(tmp_path):
    run, bad = embedded(tmp_path, [None] * ROWS, max_bad_fraction=1.0)
    with pytest.raises(RunError) as stopped:
        check_bad_fraction(run, "text", bad, {shard.id for shard in run.shards})
    line = str(stopped.value)
    assert line.startswith("input text: none of 60 rows can be used, so there is nothing to align: null 60 (row r0; ")
    assert line.endswith("run again with --retry-bad, or take text out of inputs")


@pytest.mark.parametrize("allowed", [0.5, 1.0])
def test_as_many_as_are_allowed_pass(tmp_path, allowed):
    bad_texts = int(ROWS * allowed) - (allowed == 1)
    run, bad = embedded(tmp_path, [None] * bad_texts + ["good"] * (ROWS - bad_texts), max_bad_fraction=allowed)
    check_bad_fraction(run, "text", bad, {shard.id for shard in run.shards})
    check_bad_fraction(run, "text")


def test_every_reason_of_an_input_has_its_advice():
    of_rows = {Reason.NULL_KEY, Reason.DUPLICATE_KEY, getattr(Reason, "WRONG_TYPE", None)}
    assert set(ADVICE) >= set(Reason) - of_rows
    assert describe_reasons({"a new word": 2}, {}) == "a new word 2"


def test_the_beginning_of_a_shard_is_read_as_such(tmp_path):
    run, _ = embedded(tmp_path, [f"text {n}" for n in range(ROWS)])
    whole, sample = (RowReader.of(run).read_all(sample_shards(run.shards, rows)) for rows in (ROWS, 30))
    assert sample.keys == [f"r{n}" for first in (0, 20, 40) for n in range(first, first + 10)]
    at = [whole.keys.index(key) for key in sample.keys]
    assert np.array_equal(sample.views["text"], whole.views["text"][at])
