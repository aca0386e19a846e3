"""Moments that are kept and gone on from are those of one pass, byte for byte."""

import shutil
from copy import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from barycenter.fusion.moments import FoldMoments
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.infra.versions.garbage import collect_garbage
from barycenter.infra.versions.lease import hold
from barycenter.tasks.align import blocks, moments
from barycenter.tasks.align.blocks import OrderedMerge, counts_kept, ends_of_updates
from barycenter.tasks.align.moments import reduce_rows, stored_moments
from barycenter.tasks.align.stage import fit_alignment
from barycenter.tasks.align.worker import InputMoments, MomentsWorker
from barycenter.tasks.data.rows import RowReader
from barycenter.tasks.embed.stage import embed_input
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.workers import THIS_PROCESS
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines

WIDTH = 6
ROWS = 240
BLOCK, UPDATE, SHARD = 40, 16, 8


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(blocks, "BLOCK_ROWS", BLOCK)
    monkeypatch.setattr(blocks, "UPDATE_ROWS", UPDATE)


@pytest.fixture
def reads(monkeypatch):
    """First rows of the shards that workers of the fit read, since it was last cleared."""
    started, run = [], MomentsWorker.run

    def recorded(self, payload):
        started.extend(shard.start for shard in payload.shards)
        return run(self, payload)

    monkeypatch.setattr(MomentsWorker, "run", recorded)
    return started


@pytest.fixture(scope="module")
def embedded(tmp_path_factory):
    """A run over rows that are embedded, 8 a shard."""
    folder = tmp_path_factory.mktemp("moments")
    run = Run(Job.model_validate(job_of(folder, text_and_vector_rows(ROWS))))
    for name in run.inputs:
        embed_input(run, name, THIS_PROCESS)
    return run


def job_of(folder, rows, **sections):
    data = text_and_vector_job(folder / "rows.jsonl", folder / "out", "moments")
    write_lines(folder / "rows.jsonl", rows)
    data["corpus"]["rows_per_shard"] = SHARD
    data["alignment"] = {"method": "cca", "dim": 4, "regularization": 0.1, "folds": 2}
    for name, section in sections.items():
        data[name] = data.get(name, {}) | section
    return data


def content(folds):
    """Every bit of some moments."""
    return [{name: array.tobytes() for name, array in part.to_arrays().items()} for part in folds]


