"""Rows that were embedded once: after every change of a corpus only new contents reach the model."""

import os
import random
from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from barycenter.fusion.encoders import load
from barycenter.fusion.errors import JobError
from barycenter.infra.storage import Storage
from barycenter.infra.versions.digest_index import FOLDER
from barycenter.tasks.embed import known_rows, worker
from barycenter.tasks.embed.sample import count_known
from barycenter.tasks.embed.stage import pending_shards
from tests.tasks.embed.changing_corpus import CHANGES, Corpus, append, edit_a_picture_in_place, reorder, touch

PARTS = ("kept", "copied", "duplicate", "encoded", "missing", "rejected")


@pytest.fixture
def sent(monkeypatch):
    """Rows that reached the model, by width of their vectors."""
    counts = Counter()

    def counting(spec, device):
        encoder = load(spec, device=device)
        encode = encoder.encode

        def logged(batch):
            counts[spec.kind] += len(batch)
            return encode(batch)

        encoder.encode = logged
        return encoder

    monkeypatch.setattr(worker, "load", counting)
    return counts


@pytest.fixture
def corpus(tmp_path, sent):
    made = Corpus(tmp_path)
    made.write()
    made.embed()
    sent.clear()
    return made


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_only_new_contents_reach_the_model_and_vectors_are_those_of_a_fresh_run(corpus, tmp_path, sent, change):
    change(corpus)
    corpus.write()
    again = corpus.embed()
    assert (sent["text"], sent["image"]) == CHANGES[change]
    fresh = corpus.embed(tmp_path / "fresh")
    assert {name: vectors for name, (vectors, _) in again.items()} == {name: v for name, (v, _) in fresh.items()}
    for name, (_, reuse) in again.items():
        assert reuse["read"] == len(corpus.rows) == sum(reuse[part] for part in PARTS), name


@pytest.fixture
def parsed(monkeypatch):
    """First rows of the shards that were not taken over whole, by kind."""
    starts = {"text": [], "image": []}
    real = worker.embed_rows

    def recorded(inputs, *given, **named):
        starts[inputs.columns.kind].append(inputs.rows)
        return real(inputs, *given, **named)

    monkeypatch.setattr(worker, "embed_rows", recorded)
    return starts


def test_texts_of_a_shard_that_is_read_from_the_same_bytes_are_taken_over_whole(corpus, sent, parsed):
    touch(corpus)
    _, reuse = corpus.embed()["text"]
    assert (parsed["text"], reuse["copied"]) == ([], 50)
    parsed["image"].clear()
    append(corpus)
    corpus.write()
    _, reuse = corpus.embed()["text"]
    assert parsed["text"] == [3]
    assert (reuse["copied"], reuse["encoded"], sent["text"]) == (50, 1, 1)
    assert len(parsed["image"]) == 7, "pictures may have changed where they are"


def test_rows_that_cannot_be_read_are_named_by_where_they_stand_now(tmp_path):
    corpus = Corpus(tmp_path, rows=16)
    corpus.write()
    path = corpus.folder / "rows0.jsonl"
    path.write_text(path.read_text().replace('{"id": "k3"', '{"id": "k3'))
    assert "rows0.jsonl#3" in corpus.embed()["text"][0]
    path.rename(path.with_name("rows9.jsonl"))
    assert "rows9.jsonl#3" in corpus.embed()["text"][0]


@pytest.mark.parametrize("flag", ["retry_bad", "recheck"])
def test_a_shard_with_a_bad_row_is_not_taken_over_whole(tmp_path, sent, parsed, flag):
    corpus = Corpus(tmp_path, rows=16)
    for row in corpus.rows:
        del row["image"]
    corpus.rows[3]["text"] = {"not": "text"}
    corpus.rows[12]["text"] = ""
    corpus.write()
    path = corpus.folder / "rows0.jsonl"
    path.write_text(path.read_text().replace('{"id": "k3"', '{"id": "k3'))
    first = corpus.embed()["text"]
    parsed["text"].clear()
    os.utime(path, ns=(1, 1))
    again = corpus.embed(**{flag: True})["text"]
    assert again[0] == first[0]
    assert parsed["text"] == [8], "an empty text is none that could be read another time"
    assert (again[1]["copied"], again[1]["missing"], again[1]["rejected"]) == (14, 1, 1)


def test_where_nothing_is_new_no_model_is_loaded(corpus, monkeypatch):
    def refuse(spec, device):
        raise ValueError("damaged weights")

    monkeypatch.setattr(worker, "load", refuse)
    touch(corpus)
    reorder(corpus)
    corpus.write()
    assert corpus.embed()["text"][1]["copied"] == 50
    append(corpus)
    corpus.write()
    with pytest.raises(JobError, match="ValueError: damaged weights"):
        corpus.embed()


def test_a_picture_that_was_edited_in_place_is_found_by_recheck(corpus, tmp_path, sent):
    corpus.picture("p7.png", 999)
    again = corpus.embed(recheck=True)
    assert (sent["text"], sent["image"]) == (0, 1)
    assert again["image"][0] == corpus.embed(tmp_path / "fresh")["image"][0]


def test_a_picture_with_a_new_stamp_and_the_old_bytes_is_read_and_not_encoded(corpus, sent):
    for row in corpus.rows:
        os.utime(corpus.folder / row["image"], ns=(5, 5))
    corpus.rows.append(corpus.row(100))
    corpus.write()
    corpus.embed()
    assert sent["image"] == 1


def test_unchanged_pictures_are_not_read(corpus, sent, monkeypatch):
    corpus.rows.insert(0, corpus.row(100))
    corpus.write()
    opened = []
    real = known_rows.KnownRows.find
    monkeypatch.setattr(
        known_rows.KnownRows, "find", lambda self, digests: opened.append(list(digests)) or real(self, digests)
    )
    corpus.embed()
    by_content = [sum(digest is not None for digest in call) for call in opened[-14:]]
    assert min(by_content) == 0


