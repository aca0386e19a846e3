import threading
import time

import pytest
import torch

from barycenter.fusion.encoders.batch_size import find_batch_size
from barycenter.fusion.encoders.pipeline import Pipeline
from tests.fusion.encoders.test_pipeline import Lengths


def found(encoder, sample, **rows):
    with Pipeline(encoder, 1) as pipeline:
        return find_batch_size(pipeline, sample, **rows)


class Paced(Lengths):
    """Takes ten milliseconds a batch and `slow` more for each row above eight."""

    def __init__(self, slow: float) -> None:
        super().__init__()
        self.slow, self.sizes = slow, []

    def encode(self, batch):
        self.sizes.append(len(batch))
        time.sleep(0.01 + self.slow * max(0, len(batch) - 8))
        return super().encode(batch)


def test_it_stays_within_memory_and_skips_bad_rows():
    assert found(Lengths(memory=8), ["ab", "", "cd", "abc"]) in (1, 2, 4, 8)
    assert found(Lengths(), [""]) in Lengths.batch_sizes
    assert found(Lengths(memory=1), ["a"]) == 1


def test_it_climbs_while_that_pays():
    assert found(Paced(slow=0.0), ["a"] * 64) == 32
    assert found(Paced(slow=0.03), ["a"] * 64) == 8


def test_every_thread_of_the_model_takes_part():
    class Crowded(Paced):
        parallel, most, running = True, 0, 0

        def encode(self, batch):
            with self.lock:
                self.running += 1
                self.most = max(self.most, self.running)
            time.sleep(0.01 * self.running * max(1, len(batch) / 4))
            with self.lock:
                self.running -= 1
                return Lengths.encode(self, batch)

    encoder = Crowded(slow=0.0)
    encoder.lock = threading.Lock()
    with Pipeline(encoder, 3) as pipeline:
        assert find_batch_size(pipeline, ["a"] * 64) >= 4
    assert encoder.most == 3


def test_it_descends_where_small_is_fast():
    class Small(Paced):
        def encode(self, batch):
            time.sleep(0.004 * len(batch) ** 2)
            return Lengths.encode(self, batch)

    assert found(Small(slow=0.0), ["a"] * 8) == 1


def test_rows_that_cost_most_decide():
    class Long(Paced):
        def encode(self, batch):
            time.sleep(0.001 * len(batch[0]) + 0.05 * max(0, len(batch) * len(batch[0]) - 8))
            return Lengths.encode(self, batch)

    assert found(Long(slow=0.0), ["a"] * 60 + ["abcdefgh"] * 30) <= 8


def test_few_rows_are_worth_few_trials():
    few, many = Paced(slow=0.0), Paced(slow=0.0)
    found(few, ["a"] * 64, rows=100)
    found(many, ["a"] * 64, rows=10**6)
    assert len(set(few.sizes) - {1}) == 1
    assert len(set(many.sizes)) > 3


def test_another_failure_is_not_taken_for_a_full_memory():
    class Broken(Lengths):
        def encode(self, batch):
            raise RuntimeError("device-side assert")

    with pytest.raises(RuntimeError, match="device-side"):
        found(Broken(), ["a"] * 4)
    assert issubclass(torch.OutOfMemoryError, RuntimeError)
