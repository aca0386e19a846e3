"""The batch size that runs fastest here, found by trying."""

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from barycenter.fusion.encoders.pipeline import Pipeline, out_of_memory, rows_that_fit
from barycenter.fusion.encoders.prefetch import prepare

MARGIN = 1.03
PATIENCE = 10.0
SHARE = 0.05
_START = 1
_TRIAL_SECONDS = 0.1


def find_batch_size(
    pipeline: Pipeline, sample: Sequence[object], *, rows: int | None = None, tried: Counter[str] | None = None
) -> int:
    """Tries the encoder's batch sizes on a sample and returns the fastest.

    The search climbs from a small size while that pays, then descends from it. Of sizes within 3 % of the best the
    smallest is taken. It ends after ten seconds, or a twentieth of what the rows to come will take. The result depends
    on the machine: fix it in the plan before the first shard.

    Args:
        pipeline: With the encoder.
        sample: Raw values or callables, as for :meth:`Pipeline.embed`; bad ones are skipped.
        rows: Rows to come, if known.
        tried: The rows encoded are added to its ``rows``.

    Returns:
        Rows (image, vector) or tokens (text) a batch.
    """
    encoder, batch_sizes = pipeline.encoder, pipeline.encoder.batch_sizes
    start = min(_START, len(batch_sizes) - 1)
    ordered = sorted(prepare(encoder, sample), key=encoder.cost, reverse=True) if len(batch_sizes) > 1 else []
    if not ordered:
        return batch_sizes[start]
    total = sum(map(encoder.cost, ordered)) / len(ordered) * (rows or 0)
    encoder.encode(ordered[-1:])
    rates: dict[int, float] = {}
    began = time.perf_counter()
    for direction in (range(start, len(batch_sizes)), range(start - 1, -1, -1)):
        worse = 0
        for number in direction:
            best = max(rates.values(), default=0.0)
            patience = PATIENCE if rows is None or not best else min(PATIENCE, SHARE * total / best)
            if worse == 2 or (rates and time.perf_counter() - began > patience):
                break
            try:
                rates[batch_sizes[number]] = throughput(pipeline, ordered, batch_sizes[number], tried)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                break
            worse = worse + 1 if rates[batch_sizes[number]] < best else 0
    best = max(rates.values(), default=0.0)
    return min((size for size, rate in rates.items() if rate * MARGIN >= best), default=batch_sizes[0])


def throughput(pipeline: Pipeline, ordered: list[Any], batch_size: int, tried: Counter[str] | None = None) -> float:
    """Cost per second of the quickest of some batches of the rows at which half of the whole cost is reached.

    All threads of the model work, for they share caches and memory. ``ordered`` are prepared rows, the costliest first.
    """
    encoder, model_threads = pipeline.encoder, pipeline.model_threads
    reached = list(accumulate(map(encoder.cost, ordered)))
    typical = ordered[bisect_left(reached, reached[-1] / 2) :]
    count = rows_that_fit(encoder.cost(typical[0]), batch_size, batch_size)
    rows = [typical[i % len(typical)] for i in range(count)]
    times: list[float] = []
    while len(times) < 2 or sum(times) < _TRIAL_SECONDS:
        start = time.perf_counter()
        for launched in [pipeline.launch(rows) for _ in range(model_threads)]:
            encoder.fetch(launched.result().value)
        times.append(time.perf_counter() - start)
    if tried is not None:
        tried["rows"] += len(rows) * model_threads * len(times)
    return model_threads * sum(map(encoder.cost, rows)) / max(min(times), 1e-9)
