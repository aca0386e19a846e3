"""How a bare model is run: every batch by all cores together, as torch does by itself, or a batch on each core."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

Run = Callable[[Sequence[Callable[[], object]]], None]


def batching(steps: Sequence[Callable[[], object]]) -> None:
    """One step after the other, each by all cores."""
    for step in steps:
        step()


def a_core_each(cores: int) -> Run:
    """As many steps at once as there are cores."""
    pool = ThreadPoolExecutor(cores, initializer=torch.set_num_threads, initargs=(1,))

    def run(steps: Sequence[Callable[[], object]]) -> None:
        list(pool.map(lambda step: step(), steps))

    return run