def test_equal_rows_of_several_shards_are_encoded_once_by_a_worker(tmp_path, sent):
    corpus = Corpus(tmp_path, rows=5)
    corpus.rows = [row | {"id": f"{row['id']}-{number}"} for number in range(8) for row in corpus.rows]
    corpus.write()
    found = corpus.embed()
    assert (sent["text"], sent["image"]) == (5 + 5, 5 + 5)  # and once more for the sample
    for _, reuse in found.values():
        assert [reuse[part] for part in PARTS] == [0, 0, 35, 5, 0, 0]


def test_rows_without_a_good_value_are_tried_again_and_counted(tmp_path, sent):
    corpus = Corpus(tmp_path, rows=20)
    (corpus.folder / "p3.png").write_bytes(b"no picture")
    corpus.rows[4]["image"] = None
    corpus.write()
    first = corpus.embed()["image"][1]
    assert (first["encoded"], first["missing"], first["rejected"]) == (18, 1, 1)
    corpus.rows.insert(0, corpus.row(100))
    corpus.write()
    again = corpus.embed()["image"][1]
    assert (again["copied"], again["encoded"], again["missing"], again["rejected"]) == (18, 1, 1, 1)


def test_rows_of_another_output_are_taken_over(corpus, tmp_path, sent):
    other = corpus.embed()
    corpus.out = tmp_path / "second"
    corpus.reuse = [str(tmp_path / "out")]
    corpus.rows.append(corpus.row(100))
    corpus.write()
    sent.clear()
    again = corpus.embed()
    assert (sent["text"], sent["image"]) == (1, 1)
    assert {key: vector for key, vector in again["text"][0].items() if key != "k100"} == other["text"][0]
    assert again["text"][1]["copied"] == 50


def test_an_output_to_take_over_from_that_is_not_there_is_no_loss(corpus, tmp_path):
    corpus.reuse = [str(tmp_path / "nothing here")]
    corpus.rows.append(corpus.row(100))
    corpus.write()
    assert corpus.embed()["text"][1]["copied"] == 50


@pytest.mark.parametrize("loss", ["index", "damage", "embeddings"])
def test_what_is_lost_is_made_again(corpus, sent, loss):
    storage, lost = Storage(str(corpus.out)), 0
    if loss == "index":
        storage.remove(storage.list(FOLDER))
    elif loss == "damage":
        for path in storage.list(FOLDER):
            storage.write(path, b"damaged")
    else:
        gone = storage.list("embeddings/text")[:2]
        lost = sum(storage.parquet_metadata(path).num_rows for path in gone)
        storage.remove(gone)
    corpus.rows.insert(0, corpus.row(100))
    corpus.write()
    again = corpus.embed()
    assert again["text"][1]["encoded"] == sent["text"] == 1 + lost


@given(st.lists(st.sampled_from([*CHANGES, "lose", "kill"]), max_size=5), st.integers(0, 2**20))
@settings(max_examples=8, deadline=None)
def test_any_sequence_of_changes_gives_the_vectors_of_a_fresh_run(tmp_path_factory, changes, seed):
    folder = tmp_path_factory.mktemp("world")
    corpus, chance = Corpus(folder, rows=20), random.Random(seed)
    corpus.shard = chance.choice((3, 8))
    corpus.write()
    corpus.embed()
    for number, change in enumerate(changes):
        storage = Storage(str(corpus.out))
        if change == "lose":
            storage.remove(chance.sample(storage.list("embeddings"), 2))
        elif change == "kill":
            corpus.rows.insert(chance.randrange(len(corpus.rows)), corpus.row(600 + number))
            corpus.write()
            _killed_at(chance.randrange(1, 4), corpus)
        else:
            change(corpus)
        corpus.write()
        again = corpus.embed(recheck=edit_a_picture_in_place in changes)
    if changes:
        fresh = corpus.embed(folder / "fresh")
        assert {name: vectors for name, (vectors, _) in again.items()} == {name: v for name, (v, _) in fresh.items()}


def _killed_at(shard, corpus):
    real, left = worker.EmbedWorker._commit, iter(range(shard))

    def commit(self, *args):
        if next(left, None) is None:
            raise KeyboardInterrupt
        real(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.EmbedWorker, "_commit", commit)
        with pytest.raises(KeyboardInterrupt):
            corpus.embed()


def test_arrays_of_a_found_row_are_those_of_its_file():
    table = pa.table(
        {
            "vector": pa.FixedSizeListArray.from_arrays(pa.array(np.arange(6, dtype=np.float32)), 2),
            "ok": [True, False, True],
            "digest": pa.array([b"a" * 16, b"b" * 16, None], pa.binary(16)),
            "seen": pa.array([None, None, b"c" * 16], pa.binary(16)),
        }
    )
    file = known_rows.KnownFile.of(table)
    assert len(file.entries) == 2
    assert file.digests.to_pylist() == [b"a" * 16, None, None]
    assert file.counts.tolist() == [1, 1, 1]


def test_the_plan_says_how_many_of_the_rows_left_are_known(corpus):
    corpus.rows.insert(0, corpus.row(100))
    corpus.write()
    before = Storage(str(corpus.out)).list()
    run = corpus.opened()
    for name in run.inputs:
        left = pending_shards(run, name)
        assert sum(shard.rows for shard in left) == 51
        assert 45 <= count_known(run, name, left) <= 51
    assert Storage(str(corpus.out)).list() == before
    assert count_known(corpus.opened(out=corpus.folder / "new"), "text", run.shards) == 0
