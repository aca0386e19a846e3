"""Other versions of the libraries, other machines: a kept sample says whether the vectors are still the same."""

import io
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from barycenter.fusion.encoders import EncoderSpec
from barycenter.fusion.encoders.builtin import DescriptorEncoder, HashingEncoder
from barycenter.fusion.errors import JobError
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.job.models import Job
from barycenter.infra.versions.embedding_files import embedding_path, sample_path
from barycenter.tasks.embed import versions_check
from barycenter.tasks.embed.settings import find_execution
from barycenter.tasks.embed.stage import embed_input, embed_setting
from barycenter.tasks.embed.versions_check import bound_of, evenly, read_sample
from barycenter.tasks.embed.worker import Calibration, EmbedWorker
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids
from barycenter.tasks.run.workers import THIS_PROCESS

ROWS = 200


def run_of(tmp_path, kind="text", **flags):
    corpus = tmp_path / "rows.jsonl"
    if not corpus.exists():
        lines = [{"id": str(n), "text": None if n % 5 == 0 else f"row {n}", "image": f"{n}.png"} for n in range(ROWS)]
        corpus.write_text("".join(json.dumps(line) + "\n" for line in lines))
    encoder = "builtin/hashing" if kind == "text" else "builtin/descriptor"
    job = {
        "corpus": {"path": str(corpus), "key": "id", "rows_per_shard": 50},
        "inputs": {kind: {"kind": kind, "column": kind, "encoder": encoder}},
        "output": {"path": str(tmp_path / "out")},
        "limits": {"max_bad_fraction": 1.0},
        "ray": {"address": "none", "threads_per_worker": 1},
    }
    return Run(Job.model_validate(job), **flags)


@pytest.fixture
def embedded(tmp_path):
    """A run that is done, but for one shard."""
    run = run_of(tmp_path)
    embed_input(run, "text", THIS_PROCESS)
    drop(run, 1)
    return run


@pytest.fixture
def upgraded(monkeypatch):
    monkeypatch.setattr(versions_check, "library_versions", lambda *names: dict.fromkeys(names, "99.0"))


@pytest.fixture
def moved(monkeypatch):
    """Sets how much larger the encoder's numbers are from now on."""
    encode = HashingEncoder.encode

    def by(share):
        monkeypatch.setattr(HashingEncoder, "encode", lambda self, batch: encode(self, batch) * np.float32(1 + share))

    return by


def drop(run, *places):
    run.storage.remove([path_of(run, place) for place in places])


def path_of(run, place, name="text"):
    return embedding_path(name, embedding_ids(run)[name], run.shards[place].id)


def plan_of(run):
    return json.loads(run.storage.read("plan.json"))


def accepted(run, name="text"):
    return [each["libraries"] for each in plan_of(run)["versions"][run.encoders[name].encoder_id]]


def test_the_first_run_keeps_rows_of_the_output_with_their_vectors(tmp_path):
    run = run_of(tmp_path)
    figures = embed_input(run, "text", THIS_PROCESS)
    sample = read_sample(run.storage, run.encoders["text"].encoder_id)
    assert (len(sample.values), figures["trial"]) == (64, 64)
    first = run.corpus.read(run.shards[0], ["text"]).column("text").to_pylist()
    second = run.corpus.read(run.shards[1], ["text"]).column("text").to_pylist()
    assert None not in sample.values
    assert len(set(sample.values) & set(first)) == 40
    assert len(set(sample.values) & set(second)) == 24
    table = run.storage.read_table(path_of(run, 0))
    written = dict(zip(first, table.column("vector").to_pylist(), strict=True))
    for value, vector in zip(sample.values, sample.vectors.tolist(), strict=True):
        assert vector == written.get(value, vector)


def test_a_run_under_the_same_versions_encodes_no_sample(embedded):
    before = plan_of(embedded)
    assert embed_input(embedded, "text", THIS_PROCESS)["trial"] == 0
    assert plan_of(embedded) == before


def test_other_versions_that_give_the_same_vectors_are_recorded(embedded, tmp_path, upgraded):
    before = read_sample(embedded.storage, embedded.encoders["text"].encoder_id)
    run = run_of(tmp_path)
    assert run.encoders["text"].encoder_id == embedded.encoders["text"].encoder_id
    figures = embed_input(run, "text", THIS_PROCESS)
    assert (figures["trial"], figures["rows"]) == (64, 50)
    assert accepted(run)[1:] == [{"scikit-learn": "99.0"}]
    assert read_sample(run.storage, run.encoders["text"].encoder_id).versions == before.versions
    drop(run, 2)
    assert embed_input(run_of(tmp_path), "text", THIS_PROCESS)["trial"] == 0


