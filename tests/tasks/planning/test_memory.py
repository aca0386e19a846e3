"""An encoder that does not fit into memory is refused before the work."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

from barycenter.fusion.encoders import EncoderSpec
from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.tasks.planning import memory
from barycenter.tasks.planning.memory import BESIDE, weight_bytes
from barycenter.tasks.planning.plan import prepare
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines


@pytest.fixture
def model(tmp_path):
    """A folder with a million numbers of two bytes in each of two files, a place beside them, and another format."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("a", "b"):
        save_file({"a place": np.zeros(4), "weight": np.zeros(10**6, np.float16)}, folder / f"{name}.safetensors")
    (folder / "other.bin").write_bytes(bytes(10**6))
    return folder


@pytest.mark.parametrize("index", [False, True])
def test_files_beside_those_that_are_loaded_do_not_count(model, index):
    if index:
        named = {"weight_map": {"one": "a.safetensors", "two": "a.safetensors"}}
        (model / "model.safetensors.index.json").write_text(json.dumps(named))
    else:
        (model / "a.safetensors").rename(model / "model.safetensors")
    assert weight_bytes(EncoderSpec("text", str(model))) == pytest.approx(4e6, rel=1e-3)


def test_where_nothing_is_left_to_embed_no_model_need_fit(tmp_path, monkeypatch):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(20))
    data = text_and_vector_job(corpus, tmp_path / "out", "memory", ray={"address": "none"})
    run_here(data)
    monkeypatch.setattr(memory, "usable_memory", lambda: 1)
    monkeypatch.setattr(memory, "weight_bytes", lambda _: 8 * 10**6)
    assert prepare(Job.model_validate(data)).inputs
    with corpus.open("a") as stream:
        stream.write(json.dumps(text_and_vector_rows(1, first=20)[0]) + "\n")
    with pytest.raises(JobError, match="its weights take"):
        prepare(Job.model_validate(data))


@pytest.mark.parametrize(("dtype", "size"), [("float32", 8e6), ("bfloat16", 4e6)])
def test_weights_count_in_the_format_that_they_are_used_in(model, dtype, size):
    assert weight_bytes(EncoderSpec("text", str(model), dtype=dtype)) == pytest.approx(size, rel=1e-3)


def test_where_there_are_no_weights_nothing_is_counted(tmp_path):
    for encoder in ("builtin/hashing", "some/model-of-the-hub", str(tmp_path), None):
        assert weight_bytes(EncoderSpec("text", encoder)) == 0


@pytest.mark.parametrize(("address", "allowed", "fits"), [
    ("local", BESIDE["local"], False), ("none", BESIDE["none"], False), ("auto", 1, True),
    ("local", BESIDE["local"] + 10**7, True), ("none", BESIDE["none"] + 10**7, True),
    ("local", None, True),
])  # fmt: skip
def test_one_that_does_not_fit_is_one_sentence_before_the_work(tmp_path, monkeypatch, address, allowed, fits):
    monkeypatch.setattr(memory, "usable_memory", lambda: allowed)
    monkeypatch.setattr(memory, "weight_bytes", lambda spec: 8 * 10**6 if spec.kind == "text" else 0)
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(20))
    job = Job.model_validate(text_and_vector_job(corpus, tmp_path / "out", "memory", ray={"address": address}))
    if fits:
        prepare(job)
        return
    with pytest.raises(JobError, match=r"^inputs.text.encoder: its weights take 0.0 GiB .* allows [12].0 GiB"):
        prepare(job)
