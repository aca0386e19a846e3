import json
from dataclasses import replace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.tasks.data.rows import sample_shards
from barycenter.tasks.planning.plan import describe_plan, prepare
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.digest import digest
from barycenter.tasks.run.identities import embedding_ids, embeddings_key


def write_rows(path, rows, start=0):
    vectors = pa.array([[float(row), 1.0, 2.0] for row in range(start, start + rows)], pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": [f"k{row}" for row in range(start, start + rows)], "vec": vectors}), path)


@pytest.fixture
def job(tmp_path):
    (tmp_path / "rows").mkdir()
    write_rows(tmp_path / "rows" / "a.parquet", 25)
    write_rows(tmp_path / "rows" / "b.parquet", 12, start=25)
    return Job.model_validate(
        {
            "corpus": {"path": str(tmp_path / "rows"), "key": "id", "rows_per_shard": 10},
            "inputs": {"vec": {"kind": "vector", "column": "vec"}},
            "output": {"path": str(tmp_path / "out")},
        }
    )


def test_shards_and_widths_come_from_the_corpus(job):
    run = Run(job)
    assert [shard.rows for shard in run.shards] == [10, 10, 5, 10, 2]
    assert (run.rows, run.widths) == (37, {"vec": 3})
    assert len({shard.id for shard in run.shards}) == 5


@pytest.mark.parametrize(("rows", "expected"), [(1, [10, 10, 5, 10, 2]), (20, [20, 17]), (1000, [37])])
def test_blocks_are_consecutive_and_whole(job, rows, expected):
    run = Run(job)
    blocks = run.blocks(rows)
    assert [sum(shard.rows for shard in block) for block in blocks] == expected
    assert tuple(shard for block in blocks for shard in block) == run.shards


def test_a_sample_spans_the_corpus(job):
    shards = Run(job).shards
    assert sample_shards(shards, 100) == list(shards)
    few = sample_shards(shards, 15)
    assert [(shard.id, shard.rows) for shard in few] == [(shards[n].id, 5) for n in (0, 1, 3)]


def test_a_sample_of_a_corpus_in_order_of_its_labels_holds_most_of_them(job):
    shards = [replace(Run(job).shards[0], index=n, start=0, stop=4096) for n in range(300)]
    few = sample_shards(shards, 20_000)
    assert (len(few), few[0].index < 5, few[-1].index > 294) == (64, True, True)
    assert {shard.rows for shard in few} == {313}


def test_a_sample_does_not_fall_on_the_short_shard_at_the_end_of_every_file(job):
    shards = [replace(Run(job).shards[0], index=n, start=0, stop=10 if n % 8 < 7 else 1) for n in range(64)]
    few = sample_shards(shards, 160)
    assert 140 <= sum(shard.rows for shard in few) <= 180


def test_a_changed_file_changes_its_shards_and_the_embeddings_key(job, tmp_path):
    before = Run(job)
    write_rows(tmp_path / "rows" / "b.parquet", 13, start=25)
    after = Run(job)
    assert [shard.id for shard in after.shards[:3]] == [shard.id for shard in before.shards[:3]]
    assert not {shard.id for shard in after.shards[3:]} & {shard.id for shard in before.shards}
    assert embeddings_key(after) != embeddings_key(before)


def test_an_empty_corpus_is_a_mistake_in_the_job(job, tmp_path):
    for name, rows in (("a", 0), ("b", 0)):
        write_rows(tmp_path / "rows" / f"{name}.parquet", rows)
    with pytest.raises(JobError, match=r"corpus\.path: .* no rows"):
        Run(job)


def test_the_plan_says_what_is_left_and_how_long(job, tmp_path):
    plan = describe_plan(prepare(job))
    assert (plan["rows"], plan["shards"], plan["files"]) == (37, 5, 2)
    figures = plan["inputs"]["vec"]
    assert (figures["dim"], figures["shards_done"], figures["shards_left"]) == (3, 0, 5)
    assert (figures["rows_left"], figures["seconds_left"]) == (37, None)
    assert not (tmp_path / "out").exists()
    (tmp_path / "out" / "report").mkdir(parents=True)
    speed = {"embed vec": {"rows": 10, "seconds": 5.0, "rows_per_s": 2.0}}
    (tmp_path / "out" / "report" / "report.json").write_text(json.dumps({"speed": speed}))
    plan = describe_plan(prepare(job))
    assert plan["inputs"]["vec"]["seconds_left"] == 18.5
    assert plan["seconds_left"] is plan["later_seconds"] is None
    speed |= {stage: {"rows": 10, "rows_per_s": 10.0} for stage in ("align", "fuse", "report")}
    (tmp_path / "out" / "report" / "report.json").write_text(json.dumps({"speed": speed}))
    plan = describe_plan(prepare(job))
    assert (plan["later_seconds"], plan["seconds_left"]) == (11.1, 29.6)


def test_an_unfinished_run_says_its_rate(job, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "progress.json").write_text(
        json.dumps({"stages": [{"stage": "embed vec", "rows": 5, "rows_per_s": 0.5}]})
    )
    assert describe_plan(prepare(job))["inputs"]["vec"]["seconds_left"] == 74.0


def test_the_plan_counts_what_is_done(job, tmp_path):
    run = prepare(job)
    folder = tmp_path / "out" / "embeddings" / "vec" / embedding_ids(run)["vec"]
    folder.mkdir(parents=True)
    for shard in run.shards[:2]:
        (folder / f"{shard.id}.parquet").write_bytes(b"")
    figures = describe_plan(run)["inputs"]["vec"]
    assert (figures["shards_done"], figures["shards_left"], figures["rows_left"]) == (2, 3, 17)


def test_an_average_that_needs_an_alignment_is_refused(job):
    wrong = job.model_copy(
        update={
            "alignment": job.alignment.model_copy(update={"method": "none"}),
            "average": job.average.model_copy(update={"method": "spherical"}),
        }
    )
    with pytest.raises(JobError, match=r"average\.method: `spherical`"):
        prepare(wrong)


def test_a_digest_depends_on_content_not_on_key_order():
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
    assert digest(["a", "b"]) != digest(["b", "a"])


def test_vectors_in_a_csv_are_refused_with_the_formats_that_hold_them(tmp_path):
    (tmp_path / "rows.csv").write_text('id,vec\na,"[0.1, 0.2]"\n')
    job = {
        "corpus": {"path": str(tmp_path / "rows.csv"), "key": "id"},
        "inputs": {"vec": {"kind": "vector", "column": "vec"}},
        "output": {"path": str(tmp_path / "out")},
    }
    with pytest.raises(JobError, match=r"inputs\.vec\.column: `vec` is string .* Parquet or JSON Lines"):
        Run(Job.model_validate(job))
