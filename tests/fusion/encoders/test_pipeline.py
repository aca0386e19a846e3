import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from barycenter.fusion.encoders import pipeline as pipeline_module
from barycenter.fusion.encoders.base import Encoder
from barycenter.fusion.encoders.pipeline import Pipeline, embed
from barycenter.fusion.errors import BadInputError, Reason


class Lengths(Encoder):
    """Encodes a word as its length and first letter; notes its batches; has memory for so much."""

    dim = 2
    batch_sizes = (1, 2, 4, 8, 16, 32)

    def __init__(self, memory: int = 10**9, window: int = 7) -> None:
        self.memory, self._window = memory, window
        self.batches: list[list[str]] = []
        self.threads: set[int] = set()

    def prepare(self, value):
        if not value:
            raise BadInputError(Reason.EMPTY, "nothing")
        return value

    def cost(self, prepared):
        return len(prepared)

    def window_rows(self, batch):
        return self._window

    def encode(self, batch):
        self.threads.add(threading.get_ident())
        if max(map(len, batch)) * len(batch) > self.memory:
            raise torch.OutOfMemoryError("full")
        self.batches.append(list(batch))
        return np.array([[len(word), ord(word[0])] for word in batch], np.float32)


WORDS = st.lists(st.text("abcdef", max_size=9), max_size=60)


@settings(deadline=None, max_examples=60)
@given(words=WORDS, batch=st.integers(1, 40), threads=st.integers(1, 3), window=st.integers(1, 20))
def test_every_row_is_accounted_for_in_order(words, batch, threads, window):
    encoder = Lengths(window=window)
    result = embed(encoder, words, batch_size=batch, threads=threads)
    for row, word in enumerate(words):
        assert result.ok[row] == bool(word)
        assert result.vectors[row].tolist() == ([len(word), ord(word[0])] if word else [0, 0])
        assert (result.reasons[row], result.details[row]) == ((None, None) if word else ("empty", "nothing"))
    assert all(len(b) == 1 or max(map(len, b)) * len(b) <= batch for b in encoder.batches)
    again, beside = Lengths(window=window), Lengths(window=window)
    beside.parallel = True
    for other in (again, beside):
        embed(other, words, batch_size=batch, threads=4 - threads)
    assert again.batches == encoder.batches
    assert sorted(beside.batches) == sorted(encoder.batches)
    assert len(encoder.threads) <= 1


@settings(deadline=None, max_examples=40)
@given(words=WORDS, memory=st.integers(9, 40))
def test_out_of_memory_halves_the_batch_and_loses_nothing(words, memory):
    encoder = Lengths(memory=memory, window=30)
    result = embed(encoder, words, batch_size=200, threads=2)
    assert result.ok.tolist() == [bool(word) for word in words]
    assert result.vectors[:, 0].tolist() == [len(word) for word in words]
    assert result.batch_size == 200 or (result.batch_size < 200 and max(map(len, words)) * len(words) > memory)


def test_out_of_memory_is_reported_and_remembered():
    encoder = Lengths(memory=16, window=100)
    result = embed(encoder, ["abcd"] * 64, batch_size=128, threads=1)
    assert result.batch_size == 16
    assert {len(b) for b in encoder.batches} == {4}


class Memory:
    """What a device holds, forty units of it, given back when nothing refers to it any more."""

    def __init__(self) -> None:
        self.used = 0

    def take(self):
        if self.used == 40:
            raise torch.OutOfMemoryError("40 of 40 in use")
        self.used += 1
        kept = type("Unit", (), {})()
        weakref.finalize(kept, self.give)
        return kept

    def give(self):
        self.used -= 1


@pytest.mark.parametrize("rows", [64, 65, 300])
@pytest.mark.parametrize("parallel", [False, True])
def test_what_a_failed_batch_held_is_free_for_the_next(rows, parallel):
    memory = Memory()

    class Activations(Lengths):
        def encode(self, batch):
            with lock:
                held = []
                for _ in batch:
                    held.append(memory.take())  # noqa: PERF401 - a local of this frame, as activations are
                return np.full((len(held), 2), 1.0, np.float32)

    lock = threading.Lock()
    encoder = Activations(window=rows)
    encoder.parallel = parallel
    result = embed(encoder, ["a"] * rows, batch_size=64, threads=2)
    assert (result.batch_size, result.ok.all()) == (32, True)


def test_a_single_row_too_large_is_the_machines_failure():
    with pytest.raises(torch.OutOfMemoryError):
        embed(Lengths(memory=3), ["abcd"], batch_size=64, threads=1)


def test_values_are_read_on_the_threads():
    seen: set[int] = set()

    def read(word: str):
        def reader() -> str:
            seen.add(threading.get_ident())
            if word == "bad":
                raise BadInputError(Reason.FILE_MISSING, word)
            return word

        return reader

    result = embed(Lengths(), [read("abc"), read("bad"), "de"], batch_size=8, threads=2)
    assert result.ok.tolist() == [True, False, True]
    assert result.reasons[1] == "file_missing"
    assert threading.get_ident() not in seen


