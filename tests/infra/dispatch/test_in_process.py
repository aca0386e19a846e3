"""The executor in this process: the same scheduler, one worker, nothing of Ray."""

import os

import pytest
from threadpoolctl import threadpool_info

from barycenter.fusion.errors import RunError
from barycenter.infra.dispatch.api import Work, dispatch, run_all
from barycenter.infra.dispatch.in_process import InProcessExecutor
from tests.infra.dispatch.poisoned import Poisoned, without_rows


class Remembering:
    """Changes what it was made of and what it is given."""

    def __init__(self, made_of):
        self.made_of = made_of

    def run(self, payload):
        payload.append("run")
        self.made_of.append(os.getpid())
        threads = {each["num_threads"] for each in threadpool_info()}
        return list(payload), list(self.made_of), threads


class Unmade:
    def __init__(self):
        raise RunError("no model")


def bug():
    raise ValueError("a row it cannot take")


def test_units_are_done_in_order_by_one_worker_and_nothing_of_the_caller_is_changed():
    made_of, payloads, results = [], [["a"], ["b"]], []
    work = [Work(str(number), payload, 1) for number, payload in enumerate(payloads)]
    run_all(work, InProcessExecutor(Remembering, (made_of,), 1), "unit", lambda _, value: results.append(value))
    here = os.getpid()
    assert [(given, pids) for given, pids, _ in results] == [(["a", "run"], [here]), (["b", "run"], [here, here])]
    assert all(threads <= {1} for *_, threads in results)
    assert (made_of, payloads) == ([], [["a"], ["b"]])


def test_poisoned_rows_are_found_as_on_a_cluster():
    done = []
    work = [Work("good", (4, ()), 4), Work("bad", (64, ()), 64)]
    executor = InProcessExecutor(Poisoned, ({5, 63}, bug), 1)
    quarantined = dispatch(work, executor, on_done=lambda _, rows: done.append(rows), without_rows=without_rows)
    assert sorted(done) == [4, 62]
    assert [(each.id, each.rows) for each in quarantined] == [("bad", (5, 63))]


def test_a_worker_that_cannot_be_made_ends_the_run():
    with pytest.raises(RunError, match=r"^no model$"):
        run_all([Work("a", None, 1)], InProcessExecutor(Unmade, (), 1), "unit", lambda *_: None)
