import pytest
import torch

from barycenter.fusion.encoders import batch_size
from barycenter.fusion.encoders.batch_size import find_batch_size
from barycenter.fusion.encoders.pipeline import Pipeline
from tests.fusion.encoders.test_pipeline import Lengths


class Stopwatch:
    """Stands still until an encoder says how long its batch took."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def watch(monkeypatch):
    stopwatch = Stopwatch()
    monkeypatch.setattr(batch_size, "time", stopwatch)
    return stopwatch


class Paced(Lengths):
    """A batch takes ten milliseconds, and ``slow`` more for each row above eight, on a stopwatch."""

    def __init__(self, watch: Stopwatch, slow: float = 0.0, memory: int = 10**9) -> None:
        super().__init__(memory=memory)
        self.watch, self.slow, self.sizes = watch, slow, []

    def seconds(self, batch):
        return 0.01 + self.slow * max(0, len(batch) - 8)

    def encode(self, batch):
        self.sizes.append(len(batch))
        self.watch.now += self.seconds(batch)
        return super().encode(batch)


def found(encoder, sample, **rows):
    with Pipeline(encoder, 1) as pipeline:
        return find_batch_size(pipeline, sample, **rows)


def test_it_stays_within_memory(watch):
    for memory in (1, 2, 4, 8, 16):
        encoder = Paced(watch, memory=memory)
        assert found(encoder, ["a"] * 64) == memory
        assert max(encoder.sizes) == 2 * memory


def test_bad_rows_are_skipped(watch):
    encoder = Paced(watch)
    assert found(encoder, ["", "a", ""]) == 32
    assert {word for batch in encoder.batches for word in batch} == {"a"}
    assert found(Paced(watch), [""]) == Lengths.batch_sizes[1]


def test_it_climbs_while_that_pays(watch):
    assert found(Paced(watch), ["a"] * 64) == 32
    assert found(Paced(watch, slow=0.03), ["a"] * 64) == 8


def test_of_sizes_that_run_alike_the_smallest_is_taken(watch):
    class Even(Paced):
        def seconds(self, batch):
            return 0.01 * len(batch) * (0.99 if len(batch) == 16 else 1.0)

    assert found(Even(watch), ["a"] * 64) == 1


def test_every_thread_of_the_model_takes_part(watch):
    class Parallel(Paced):
        parallel = True

        def launch(self, batch):
            self.batches_launched = getattr(self, "batches_launched", 0) + 1
            return super().launch(batch)

    encoder = Parallel(watch)
    sizes = len(Lengths.batch_sizes)
    with Pipeline(encoder, 3) as pipeline:
        assert find_batch_size(pipeline, ["a"] * 64) == 32
    assert encoder.batches_launched % 3 == 0
    assert encoder.batches_launched >= 3 * 2 * (sizes - 1)


def test_it_descends_where_small_is_fast(watch):
    class Small(Paced):
        def seconds(self, batch):
            return 0.004 * len(batch) ** 2

    assert found(Small(watch), ["a"] * 8) == 1


def test_rows_that_cost_most_decide(watch):
    class Long(Paced):
        def seconds(self, batch):
            return 0.001 * len(batch[0]) + 0.05 * max(0, len(batch) * len(batch[0]) - 8)

    assert found(Long(watch), ["a"] * 60 + ["abcdefgh"] * 30) == 1
    assert found(Long(watch), ["a"] * 600 + ["abcdefgh"] * 30) == 8


def test_few_rows_are_worth_few_trials(watch):
    few, many = Paced(watch), Paced(watch)
    found(few, ["a"] * 64, rows=100)
    found(many, ["a"] * 64, rows=10**6)
    assert len(set(few.sizes) - {1}) == 1
    assert len(set(many.sizes)) > 3


def test_a_slow_model_is_not_tried_for_more_than_ten_seconds(watch):
    class Slow(Paced):
        def seconds(self, batch):
            return 4.0

    encoder = Slow(watch)
    assert found(encoder, ["a"] * 64) == 4
    assert watch.now < 25


def test_another_failure_is_not_taken_for_a_full_memory(watch):
    class Broken(Lengths):
        def encode(self, batch):
            raise RuntimeError("device-side assert")

    with pytest.raises(RuntimeError, match="device-side"):
        found(Broken(), ["a"] * 4)
    assert issubclass(torch.OutOfMemoryError, RuntimeError)