def test_storage_failures_are_not_the_rows_fault():
    def reader():
        raise ConnectionResetError("again later")

    before = threading.active_count()
    with pytest.raises(ConnectionResetError):
        embed(Lengths(), ["abc", reader, *["abc"] * 500], batch_size=8, threads=2)
    assert threading.active_count() == before


def test_prepared_rows_stay_bounded():
    alive, most, lock = 0, 0, threading.Lock()

    class Counting(Lengths):
        def prepare(self, value):
            nonlocal alive, most
            with lock:
                alive += 1
                most = max(most, alive)
            return value

        def encode(self, batch):
            nonlocal alive
            with lock:
                alive -= len(batch)
            return super().encode(batch)

    embed(Counting(window=10), ["ab"] * 1000, batch_size=20, threads=2)
    assert most <= 3 * 10 + 2 * 10 + 2


class Working(Lengths):
    """Notes how many batches ran at once, and on how many threads torch would have computed each.

    The first batches do not end until as many as ``wanted`` run at once.
    """

    def __init__(self, parallel: bool, wanted: int = 1) -> None:
        super().__init__(window=8)
        self.parallel, self.wanted, self.running, self.most = parallel, wanted, 0, 0
        self.changed = threading.Condition()
        self.inner: set[int] = set()

    def encode(self, batch):
        with self.changed:
            self.running += 1
            self.most = max(self.most, self.running)
            self.changed.notify_all()
            assert self.changed.wait_for(lambda: self.most >= self.wanted, timeout=60)
            self.running -= 1
            self.inner.add(torch.get_num_threads())
            return super().encode(batch)


def test_a_model_on_a_cpu_runs_on_every_thread_by_itself():
    before = torch.get_num_threads()
    for parallel, most, inner in ((True, 3, 1), (False, 1, before)):
        encoder = Working(parallel, wanted=most)
        result = embed(encoder, ["ab"] * 60, batch_size=8, threads=3)
        assert result.ok.all()
        assert (len(encoder.batches), encoder.most, encoder.inner) == (15, most, {inner})
    assert torch.get_num_threads() == before
    with ThreadPoolExecutor(1) as later:
        assert later.submit(torch.get_num_threads).result() == before


def test_one_thread_of_the_model_is_no_reason_for_torch_to_take_more():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for parallel, inner in ((True, 1), (False, 2)):
            encoder = Working(parallel)
            assert embed(encoder, ["ab"] * 9, batch_size=8, threads=1).ok.all()
            assert encoder.inner == {inner}
            assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_batches_are_no_smaller_than_what_a_launch_is_filled_up_to():
    encoder = Working(False)
    encoder.least_rows = 4
    assert embed(encoder, ["ab"] * 10, batch_size=1, threads=1).ok.all()
    assert sorted(map(len, encoder.batches)) == [2, 4, 4]


@pytest.mark.parametrize("parallel", [True, False])
def test_overlapping_calls_share_one_model_and_agree_with_calls_in_turn(parallel):
    encoder = Working(parallel, wanted=2 if parallel else 1)
    words = [[letter * n for n in range(1, 20)] for letter in "abc"]
    with Pipeline(encoder, 2) as pipeline, ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda part: pipeline.embed(part, batch_size=16), words))
    for part, result in zip(words, together, strict=True):
        encode_one_by_one = embed(Lengths(window=8), part, batch_size=16, threads=1)
        assert np.array_equal(encode_one_by_one.vectors, result.vectors)
    assert encoder.most == (2 if parallel else 1)


def test_the_seconds_of_a_call_are_those_of_its_batches(monkeypatch):
    class Stopwatch(threading.local):
        now = 0.0

        def perf_counter(self):
            return self.now

    class Slow(Lengths):
        def encode(self, batch):
            watch.now += 2.0
            return super().encode(batch)

    watch = Stopwatch()
    monkeypatch.setattr(pipeline_module, "time", watch)
    encoder = Slow(window=8)
    seconds = embed(encoder, ["ab"] * 20, batch_size=8, threads=1).seconds
    assert seconds["model"] == 2.0 * len(encoder.batches) == 10.0


def test_a_call_that_fails_leaves_the_threads_to_the_others():
    def reader():
        raise ConnectionResetError("again later")

    with Pipeline(Working(True), 2) as pipeline:
        with pytest.raises(ConnectionResetError):
            pipeline.embed([*["ab"] * 40, reader, *["ab"] * 40], batch_size=8)
        assert pipeline.embed(["ab"] * 40, batch_size=8).ok.all()


def test_vectors_that_are_not_finite_are_bad_inputs_with_a_reason():
    class Broken(Lengths):
        def encode(self, batch):
            vectors = super().encode(batch)
            vectors[[place for place, word in enumerate(batch) if word == "nan"]] = np.nan
            vectors[[place for place, word in enumerate(batch) if word == "inf"], 0] = -np.inf
            return vectors

    result = embed(Broken(), ["a", "nan", "b", "inf"], batch_size=6, threads=2)
    assert result.ok.tolist() == [True, False, True, False]
    assert result.reasons == [None, "not_finite", None, "not_finite"]
    assert all("NaN or infinite" in result.details[row] for row in (1, 3))
    assert result.vectors.tolist() == [[1, ord("a")], [0, 0], [1, ord("b")], [0, 0]]
