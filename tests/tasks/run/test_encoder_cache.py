import json
import os

import pytest

from barycenter.fusion.encoders import Description, EncoderSpec
from barycenter.fusion.errors import JobError
from barycenter.tasks.run import encoder_cache as descriptions
from barycenter.tasks.run.encoder_cache import cached_description


@pytest.fixture
def calls(monkeypatch, tmp_path):
    """Encoders that were described anew; the cache is a folder of the test."""
    made = []

    def describe(spec):
        made.append(spec.encoder)
        return Description.of(len(made), {"kind": spec.kind})

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(descriptions, "describe", describe)
    return made


@pytest.fixture
def spec(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    return EncoderSpec("text", str(tmp_path / "model"))


def test_a_local_encoder_is_described_once_while_its_files_stay(calls, spec, tmp_path):
    first = cached_description(spec)
    assert cached_description(spec) == first
    assert len(calls) == 1
    os.utime(tmp_path / "model" / "config.json", ns=(1, 1))
    assert cached_description(spec) != first
    (tmp_path / "model" / "more.safetensors").write_bytes(b"x")
    cached_description(spec)
    assert len(calls) == 3


def test_another_setting_is_another_description(calls, spec):
    cached_description(spec)
    cached_description(EncoderSpec("text", spec.encoder, dtype="bfloat16"))
    assert len(calls) == 2


def test_what_is_not_on_this_machine_is_never_kept(calls):
    for _ in range(2):
        cached_description(EncoderSpec("text", "some/model"))
        cached_description(EncoderSpec("vector", None, width=3))
    assert len(calls) == 4


def test_a_damaged_cache_is_made_again(calls, spec, tmp_path):
    cached_description(spec)
    (kept,) = (tmp_path / "cache" / "barycenter" / "encoders").iterdir()
    kept.write_text("{")
    assert cached_description(spec).dim == 2
    assert json.loads(kept.read_text())["dim"] == 2


def test_a_folder_that_cannot_be_written_costs_nothing(calls, spec, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert cached_description(spec).dim == 1


def test_errors_are_not_kept(monkeypatch, spec):
    def refuse(_spec):
        raise JobError("encoder", "no")

    monkeypatch.setattr(descriptions, "describe", refuse)
    for _ in range(2):
        with pytest.raises(JobError, match="no"):
            cached_description(spec)