def test_a_difference_within_the_bound_is_none(embedded, tmp_path, upgraded, moved):
    moved(5e-6)
    assert embed_input(run_of(tmp_path), "text", THIS_PROCESS)["trial"] == 64


@pytest.mark.parametrize("share", [1e-3, 3e-5, float("nan")])
def test_other_vectors_stop_the_run_before_any_row(embedded, tmp_path, upgraded, moved, share):
    moved(share)
    run = run_of(tmp_path)
    before, files = plan_of(run), run.storage.list("embeddings")
    with pytest.raises(
        JobError, match=r"^inputs\.text\.encoder: gives other vectors .*scikit-learn .* 99\.0 now.*--adopt"
    ):
        embed_input(run, "text", THIS_PROCESS)
    assert (plan_of(run), run.storage.list("embeddings")) == (before, files)


def test_vectors_are_not_compared_where_nothing_changed(embedded, tmp_path, moved):
    moved(1e-3)
    assert embed_input(run_of(tmp_path), "text", THIS_PROCESS)["trial"] == 0


def test_other_vectors_are_adopted_under_a_new_id(embedded, tmp_path, upgraded, moved):
    moved(1e-3)
    old, kept = embedded.encoders["text"].encoder_id, embedded.storage.list("embeddings")
    run = run_of(tmp_path, adopt=True)
    figures = embed_input(run, "text", THIS_PROCESS)
    assert figures["rows"] == ROWS
    new = run.encoders["text"].encoder_id
    assert new != old
    assert set(kept) < set(run.storage.list("embeddings"))
    assert plan_of(run)["adopted"] == {"text": {old: 1}}
    assert accepted(run) == [{"scikit-learn": "99.0"}]
    later = run_of(tmp_path)
    assert later.encoders["text"].encoder_id == new
    assert embed_input(later, "text", THIS_PROCESS)["rows"] == 0
    moved(-1e-3)
    again = run_of(tmp_path, adopt=True)
    drop(again, 0)
    assert embed_input(again, "text", THIS_PROCESS)["trial"] == 0


def test_adopting_changes_nothing_where_the_vectors_are_the_same(embedded, tmp_path, upgraded):
    run = run_of(tmp_path, adopt=True)
    assert embed_input(run, "text", THIS_PROCESS)["rows"] == 50
    assert run.encoders["text"].encoder_id == embedded.encoders["text"].encoder_id
    assert "adopted" not in plan_of(run)


def test_an_error_that_adopting_does_not_help_against_is_raised(embedded, tmp_path, monkeypatch):
    def refuse(self, batch):
        raise JobError("inputs.text.encoder", "no")

    drop(embedded, 0, 2, 3)
    monkeypatch.setattr(HashingEncoder, "encode", refuse)
    with pytest.raises(JobError, match=r"no$"):
        embed_input(run_of(tmp_path, adopt=True), "text", THIS_PROCESS)


def test_without_a_sample_nothing_is_believed(embedded, tmp_path, upgraded):
    embedded.storage.remove([sample_path(embedded.encoders["text"].encoder_id)])
    with pytest.raises(JobError, match=r"inputs\.text\.encoder: cannot be compared .*--adopt"):
        embed_input(run_of(tmp_path), "text", THIS_PROCESS)


def test_a_sample_that_is_gone_is_made_again_under_the_same_versions(embedded):
    path = sample_path(embedded.encoders["text"].encoder_id)
    before = embedded.storage.read_table(path).column("value").to_pylist()
    embedded.storage.remove([path])
    assert embed_input(embedded, "text", THIS_PROCESS)["trial"] > 0
    assert before != embedded.storage.read_table(path).column("value").to_pylist()


def test_what_was_accepted_for_files_that_are_gone_is_not_believed_of_a_new_sample(embedded, tmp_path, upgraded):
    embedded.storage.remove([sample_path(embedded.encoders["text"].encoder_id)])
    drop(embedded, 0, 2, 3)
    run = run_of(tmp_path)
    assert embed_input(run, "text", THIS_PROCESS)["rows"] == ROWS
    assert accepted(run) == [{"scikit-learn": "99.0"}]


