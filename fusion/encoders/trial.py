"""How an encoder runs fastest on this machine, found by a short trial on real rows: nothing of it moves its vectors."""

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from barycenter.fusion.encoders.base import Encoder, Vectors
from barycenter.fusion.encoders.batch_size import MARGIN, PATIENCE, SHARE, find_batch_size, throughput
from barycenter.fusion.encoders.pipeline import Pipeline, out_of_memory, rows_that_fit
from barycenter.fusion.encoders.prefetch import prepare

_BATCHES = 4
_COMPARED_ROWS = 16
_LEAST_THREADS = 4
_LOAD_SECONDS = 1.0


class MakePipeline(Protocol):
    """Loads the encoder with or without oneDNN layers, its model on ``model_threads`` threads (None: all)."""

    def __call__(self, *, onednn: bool, model_threads: int | None) -> Pipeline:
        """The encoder, loaded."""


@dataclass(frozen=True, slots=True)
class Fastest:
    """What won.

    Attributes:
        pipeline: Set up so.
        batch: Rows, or tokens of text, at a time.
        onednn: Whether linear layers run through oneDNN.
        model_threads: Threads that run the model; None: all of them.
        rows: Rows encoded for the trial.
    """

    pipeline: Pipeline
    batch: int
    onednn: bool
    model_threads: int | None
    rows: int


def has_onednn_layers(encoder: Encoder) -> bool:
    """Whether linear layers of the encoder's model run through oneDNN; imports no torch."""
    if "torch" not in sys.modules:
        return False
    from barycenter.fusion.encoders.onednn_linear import has_onednn_layers as found

    return found(encoder)


def may_have_onednn_layers(encoder: Encoder) -> bool:
    """Whether they could, and do not; imports no torch."""
    if "torch" not in sys.modules:
        return False
    from barycenter.fusion.encoders.onednn_linear import has_replaceable_layers

    return has_replaceable_layers(encoder)


def differs_by(first: Vectors, second: Vectors) -> float:
    """The largest difference of two (n, d) sets of vectors, as a share of the first's largest absolute value.

    >>> differs_by(np.float32([[3.0, -4.0]]), np.float32([[3.0, -3.0]]))
    0.25
    """
    if first.shape != second.shape or not np.isfinite(second).all():
        return float("inf")
    scale = float(np.abs(first).max(initial=0.0))
    return float(np.abs(first - second).max(initial=0.0)) / max(scale, float(np.finfo(np.float32).tiny))


def find_fastest(
    make: MakePipeline,
    pipeline: Pipeline,
    sample: Sequence[object],
    *,
    rows: int,
    batch: int | None,
    bound: float,
) -> Fastest:
    """Tries batches, then the model without oneDNN layers (or with them), then on half of the threads.

    Another way than the first is taken only where it is 3 % faster and its vectors are the same, and tried only where
    the rows to come take so long that it may pay (see :func:`~barycenter.fusion.encoders.batch_size.find_batch_size`).

    Args:
        make: Loads the encoder another way.
        pipeline: The encoder as it was loaded; closed if another way wins.
        sample: Raw values or callables; bad ones are skipped.
        rows: Rows to come.
        batch: The batch, where it is given.
        bound: Largest difference of vectors, as a share of their largest absolute value, that counts as the same.
    """
    tried: Counter[str] = Counter()
    batch = batch or int(find_batch_size(pipeline, sample, rows=rows, tried=tried))
    encoder = pipeline.encoder
    onednn, threads, model_threads = has_onednn_layers(encoder), pipeline.model_threads, None
    ordered: list[Any] = []
    other_layers = onednn or may_have_onednn_layers(encoder)
    if other_layers or threads >= _LEAST_THREADS:
        ordered = sorted(prepare(encoder, sample), key=encoder.cost, reverse=True)
    if other_layers and _may_pay(pipeline, ordered, batch, rows, tried):
        winner = _faster(pipeline, make(onednn=not onednn, model_threads=None), ordered, batch, bound, tried)
        onednn, pipeline = onednn if winner is pipeline else not onednn, winner
    if threads >= _LEAST_THREADS and _may_pay(pipeline, ordered, batch, rows, tried):
        fewer = make(onednn=onednn, model_threads=threads // 2)
        winner = _faster(pipeline, fewer, ordered, batch, bound, tried)
        model_threads, pipeline = threads // 2 if winner is fewer else None, winner
    return Fastest(pipeline, batch, onednn, model_threads, tried["rows"])


def _may_pay(pipeline: Pipeline, ordered: list[Any], batch: int, rows: int, tried: Counter[str]) -> bool:
    """Whether trying another way takes ten seconds at most, and a twentieth of the rows to come."""
    if not ordered:
        return False
    cost = pipeline.encoder.cost
    rate = throughput(pipeline, ordered, min(batch, max(map(cost, ordered))), tried)
    patience = min(PATIENCE, SHARE * rows * sum(map(cost, ordered)) / len(ordered) / rate)
    count = rows_that_fit(cost(ordered[0]), batch, batch)
    return patience > _LOAD_SECONDS + _BATCHES * count * cost(ordered[0]) * pipeline.model_threads / rate


def _faster(
    first: Pipeline, second: Pipeline, ordered: list[Any], batch: int, bound: float, tried: Counter[str]
) -> Pipeline:
    """The second where it is faster and gives the same; the other one is closed."""
    compared = ordered[-_COMPARED_ROWS:]
    rates = [0.0, 0.0]
    try:
        same = differs_by(first.encoder.encode(compared), second.encoder.encode(compared)) <= bound
        tried["rows"] += 2 * len(compared)
        if same:
            rates = [throughput(pipeline, ordered, batch, tried) for pipeline in (first, second)]
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
    winner, loser = (second, first) if rates[1] > rates[0] * MARGIN else (first, second)
    loser.__exit__()
    return winner
