"""An encoder that does not fit into memory is refused before the work."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from barycenter.fusion.encoders import EncoderSpec
from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.tasks.planning import memory
from barycenter.tasks.planning.memory import BESIDE, weight_bytes
from barycenter.tasks.planning.plan import prepare
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_lines


@pytest.fixture
def model(tmp_path):
    """A folder with a million numbers of two bytes in each of two files, and the same once more in another format."""
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("a", "b"):
        save_file({"weight": np.zeros(10**6, np.float16)}, folder / f"{name}.safetensors")
    (folder / "pytorch_model.bin").write_bytes(bytes(10**6))
    return folder


@pytest.mark.parametrize(("dtype", "size"), [("float32", 8e6), ("bfloat16", 4e6)])
def test_weights_count_in_the_format_that_they_are_used_in(model, dtype, size):
    assert weight_bytes(EncoderSpec("text", str(model), dtype=dtype)) == pytest.approx(size, rel=1e-3)


def test_where_there_are_no_weights_nothing_is_counted(tmp_path):
    for encoder in ("builtin/hashing", "some/model-of-the-hub", str(tmp_path), None):
        assert weight_bytes(EncoderSpec("text", encoder)) == 0


@pytest.mark.parametrize(("address", "allowed", "fits"), [
    ("local", BESIDE, False), ("none", BESIDE, False), ("auto", BESIDE, True), ("local", BESIDE + 10**7, True),
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
    with pytest.raises(JobError, match=r"^inputs.text.encoder: its weights take 0.0 GiB .* allows 2.0 GiB"):
        prepare(job)