def test_every_embedding_file_says_what_it_was_made_under(embedded, tmp_path, upgraded):
    run = run_of(tmp_path)
    embed_input(run, "text", THIS_PROCESS)
    metadata = [pq.read_schema(tmp_path / "out" / path_of(run, place)).metadata for place in (0, 1)]
    old, new = (json.loads(each[b"barycenter"])["versions"] for each in metadata)
    assert old["libraries"] != new["libraries"] == {"scikit-learn": "99.0"}
    assert old["machine"] == new["machine"] != ""


def test_files_of_equal_machines_are_equal_bytes(embedded):
    before = embedded.storage.read(path_of(embedded, 0))
    drop(embedded, 0)
    embed_input(embedded, "text", THIS_PROCESS)
    assert embedded.storage.read(path_of(embedded, 0)) == before


def worker_of(run, name="text"):
    allocation = WorkerAllocation(1, 1)
    return EmbedWorker(embed_setting(run, name, find_execution(run, name, allocation)))


def test_a_worker_on_another_kind_of_machine_checks_by_itself(embedded, monkeypatch, moved):
    assert worker_of(embedded)._checked is None, "nothing is loaded before it is needed"
    same = worker_of(embedded)
    assert same.pipeline
    assert same._checked == 0
    monkeypatch.setattr(versions_check, "machine_kind", lambda device: "another processor")
    assert worker_of(embedded)._checked == 64
    moved(1e-3)
    with pytest.raises(JobError, match="another processor now"):
        worker_of(embedded)


def test_a_worker_that_starts_while_the_first_one_has_just_made_the_sample_believes_it(tmp_path):
    run = run_of(tmp_path)
    late = replace(embed_setting(run, "text", find_execution(run, "text", WorkerAllocation(1, 1))))
    first = worker_of(run)
    assert first.run(Calibration(run.shards[0], ROWS))["kept"]
    assert EmbedWorker(late)._checked == 0


def test_pictures_are_kept_as_they_are_encoded(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for number in range(0, ROWS, 3):
        out = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(out, "PNG")
        (tmp_path / f"{number}.png").write_bytes(out.getvalue())
    run = run_of(tmp_path, "image")
    embed_input(run, "image", THIS_PROCESS)
    sample = read_sample(run.storage, run.encoders["image"].encoder_id)
    assert len(sample.values) == 64
    assert all(value.startswith(b"\x89PNG") for value in sample.values)
    run.storage.remove([path_of(run, 0, "image")])
    for number in range(0, ROWS, 3):
        (tmp_path / f"{number}.png").unlink()
    monkeypatch.setattr(versions_check, "library_versions", lambda *names: dict.fromkeys(names, "99.0"))
    assert worker_of(run, "image")._checked == 64
    encode = DescriptorEncoder.encode
    monkeypatch.setattr(DescriptorEncoder, "encode", lambda self, batch: encode(self, batch) + np.float32(1e-3))
    with pytest.raises(JobError, match=r"numpy .* pillow .*--adopt"):
        worker_of(run, "image")


def test_large_values_make_a_small_sample():
    values = (bytes([n]) * (4 << 20) for n in range(1, 100))
    assert len(versions_check._choose(values)) == 8


def test_ready_vectors_have_no_versions(tmp_path):
    vectors = pa.array(np.eye(3, dtype=np.float32).tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"id": ["a", "b", "c"], "vec": vectors}), tmp_path / "rows.parquet")
    job = {
        "corpus": {"path": str(tmp_path / "rows.parquet"), "key": "id"},
        "inputs": {"vec": {"kind": "vector", "column": "vec"}},
        "output": {"path": str(tmp_path / "out")},
    }
    run = Run(Job.model_validate(job))
    assert embed_input(run, "vec", THIS_PROCESS)["trial"] == 0
    assert "versions" not in plan_of(run)


def test_half_precision_has_a_wider_bound():
    spec = EncoderSpec("text", "some/model")
    assert (bound_of(spec), bound_of(replace(spec, dtype="bfloat16"))) == (1e-5, 1e-2)


@pytest.mark.parametrize("n", [0, 1, 2, 5, 8, 63, 64, 65])
def test_values_are_taken_once_from_everywhere(n):
    taken = list(evenly(range(n)))
    assert sorted(taken) == list(range(n))
    assert n < 8 or max(taken[: n // 2]) >= n // 2
