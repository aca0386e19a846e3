"""Inputs side by side: as many at once as there is room, in threads of their own; how they end."""

import json
import threading
from contextvars import ContextVar

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.dispatch.in_process import InProcessExecutor
from barycenter.infra.job.models import Job
from barycenter.infra.ray.cluster import Cluster
from barycenter.infra.ray.sizing import Machines, Node
from barycenter.infra.versions.embedding_files import embedding_path
from barycenter.tasks.embed.settings import find_execution, pin_batch_settings
from barycenter.tasks.embed.side_by_side import side_by_side
from barycenter.tasks.embed.stage import embed_input, input_workers, pending_shards
from barycenter.tasks.embed.versions_check import machine_of
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids
from barycenter.tasks.run.workers import THIS_PROCESS

ROWS = 600
WIDTHS = {"a": 2, "b": 3, "c": 4, "alike": 2}
MARK: ContextVar[str] = ContextVar("mark", default="")


class Imagined(Cluster):
    """A cluster of some CPUs whose workers run in the thread that waits for them."""

    def executor(self, worker, args, allocation, name):
        return InProcessExecutor(worker, args, allocation.threads)


def cluster(cpus, gpus=0):
    return Imagined("local", lambda: Machines("local", (Node(cpus, gpus),), own=True))


def run_of(tmp_path, name="out", inputs=("a", "b", "c")):
    corpus = tmp_path / "rows.jsonl"
    widths = {each: WIDTHS[each] for each in inputs}
    rows = [{"id": str(n), **{each: [float(n)] * width for each, width in widths.items()}} for n in range(ROWS)]
    if not corpus.exists():
        corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    vectors = {each: {"kind": "vector", "column": each} for each in inputs}
    corpus = {"path": str(corpus), "key": "id", "rows_per_shard": 100}
    return Run(Job.model_validate({"corpus": corpus, "inputs": vectors, "output": {"path": str(tmp_path / name)}}))


class Watched:
    """Embeds, and notes how many do at a time; the first wait until as many as ``meet`` have come."""

    def __init__(self, meet=1):
        self.lock, self.now, self.most = threading.Lock(), 0, 0
        self.meet, self.met = meet, threading.Event()

    def __call__(self, run, name, *args):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            if self.most >= self.meet:
                self.met.set()
        assert self.met.wait(60)
        try:
            return embed_input(run, name, *args)
        finally:
            with self.lock:
                self.now -= 1


@pytest.mark.parametrize(("cpus", "at_once"), [(1, 1), (2, 2), (16, 3)])
def test_as_many_at_once_as_there_is_room_for(tmp_path, cpus, at_once):
    run, embed = run_of(tmp_path), Watched(meet=at_once)
    figures = side_by_side(run, cluster(cpus), embed)
    assert list(figures) == ["embed a", "embed b", "embed c"]
    assert all(about["rows"] == ROWS for about in figures.values())
    assert embed.most == at_once
    assert [pending_shards(run, name) for name in run.inputs] == [[], [], []]


def test_inputs_of_one_encoder_follow_one_another(tmp_path):
    run, seen = run_of(tmp_path, inputs=("a", "b", "alike")), []

    def embed(run, name, *args):
        seen.append((name, threading.current_thread().name))
        return embed_input(run, name, *args)

    figures = side_by_side(run, cluster(16), embed)
    threads = dict(seen)
    assert threads["a"] == threads["alike"]
    assert [name for name, _ in seen if name != "b"] == ["a", "alike"]
    assert [figures[f"embed {name}"]["rows"] for name in run.inputs] == [ROWS] * 3


def test_in_this_process_they_follow_one_another(tmp_path):
    run, embed = run_of(tmp_path), Watched()
    side_by_side(run, THIS_PROCESS, embed)
    assert embed.most == 1
    assert all(not pending_shards(run, name) for name in run.inputs)


def test_their_vectors_are_those_of_one_after_another(tmp_path):
    together, apart = run_of(tmp_path, "together"), run_of(tmp_path, "apart")
    side_by_side(together, cluster(16), embed_input)
    side_by_side(apart, THIS_PROCESS, embed_input)

    def vectors(run):
        paths = [
            embedding_path(name, embedding_ids(run)[name], shard.id) for name in run.inputs for shard in run.shards
        ]
        return [run.storage.read_table(path, columns=["key", "vector"]).to_pylist() for path in paths]

    assert vectors(together) == vectors(apart)


def test_what_is_done_is_not_waited_for(tmp_path):
    run = run_of(tmp_path)
    embed_input(run, "b", THIS_PROCESS)
    seen = []

    def embed(run, name, *args):
        seen.append((name, threading.current_thread() is threading.main_thread()))
        return embed_input(run, name, *args)

    figures = side_by_side(run, cluster(16), embed)
    assert sorted(seen) == [("a", False), ("b", True), ("c", False)]
    assert figures["embed b"]["shards_done_before"] == 6


def test_context_goes_along(tmp_path):
    run, seen = run_of(tmp_path), []
    MARK.set("the run")

    def embed(run, name, *args):
        seen.append(MARK.get())
        return embed_input(run, name, *args)

    side_by_side(run, cluster(16), embed)
    assert seen == ["the run"] * 3


def test_one_that_fails_ends_the_others_and_is_what_is_reported(tmp_path):
    run, ended = run_of(tmp_path), []

    def embed(run, name, on, share, inputs):
        if name == "b":
            raise RunError("the storage is gone")
        share.begin("cpu", 4, 4, ROWS)
        try:
            while share.workers():
                threading.Event().wait(0.01)
        finally:
            ended.append(name)

    with pytest.raises(RunError, match=r"^the storage is gone$"):
        side_by_side(run, cluster(16), embed)
    assert set(ended) <= {"a", "c"}
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embed")]


def test_an_interruption_ends_all(tmp_path, monkeypatch):
    run, ended = run_of(tmp_path), []

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("barycenter.tasks.embed.side_by_side.wait", interrupted)

    def embed(run, name, on, share, inputs):
        share.begin("cpu", 4, 4, ROWS)
        try:
            while share.workers():
                threading.Event().wait(0.01)
        finally:
            ended.append(name)

    with pytest.raises(KeyboardInterrupt):
        side_by_side(run, cluster(16), embed)
    assert len(ended) >= 1
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("embed")]


def test_workers_have_the_threads_that_the_plan_has_for_this_machine(tmp_path, monkeypatch):
    run = run_of(tmp_path)
    four = cluster(4)
    assert (input_workers(run, "a", four, 10**4, 2).workers, input_workers(run, "a", four, 10**4).threads) == (4, 4)
    side = input_workers(run, "a", four, 10**4, 2)
    pin_batch_settings(run, "a", side, find_execution(run, "a", side), machine_of(run.specs["a"], "cpu"))
    alone = input_workers(run, "a", four, 10**4)
    assert (alone.workers, alone.threads) == (4, 1), "a plan made beside another input leaves no core idle"
