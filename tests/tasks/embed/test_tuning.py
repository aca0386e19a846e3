"""How a worker sets its encoder up: as it was found, else as is usual on its processor."""

import threading
import time
from types import SimpleNamespace

import pytest

from barycenter.tasks.embed import tuning
from barycenter.tasks.embed.execution import Execution
from barycenter.tasks.embed.tuning import Tuning
from barycenter.tasks.embed.worker import EmbedWorker

FOUND = Execution(64, 2, "float32", "cpu", onednn=True)


class Made(SimpleNamespace):
    closed = False

    def __exit__(self, *error):
        self.closed = True


@pytest.fixture
def made():
    return []


@pytest.fixture(params=[True, False], ids=["wide", "narrow"])
def wide(request, monkeypatch):
    monkeypatch.setattr(tuning, "has_wide_vectors", lambda: request.param)
    return request.param


def tuning_of(made, executions):
    def make(*, onednn, model_threads):
        made.append(Made(onednn=onednn, model_threads=model_threads))
        return made[-1]

    return Tuning(make, executions, "here", 1e-5)


def test_nothing_is_loaded_before_it_is_needed(made, wide):
    first = tuning_of(made, {})
    assert made == []
    assert first.pipeline is first.pipeline
    assert [(each.onednn, each.model_threads) for each in made] == [(wide, None)]


@pytest.mark.parametrize("onednn", [True, False])
def test_what_was_found_is_followed_whatever_is_usual(made, wide, onednn):
    found = Execution(64, 2, "float32", "cpu", onednn=onednn, model_threads=1)
    assert tuning_of(made, {"here": found}).pipeline.onednn is onednn
    assert made[-1].model_threads == 1


@pytest.mark.parametrize("onednn", [True, False])
def test_what_another_worker_found_meanwhile_is_loaded_anew_only_where_it_differs(made, wide, onednn):
    late = tuning_of(made, {})
    usual = late.pipeline
    found = Execution(64, 2, "float32", "cpu", onednn=onednn)
    assert late.settle({"here": found}, FOUND, list, 10) == (found, 0)
    assert usual.closed is (onednn is not wide)
    assert late.pipeline.onednn is onednn
    assert len(made) == 1 + (onednn is not wide)


def test_a_model_is_loaded_once_whatever_number_of_threads_needs_it():
    loaded, both = [], threading.Barrier(2)
    worker = object.__new__(EmbedWorker)
    worker._loading, worker._checked = threading.Lock(), None
    worker.versions = SimpleNamespace(verify=lambda _: 0)

    def make(*, onednn, model_threads):
        loaded.append(Made(onednn=onednn))
        time.sleep(0.05)
        return loaded[-1]

    worker._tuning = Tuning(make, {}, "here", 1e-5)
    found = []

    def ask():
        both.wait()
        found.append(worker.pipeline)

    threads = [threading.Thread(target=ask) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loaded) == 1
    assert found[0] is found[1]


def test_what_the_job_gives_is_not_tried(made, wide):
    late = tuning_of(made, {})
    assert late.settle({}, FOUND, lambda: pytest.fail("no sample is read"), 10) == (FOUND, 0)
