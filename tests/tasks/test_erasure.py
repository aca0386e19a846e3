"""Rows that are erased are in no byte of an output, and an erasure that was cut short is completed."""

import json
import shutil
from contextlib import suppress

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.fusion.dataset import FusedDataset
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.infra.storage.local import Disk
from barycenter.infra.versions.erasure import NOTE, erase_rows, find_traces
from barycenter.infra.versions.garbage import pin_version, pinned_versions
from barycenter.infra.versions.lease import acquire
from barycenter.infra.versions.manifests import read_manifest, verify, versions
from barycenter.tasks.data.neighbors import open_neighborhood
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines
from tests.tasks.identity_corpus import job, write_everything
from tests.tasks.identity_runs import in_this_process, run_job

FIVE, EIGHT = "person-five-key", "person-eight-key"
MARKS = [FIVE, EIGHT, "unheard of words of five", "kept of five", "hidden-face.png", "gone.png"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The corpus of every key; the row ``FIVE`` has contents of its own, ``EIGHT`` a picture that is not there."""
    folder = tmp_path_factory.mktemp("erasure")
    write_everything(folder)
    path = folder / "rows" / "a.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    shutil.move(folder / "rows" / "5.png", folder / "rows" / "hidden-face.png")
    rows[5] |= {"sku": FIVE, "text": MARKS[2], "other": MARKS[3], "image": MARKS[4]}
    rows[8] |= {"sku": EIGHT}
    write_lines(path, rows)
    return folder


@pytest.fixture
def here(monkeypatch):
    in_this_process(monkeypatch)


def without(corpus, folder):
    """The same corpus with the rows removed."""
    shutil.copytree(corpus / "rows", folder)
    rows = [json.loads(line) for line in (folder / "a.jsonl").read_text().splitlines()]
    write_lines(folder / "a.jsonl", [row for row in rows if row["sku"] not in (FIVE, EIGHT)])
    return folder


def vectors_of(storage, keys):
    """The bytes of every vector that an output holds of some keys, and of every digest, as the index has them, too."""
    found = set()
    for path in [*storage.list("embeddings"), *storage.list("features")]:
        if not path.endswith(".parquet") or "/." in path:
            continue
        table = storage.read_table(path)
        name = next(column for column in ("key", "sku", "id") if column in table.column_names)
        rows = [row for row, key in enumerate(table.column(name).to_pylist()) if key in keys]
        table = table.take(pa.array(rows, pa.int64()))
        found |= set(_vector_lines(table, missing=False))
        for digest in [
            digest for name in {"digest", "seen"} & {*table.column_names} for digest in table[name].to_pylist()
        ]:
            found |= {digest, digest[7::-1] + digest[:7:-1]} if digest is not None else set()
    return found


def _vector_lines(table, missing=True):
    for column in table.columns:
        if pa.types.is_fixed_size_list(column.type):
            for value in column.to_pylist():
                if value is not None and (missing or np.any(value)):
                    yield np.array(value, column.type.value_type.to_pandas_dtype()).tobytes()


def traces_in(storage, marks, vectors):
    """Every mark and vector in every byte and every value of an output: (path, what)."""
    found = []
    for path in storage.list():
        content = storage.read(path)
        found += [(path, mark) for mark in marks if mark.encode() in content]
        found += [(path, "vector") for vector in vectors if vector in content]
        if path.endswith(".parquet"):
            table = storage.read_table(path)
            text = repr([column.to_pylist() for column in table.columns if "list" not in str(column.type)[:15]])
            text += repr([c.to_pylist() for c in table.columns if str(c.type).startswith("list")])
            found += [(path, mark) for mark in marks if mark in text]
            found += [(path, "vector") for line in _vector_lines(table) if line in vectors]
    return found


def erased(storage, *keys, pinned=False):
    lease = acquire(storage, "test", deletes=True)
    try:
        return erase_rows(storage, lease, keys, pinned=pinned)
    finally:
        lease.release()


def whole_job(corpus, out, **output):
    data = job(corpus) | {"ray": {"address": "none"}}
    data["output"] = {"path": str(out), **output}
    return data


@pytest.mark.parametrize(
    "output", [{}, {"partition_by": ["label"], "keep_aligned": True}, {"partition_by": ["other"], "dtype": "float16"}]
)
def test_no_byte_of_an_output_holds_what_was_erased(corpus, tmp_path, here, output):
    storage = Storage(str(tmp_path / "out"))
    run_job(whole_job(corpus, tmp_path / "out"))
    data = whole_job(corpus, tmp_path / "out", **output)
    data["corpus"]["keep"] = ["label", "other", "group"]
    before = run_job(data)
    open_neighborhood(storage, read_manifest(storage))
    storage.write("features/killed/_blocks/00000.json", FIVE.encode())
    storage.write("embeddings/text/.x.parquet.abc.tmp", FIVE.encode())
    vectors = vectors_of(storage, (FIVE, EIGHT))
    assert {mark for _, mark in traces_in(storage, MARKS, vectors)} == {*MARKS, "vector"}
    samples = [storage.read_table(path).num_rows for path in storage.list("embeddings/.samples")]
    done = erased(storage, FIVE, EIGHT)
    assert traces_in(storage, MARKS, vectors) == []
    assert done.traces.versions == (1, 2)
    assert versions(storage) == [3]
    manifest = read_manifest(storage)
    assert manifest == done.committed
    rows = manifest.rows
    assert (rows["read"], rows["written"]) == (before["rows"]["read"] - 2, before["rows"]["written"] - 2)
    assert rows["read"] == rows["written"] + rows["rejected"]
    assert rows["missing"]["image"] == before["rows"]["missing"]["image"] - 1
    assert rows["bad"].get("file_missing", 0) == before["rows"]["bad"]["file_missing"] - 1
    assert verify(storage, manifest) == []
    assert sum(len(batch["fused"]) for batch in FusedDataset(str(tmp_path / "out"))) == rows["written"]
    left = [storage.read_table(path).num_rows for path in storage.list("embeddings/.samples")]
    assert sorted(np.subtract(samples, left)) == [1, 2]  # two texts, one picture
    assert json.loads(storage.read("report/report.json"))["rows"] == rows


def test_the_row_stays_away_once_it_is_gone_from_the_corpus(corpus, tmp_path, here):
    data = whole_job(without(corpus, tmp_path / "rows").parent, tmp_path / "out")
    shutil.rmtree(tmp_path / "rows")
    shutil.copytree(corpus / "rows", tmp_path / "rows")
    for name in ("bert", "vit"):
        shutil.copytree(corpus / name, tmp_path / name)
    run_job(data)
    storage = Storage(str(tmp_path / "out"))
    vectors = vectors_of(storage, (FIVE, EIGHT))
    done = erased(storage, FIVE, EIGHT)
    assert done.traces.sources == {key: [str(tmp_path / "rows" / "a.jsonl")] for key in (FIVE, EIGHT)}
    shutil.rmtree(tmp_path / "rows")
    without(corpus, tmp_path / "rows")
    report = run_job(data)
    assert report["rows"]["read"] == 22
    assert traces_in(storage, [FIVE, EIGHT, *MARKS[2:4]], vectors) == []
    assert report["reuse"]["text"]["encoded"] == 0, "the other rows of the shards are copied"


def test_a_row_that_is_still_in_the_corpus_is_written_again(corpus, tmp_path, here):
    data = whole_job(corpus, tmp_path / "out")
    first = run_job(data)
    storage = Storage(str(tmp_path / "out"))
    erased(storage, FIVE)
    again = run_job(data)
    assert again["rows"] == first["rows"]
    assert again["version"] == first["version"]
    assert again["reuse"]["text"]["encoded"] == 1
    assert verify(storage, read_manifest(storage)) == []


def test_texts_in_lists_and_joined_tables(tmp_path, here):
    rows = text_and_vector_rows(30)
    own = [{"of": row["id"], "texts": f"{row['text']} {n}"} for row in rows for n in (1, 2)]
    own[10]["texts"] = own[11]["texts"] = "unheard of words of five"
    write_lines(tmp_path / "rows.jsonl", rows)
    write_lines(tmp_path / "own.jsonl", own)
    data = text_and_vector_job(tmp_path / "rows.jsonl", tmp_path / "out", "joined", ray={"address": "none"})
    table = {"path": str(tmp_path / "own.jsonl"), "key": "of"}
    data["inputs"]["text"] |= {"column": "texts", "corpus": table}
    data["alignment"] = {"method": "cca", "dim": 3}
    run_job(data)
    storage = Storage(str(tmp_path / "out"))
    vectors = vectors_of(storage, ("r0005",))
    assert len(traces_in(storage, MARKS[2:3], vectors)) > 1
    done = erased(storage, "r0005")
    assert traces_in(storage, ["r0005", MARKS[2]], vectors) == []
    assert done.traces.sources["r0005"] == [str(tmp_path / "rows.jsonl"), str(tmp_path / "own.jsonl")]
    assert run_job(data)["rows"]["written"] == 30


@pytest.fixture
def small(tmp_path, here):
    """An output of two versions."""
    write_lines(tmp_path / "rows" / "a.jsonl", text_and_vector_rows(40))
    data = text_and_vector_job(tmp_path / "rows", tmp_path / "out", "small", ray={"address": "none"})
    data |= {"alignment": {"method": "cca", "dim": 3}, "train": {"target": "label"}}
    run_job(data)
    write_lines(tmp_path / "rows" / "b.jsonl", text_and_vector_rows(20, first=40))
    run_job(data)
    return Storage(str(tmp_path / "out"))


def test_keys_that_are_nowhere_and_pins_change_nothing(small):
    def content():
        return {path: small.read(path) for path in small.list()}

    before = content()
    unknown = CliRunner().invoke(app, ["erase", small.uri(), "r0003", "nobody"])
    assert unknown.exit_code == 1
    assert "no row has the key 'nobody'" in unknown.stderr
    assert content() == before
    pin_version(small, 1)
    before = content()
    pinned = CliRunner().invoke(app, ["erase", small.uri(), "r0003"])
    assert pinned.exit_code == 1
    assert "version 1 holds the row and is pinned" in pinned.stderr
    dry = CliRunner().invoke(app, ["erase", small.uri(), "r0003", "--pinned", "--dry-run"])
    assert "2 vectors in 2 embedding files; in the versions: 1, 2" in dry.stdout
    assert content() == before
    done = CliRunner().invoke(app, ["erase", small.uri(), "r0003", "--pinned"])
    assert done.exit_code == 0
    assert "a.jsonl, unless it was removed there" in done.stdout
    assert "version 3 is without them" in done.stdout
    assert (versions(small), pinned_versions(small)) == ([3], [])
    assert CliRunner().invoke(app, ["inspect", small.uri(), "--verify"]).exit_code == 0


def test_a_version_without_the_row_stays(small):
    pin_version(small, 1)
    done = erased(small, "r0050")
    assert done.traces.versions == (2,)
    assert versions(small) == [1, 3]
    assert verify(small, read_manifest(small, 1)) == []
    assert traces_in(small, ["r0050"], []) == []


def test_every_row_is_refused(small):
    with pytest.raises(RunError, match="no row would be left"):
        erased(small, *(f"r{number:04d}" for number in range(60)))
    assert versions(small) == [1, 2]
    assert not small.exists(NOTE)


class Killed(BaseException):
    pass


class Fuse:
    """Stops a process at its ``left``-th change of a disk, and everything that it would do afterwards."""

    def __init__(self, monkeypatch, left):
        self.left, self.steps = left, 0
        for name in ("replace", "link", "unlink"):
            monkeypatch.setattr(Disk, name, self._burning(getattr(Disk, name)))

    def _burning(self, real):
        def step(disk, *args):
            self.steps += 1
            if self.steps > self.left:
                raise Killed
            return real(disk, *args)

        return step


def test_an_erasure_that_is_killed_anywhere_is_completed_by_the_next(small, tmp_path, monkeypatch):
    vectors = vectors_of(small, ("r0003", "r0050"))
    with monkeypatch.context() as patch:
        trial = Storage(str(shutil.copytree(tmp_path / "out", tmp_path / "trial")))
        fuse = Fuse(patch, 10**9)
        expected = erased(trial, "r0003", "r0050").committed
    assert fuse.steps > 40
    for step in range(fuse.steps):
        folder = tmp_path / f"step-{step}"
        storage = Storage(str(shutil.copytree(tmp_path / "out", folder)))
        with monkeypatch.context() as patch:
            Fuse(patch, step)
            with pytest.raises(Killed):
                erased(storage, "r0003", "r0050")
        assert verify(storage, read_manifest(storage)) == [], step
        shutil.rmtree(folder / "lease", ignore_errors=True)
        with suppress(RunError):  # "no row has the key": killed after the last step that counts
            erased(storage, "r0003", "r0050")
        manifest = read_manifest(storage)
        assert (manifest.version, manifest.files) == (expected.version, expected.files), step
        assert verify(storage, manifest) == [], step
        assert traces_in(storage, ["r0003", "r0050"], vectors) == [], step
        assert not storage.exists(NOTE)
        assert find_traces(storage, ["r0001"]).missing == ()
        shutil.rmtree(folder)


def test_the_tables_that_are_searched_are_decompressed(tmp_path):
    storage = Storage(str(tmp_path))
    vector = pa.array([[1.5, 2.5]], pa.list_(pa.float32(), 2))
    table = pa.table({"key": [FIVE * 50], "v": vector, "l": [[{"source": "gone.png"}]]})
    storage.write_table("a.parquet", table, compression="zstd", write_statistics=False)
    assert len(pq.read_table(tmp_path / "a.parquet")) == 1
    wanted = {np.array([1.5, 2.5], np.float32).tobytes()}
    assert {mark for _, mark in traces_in(storage, MARKS, wanted)} == {FIVE, "gone.png", "vector"}


def test_on_object_storage_too(tmp_path, s3_server, s3_bucket):
    rows = text_and_vector_rows(40)
    rows[5] |= {"id": FIVE, "text": MARKS[2]}
    data = text_and_vector_job(write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "out", "erase")
    data |= {"output": {"path": f"s3://{s3_bucket}/out"}, "storage": {"endpoint_url": s3_server}}
    run_here(data)
    storage = Storage(f"s3://{s3_bucket}/out", s3_server)
    held = vectors_of(storage, {FIVE})
    assert held
    lease = acquire(storage, "erase", deletes=True)
    erase_rows(storage, lease, [FIVE])
    lease.release()
    assert verify(storage, read_manifest(storage)) == []
    assert read_manifest(storage).rows["written"] == 39
    assert vectors_of(storage, {FIVE}) == set()
    for path in storage.list():
        content = storage.read(path)
        assert not any(mark.encode() in content for mark in MARKS), path
        if path.endswith(".parquet"):
            shown = repr(storage.read_table(path).to_pylist())
            assert not any(mark in shown for mark in MARKS), path
    assert run_here(data)["rows"]["read"] == 40, "the corpus still has it"
