"""What runs fastest is found by trying, and taken only where it gives the same vectors."""

import time

import numpy as np
import pytest
import torch

from barycenter.fusion.encoders import trial
from barycenter.fusion.encoders.pipeline import Pipeline
from barycenter.fusion.encoders.trial import differs_by, find_fastest
from tests.fusion.encoders.test_pipeline import Lengths

ROWS = ["a" * (1 + n % 3) for n in range(64)]


class Paced(Lengths):
    """A batch takes so many milliseconds; its numbers are off by ``error``."""

    parallel = True

    def __init__(self, milliseconds, onednn=False, error=0.0, memory=10**9):
        super().__init__(memory=10**9)
        self.seconds, self.onednn, self.error, self.most = milliseconds / 1000, onednn, error, memory

    def encode(self, batch):
        if len(batch) > self.most:
            raise torch.OutOfMemoryError("no memory")
        time.sleep(self.seconds)
        return super().encode(batch) * np.float32(1 + self.error)


@pytest.fixture(autouse=True)
def layers(monkeypatch):
    monkeypatch.setattr(trial, "has_onednn_layers", lambda encoder: encoder.onednn)
    monkeypatch.setattr(trial, "may_have_onednn_layers", lambda encoder: encoder.onednn is False)


def found(other, threads=1, rows=10**6, *, onednn=True):
    made = []

    def load(*, onednn, model_threads):
        made.append((onednn, model_threads))
        return Pipeline(other, threads, model_threads)

    with Pipeline(Paced(4, onednn=onednn), threads) as pipeline:
        fastest = find_fastest(load, pipeline, ROWS, rows=rows, batch=16, bound=1e-5)
        if fastest.pipeline is not pipeline:
            fastest.pipeline.__exit__()
    return fastest, made


def test_onednn_layers_go_where_the_model_is_faster_without():
    fastest, made = found(Paced(2))
    assert (fastest.onednn, fastest.batch, fastest.model_threads) == (False, 16, None)
    assert made == [(False, None)]
    assert fastest.rows > 64


@pytest.mark.parametrize(("milliseconds", "expected"), [(2, True), (8, False)])
def test_onednn_layers_come_where_the_model_is_faster_with_them(milliseconds, expected):
    fastest, made = found(Paced(milliseconds, onednn=True), onednn=False)
    assert (fastest.onednn, made) == (expected, [(True, None)])


@pytest.mark.parametrize("other", [Paced(8), Paced(2, error=1e-3), Paced(2, memory=15)], ids=["slow", "other", "large"])
def test_they_stay_where_it_is_slower_gives_other_vectors_or_does_not_fit(other):
    fastest, made = found(other)
    assert fastest.onednn
    assert made == [(False, None)]


def test_nothing_is_tried_for_a_few_rows():
    fastest, made = found(Paced(2), threads=4, rows=100)
    assert (fastest.onednn, made) == (True, [])


@pytest.mark.parametrize(("half", "threads"), [(Paced(1), 2), (Paced(16), None)])
def test_half_of_the_threads_where_that_is_faster(half, threads):
    with Pipeline(Paced(8, onednn=None), 4) as pipeline:
        fastest = find_fastest(
            lambda *, onednn, model_threads: Pipeline(half, 4, model_threads),
            pipeline,
            ROWS,
            rows=10**6,
            batch=16,
            bound=0,
        )
        assert (fastest.model_threads, fastest.pipeline.model_threads) == (threads, threads or 4)
        if threads:
            fastest.pipeline.__exit__()


def test_a_difference_is_a_share_of_the_largest_value():
    first = np.float32([[1.0, -10.0], [0.0, 2.0]])
    assert differs_by(first, first) == 0
    assert differs_by(first, first + np.float32([[0.0, 0.0], [1e-2, 0.0]])) == pytest.approx(1e-3)
    assert differs_by(first, first[:1]) == differs_by(first, first * np.float32("nan")) == float("inf")
