"""The embed stage: the plan fixed first, memory that runs out, shards that overlap."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import barycenter.tasks.embed.stage
from barycenter.fusion.encoders.machine import machine_kind
from barycenter.fusion.encoders.trial import find_fastest
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.job.models import Job
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.embed import settings, tuning, versions_check
from barycenter.tasks.embed.stage import embed_input, limited_by, pending_shards
from barycenter.tasks.embed.worker import EmbedWorker, ShardJob
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids
from barycenter.tasks.run.workers import THIS_PROCESS

ROWS, FITS = 90, 5


class Crowded(EmbedWorker):
    """Its device holds five rows."""

    def __init__(self, setting):
        super().__init__(setting)
        encoder = self.pipeline.encoder
        encode = encoder.encode

        def launch(batch):
            if len(batch) > FITS:
                raise torch.OutOfMemoryError(f"{len(batch)} rows")
            return encode(batch)

        encoder.launch = launch


def run_of(tmp_path, **given):
    corpus = tmp_path / "rows.jsonl"
    if not corpus.exists():
        corpus.write_text("".join(json.dumps({"id": str(n), "text": f"row number {n}"}) + "\n" for n in range(ROWS)))
    return Run(
        Job.model_validate(
            {
                "corpus": {"path": str(corpus), "key": "id", "rows_per_shard": 20},
                "inputs": {"text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"} | given},
                "output": {"path": str(tmp_path / "out")},
                "ray": {"workers": 1, "threads_per_worker": 1},
            }
        )
    )


def drop_shard(run, place):
    run.storage.remove([embedding_path("text", embedding_ids(run)["text"], run.shards[place].id)])


def vectors(run):
    paths = [embedding_path("text", embedding_ids(run)["text"], shard.id) for shard in run.shards]
    return np.array([v for path in paths for v in run.storage.read_table(path).column("vector").to_pylist()])


def test_every_row_is_embedded_where_memory_runs_out_and_the_report_says_the_batch(tmp_path, monkeypatch):
    run = run_of(tmp_path, batch=64)
    monkeypatch.setattr(barycenter.tasks.embed.stage, "EmbedWorker", Crowded)
    figures = embed_input(run, "text", THIS_PROCESS)
    assert (figures["rows"], figures["batch"], figures["least_batch"]) == (ROWS, 64, FITS)
    assert len(np.unique(vectors(run), axis=0)) == ROWS
    assert pending_shards(run, "text") == []


def test_the_plan_is_fixed_first_and_kept_and_overlapping_shards_change_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "fixed_batch_size", lambda _: None)
    run = run_of(tmp_path)
    figures = embed_input(run, "text", THIS_PROCESS)
    plan = json.loads(run.storage.read("plan.json"))
    assert (plan["engine"], list(plan["machines"])) == ("torch", [machine_kind("cpu")])
    (machine,) = plan["machines"].values()
    assert machine["inputs"]["text"] | {"batch": figures["batch"]} == machine["inputs"]["text"]
    assert set(machine["inputs"]["text"]) == {
        "encoder_id", "device", "asked", "batch", "threads", "dtype", "compiled", "onednn", "model_threads",
    }  # fmt: skip
    assert {"torch", "numpy", "ray"} <= set(machine["libraries"])
    assert figures["trial"] > 0
    assert set(figures["parts"]) == {"read", "prepare", "model", "write", "waiting"}
    assert 0 < figures["start_seconds"] < figures["seconds"]
    first = vectors(run)
    drop_shard(run, 1)
    again = embed_input(run, "text", THIS_PROCESS)
    assert (again["rows"], again["batch"], again["start_seconds"]) == (20, figures["batch"], 0.0)
    assert again["trial"] == 0
    assert json.loads(run.storage.read("plan.json")) == plan
    assert np.array_equal(vectors(run), first)


def test_of_two_runs_that_fix_a_batch_at_once_one_follows_the_other(tmp_path):
    run, workers = run_of(tmp_path), WorkerAllocation(1, 2)
    first = settings.Execution(64, 2, "float32", "cpu")
    second = replace(first, batch=128)
    assert settings.pin_batch_settings(run, "text", workers, first) == first
    assert settings.pin_batch_settings(run, "text", workers, second) == first
    assert settings.find_execution(run, "text", workers, "") == first


@pytest.mark.parametrize(
    ("parts", "kind", "device", "word"),
    [
        ({"model": 5, "waiting": 8, "prepare": 9, "read": 1}, "text", "cpu", "tokenize-bound"),
        ({"model": 5, "waiting": 1, "prepare": 6, "read": 9}, "image", "cpu", "decode-bound"),
        ({"model": 5, "waiting": 2, "prepare": 4, "read": 9}, "image", "cpu", "model-bound"),
        ({"model": 5, "waiting": 8, "prepare": 4, "read": 9}, "image", "cpu", "read-bound"),
        ({"model": 5, "waiting": 1, "prepare": 1, "read": 9}, "image", "cuda", "read-bound"),
        ({"model": 5, "waiting": 0, "prepare": 1, "read": 9}, "image", "cuda", "model-bound"),
        ({"model": 1, "waiting": 1, "write": 4}, "text", "cuda", "write-bound"),
    ],
)
def test_what_limits_the_stage_is_named(parts, kind, device, word):
    assert limited_by(parts, kind, device).startswith(word)


def test_what_runs_no_model_needs_no_trials(tmp_path):
    assert settings.find_execution(run_of(tmp_path), "text", WorkerAllocation(1, 2)) == settings.Execution(
        256, 2, "float32", "cpu"
    )


class Uncalibrated(EmbedWorker):
    """Finding the batch brings the worker down at the rows of the first shard."""

    def _calibrated(self, job):
        if job.sample is not None and job.sample.start == 0:
            raise ValueError("a row that nothing survives")
        return super()._calibrated(job)

    def try_rows(self, payload, rows):
        raise AssertionError("nothing is searched for")


class NeverCalibrated(Uncalibrated):
    """Finding the batch brings the worker down at any row."""

    def _calibrated(self, job):
        if job.sample is not None:
            raise ValueError("a row that nothing survives")
        return super()._calibrated(job)


def test_each_kind_of_machine_has_its_own_plan(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "fixed_batch_size", lambda _: None)
    run = run_of(tmp_path)
    embed_input(run, "text", THIS_PROCESS)
    (first,) = json.loads(run.storage.read("plan.json"))["machines"].items()
    drop_shard(run, 1)
    monkeypatch.setattr(versions_check, "machine_kind", lambda _: "another")
    figures = embed_input(run, "text", THIS_PROCESS)
    machines = json.loads(run.storage.read("plan.json"))["machines"]
    assert machines[first[0]] == first[1]
    assert machines["another"]["inputs"]["text"]["batch"] == figures["batch"]
    assert figures["start_seconds"] > 0
    drop_shard(run, 1)
    assert embed_input(run, "text", THIS_PROCESS)["start_seconds"] == 0
    assert json.loads(run.storage.read("plan.json"))["machines"] == machines


class Mixed(EmbedWorker):
    """Is on another kind of machine than the driver and the worker that found the batch."""

    def run(self, payload):
        if isinstance(payload, ShardJob):
            self._machine = self._tuning._machine = "another"
            self._tuning.execution = self._tuning.execution if "another" in payload.executions else None
        return super().run(payload)


def test_a_worker_of_a_kind_that_nobody_knew_finds_its_own_batch_and_the_next_follows(tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "fixed_batch_size", lambda _: None)
    monkeypatch.setattr(barycenter.tasks.embed.stage, "EmbedWorker", Mixed)
    run = run_of(tmp_path)
    asked = []
    monkeypatch.setattr(
        tuning, "find_fastest", lambda *given, **more: asked.append(more) or find_fastest(*given, **more)
    )
    figures = embed_input(run, "text", THIS_PROCESS)
    assert figures["rows"] == ROWS
    assert {each["rows"] for each in asked} == {ROWS}
    assert 2 <= len(asked) < 1 + len(run.shards)
    machines = json.loads(run.storage.read("plan.json"))["machines"]
    assert set(machines) == {machine_kind("cpu"), "another"}
    assert machines["another"]["inputs"]["text"]["batch"] > 0
    asked.clear()
    drop_shard(run, 1)
    embed_input(run, "text", THIS_PROCESS)
    assert not asked


@pytest.mark.parametrize("worker", [Uncalibrated, NeverCalibrated])
def test_a_row_that_brings_calibration_down_does_not_keep_the_others_from_being_embedded(tmp_path, monkeypatch, worker):
    monkeypatch.setattr(settings, "fixed_batch_size", lambda _: None)
    monkeypatch.setattr(barycenter.tasks.embed.stage, "EmbedWorker", worker)
    run = run_of(tmp_path)
    figures = embed_input(run, "text", THIS_PROCESS)
    assert figures["rows"] == ROWS
    assert figures["batch"] > 0
    assert pending_shards(run, "text") == []