def kept(run, shards, key, folds=3):
    """The moments of some shards as they are kept; and how many rows were read."""
    some = copy(run)
    some.shards = tuple(shards)
    progress = StageProgress("fit", ROWS)
    found = stored_moments(some, THIS_PROCESS, InputMoments(run.widths, folds), key, progress)
    return content(found), progress.done


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    histories=st.lists(
        st.tuples(st.integers(1, ROWS // SHARD), st.sets(st.integers(0, ROWS // SHARD - 1), max_size=1)),
        min_size=1,
        max_size=4,
    ),
    token=st.uuids(),
)
def test_whatever_was_kept_moments_are_those_of_one_pass(embedded, histories, token):
    """The corpus grows, shrinks and loses shards in between."""
    for count, gone in histories:
        shards = [shard for number, shard in enumerate(embedded.shards[:count]) if number not in gone]
        if shards:
            found, _ = kept(embedded, shards, f"a{token}")
            afresh, rows = kept(embedded, shards, f"b{token}-{count}-{sorted(gone)}")
            assert found == afresh
            assert rows in (0, len(shards) * SHARD)
            assert kept(embedded, shards, f"a{token}") == (found, 0)


@given(order=st.permutations(range(7)), known=st.integers(0, 7))
def test_blocks_are_merged_in_their_order_however_they_arrive(order, known):
    rng = np.random.default_rng(0)
    parts = [FoldMoments.of({"a": rng.normal(size=(20, 3))}, 2) for _ in range(7)]
    whole = parts[0]
    for part in parts[1:]:
        whole = whole.merge(part)
    first = parts[0] if known else None
    for part in parts[1:known]:
        first = first.merge(part)
    calls = []
    merge = OrderedMerge(known, first, lambda count, part, _: calls.append((count, part)))
    for number in order:
        if number >= known:
            merge.add(number, parts[number])
    assert content(merge.whole) == content(whole)
    assert [count for count, _ in calls] == list(range(known + 1, 8))
    assert all(part is parts[count - 1] for count, part in calls)


@given(st.integers(1, 300), st.integers(0, 300))
def test_what_a_longer_corpus_keeps_of_a_shorter_one_that_one_has_kept(count, more):
    longer = {each for each in counts_kept(count + more) if each <= count}
    assert longer <= set(counts_kept(count))
    assert len(counts_kept(count)) <= count.bit_length()


def test_an_update_ends_where_it_ends_however_many_shards_follow(embedded):
    for count in range(len(embedded.shards)):
        ends = ends_of_updates(embedded.shards)
        assert ends_of_updates(embedded.shards[:count]) == [end for end in ends if end <= count]
    parts = [SimpleNamespace(count=SHARD)] * len(embedded.shards)
    assert len(ends) == len(parts) * SHARD // UPDATE


def test_what_is_appended_is_all_that_is_read(embedded, reads):
    run, each = embedded, BLOCK // SHARD
    for count, expected in ((12, 12), (13, 1), (13, 0), (15, 1 + 2), (16, 1), (30, 15)):
        reads.clear()
        kept(run, run.shards[:count], "appended")
        known = count - expected
        assert reads == [shard.start for shard in run.shards[known:count]], (count, expected)
    names = run.storage.list("alignment/moments/appended")
    assert len(names) == len(counts_kept(30 // each - 1)) + 2, "the blocks before the last, the last, its updates"


def test_a_shard_that_goes_costs_what_follows_it(embedded, reads):
    shards = list(embedded.shards)
    kept(embedded, shards[:25], "gone")  # five blocks: the first four are kept
    reads.clear()
    kept(embedded, shards[:24] + shards[25:26], "gone")
    assert reads == [shards[25].start]
    reads.clear()
    kept(embedded, shards[:1] + shards[2:26], "gone")
    assert len(reads) == 25


def test_the_number_of_workers_changes_nothing(embedded, monkeypatch):
    """Blocks may arrive in any order."""
    expected = content(reduce_rows(embedded, THIS_PROCESS, InputMoments(embedded.widths, 3)))

    def backwards(work, executor, what, on_done):
        del executor, what
        worker = MomentsWorker(RowReader.of(embedded), InputMoments(embedded.widths, 3))
        for unit in reversed(list(work)):
            on_done(unit, worker.run(unit.payload))

    monkeypatch.setattr(moments, "run_all", backwards)
    assert content(reduce_rows(embedded, THIS_PROCESS, InputMoments(embedded.widths, 3))) == expected
    assert kept(embedded, embedded.shards, "backwards")[0] == expected


@pytest.mark.parametrize("writes", range(5))
def test_a_run_that_is_killed_between_two_files_leaves_what_the_next_goes_on_from(embedded, monkeypatch, writes):
    kept(embedded, embedded.shards[:17], f"killed{writes}")
    expected, _ = kept(embedded, embedded.shards, f"whole{writes}")
    with monkeypatch.context() as patch:
        done = []

        def write(self, path, data):
            if len(done) == writes:
                raise KeyboardInterrupt
            done.append(path)
            return original(self, path, data)

        original = Storage.write
        patch.setattr(Storage, "write", write)
        patch.setattr(Storage, "remove", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            kept(embedded, embedded.shards, f"killed{writes}")
    found, _ = kept(embedded, embedded.shards, f"killed{writes}")
    assert found == expected
    names = [
        {Path(path).name for path in embedded.storage.list(f"alignment/moments/{key}{writes}")}
        for key in ("killed", "whole")
    ]
    assert names[0] == names[1]


def fit(data, *, refit=False):
    """Embeds and fits, and no more; the files of the alignment."""
    run = prepare(Job.model_validate(data), refit=refit)
    for name in run.inputs:
        embed_input(run, name, THIS_PROCESS)
    fitted = fit_alignment(run, THIS_PROCESS)[0]
    return files(Path(data["output"]["path"]) / "alignment" / fitted.alignment_id)


def files(folder):
    """Their bytes, but for the list of the shards that were fitted on."""
    return {path.name: path.read_bytes() for path in folder.rglob("*.*") if path.name != "fitted.json"}


def refitted(data, reads):
    """Shards that a refit reads; it must give what a fit in an empty folder gives."""
    reads.clear()
    found = fit(data, refit=True)
    read = list(reads)
    fresh = Path(data["output"]["path"]).with_name("fresh")
    shutil.rmtree(fresh, ignore_errors=True)
    assert found == fit(data | {"output": {"path": str(fresh)}})
    return read


def test_a_refit_after_rows_were_appended_to_a_file_reads_the_last_rows_alone(tmp_path, reads):
    """Every shard of the file has another name then, for the file has another size."""
    rows = text_and_vector_rows(203)
    fit(job_of(tmp_path, rows))
    assert len(reads) == 26
    more = rows + text_and_vector_rows(5, first=203)
    assert refitted(job_of(tmp_path, more), reads) == [200]
    assert refitted(job_of(tmp_path, more), reads) == []
    more += text_and_vector_rows(30, first=208)
    assert refitted(job_of(tmp_path, more), reads) == [200, 208, 216, 224, 232]
    more[239 - 5] = more[0] | {"id": more[239 - 5]["id"]}
    assert refitted(job_of(tmp_path, more), reads) == [232]


def test_a_correction_of_an_old_row_is_noticed(tmp_path, reads):
    """The shard of the old row is what it was, and the row in it no longer counts."""
    rows = text_and_vector_rows(203)
    nightly = {"corpus": {"on_duplicate": "last"}}
    fit(job_of(tmp_path, rows, **nightly))
    assert len(refitted(job_of(tmp_path, [*rows, rows[190] | {"vec": [9.0] * 6}], **nightly), reads)) == 6
    assert len(refitted(job_of(tmp_path, [*rows, rows[3] | {"vec": [9.0] * 6}], **nightly), reads)) == 26


def test_a_whole_job_refitted_after_an_append_leaves_the_bytes_of_a_fresh_one(tmp_path, reads):
    rows = text_and_vector_rows(203)
    run_here(job_of(tmp_path, rows))
    data = job_of(tmp_path, rows + text_and_vector_rows(5, first=203))
    reads.clear()
    run_here(data)
    assert reads == [], "the alignment that is there stays"
    refit = run_here(data, refit=True)
    assert reads == [200]
    (tmp_path / "fresh").mkdir()
    shutil.copy(tmp_path / "out" / "plan.json", tmp_path / "fresh" / "plan.json")
    fresh = run_here(data | {"output": {"path": str(tmp_path / "fresh")}})
    assert refit["version"] == fresh["version"]
    for kind in (f"features/{fresh['version']}", f"alignment/{fresh['alignment']['alignment_id']}"):
        expected = files(tmp_path / "fresh" / kind)
        assert files(tmp_path / "out" / kind) == expected
        assert expected


def test_after_a_collection_a_refit_still_reads_new_rows_alone(tmp_path, reads):
    rows = text_and_vector_rows(203)
    run_here(job_of(tmp_path, rows))
    data = job_of(tmp_path, rows + text_and_vector_rows(5, first=203))
    run_here(data)
    storage = Storage(str(tmp_path / "out"))
    with hold(storage, "gc", deletes=True) as lease:
        assert collect_garbage(storage, lease)
    reads.clear()
    run_here(data, refit=True)
    assert reads == [200]


def test_old_rows_in_a_file_that_grew_are_no_new_ones(tmp_path):
    rows = text_and_vector_rows(203)
    run_here(job_of(tmp_path, rows))
    appended = run_here(job_of(tmp_path, rows + text_and_vector_rows(5, first=203)))["alignment"]["drift"]
    assert appended["new_shards"] == 1
    assert appended["rows_compared"] == 8
    assert "drift" not in run_here(job_of(tmp_path, rows[:200]))["alignment"]


TRAIN = {
    "corpus": {"keep": ["label", "side", "group"]},
    "train": {"target": "label", "split": "side", "group_by": "group"},
}


def labeled_rows(count):
    rows = text_and_vector_rows(count)
    for number, row in enumerate(rows):
        row |= {"side": "test" if number % 5 == 4 else "train", "group": f"g{number // 2}"}
    return rows


@pytest.mark.parametrize(("column", "value"), [("label", None), ("side", "test"), ("group", "g30")])
def test_other_labels_sides_and_groups_of_the_same_texts_are_noticed(tmp_path, reads, column, value):
    rows = labeled_rows(203)
    before = fit(job_of(tmp_path, rows, **TRAIN))
    rows[202] |= {column: value}
    assert refitted(job_of(tmp_path, rows, **TRAIN), reads) == [200]
    rows[3] |= {column: value}
    assert len(refitted(job_of(tmp_path, rows, **TRAIN), reads)) == 25, "all but the last block"
    assert fit(job_of(tmp_path, rows, **TRAIN)) != before


def test_columns_that_the_embedding_files_do_not_describe_are_known_by_shard(tmp_path, reads):
    """The target came after the vectors were made."""
    rows = labeled_rows(203)
    data = job_of(tmp_path, rows, corpus=TRAIN["corpus"])
    fit(data)
    reads.clear()
    fit(data | {"train": TRAIN["train"]})
    assert len(reads) == 26
    assert refitted(data | {"train": TRAIN["train"]}, reads) == []
    rows[3]["label"] = None
    assert len(refitted(job_of(tmp_path, rows, **TRAIN), reads)) == 26
    assert len(refitted(job_of(tmp_path, rows[:-1], **TRAIN), reads)) == 1, "what is written since describes them"
