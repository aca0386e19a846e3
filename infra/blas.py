"""Threads of the numerical libraries, limited without looking for the libraries each time."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import ThreadpoolController

_found: tuple[int, ThreadpoolController] | None = None


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """The numerical libraries have ``count`` threads in the block; those that are loaded in it are not limited."""
    with _controller().limit(limits=count):
        yield


def _controller() -> ThreadpoolController:
    """What sets the threads of the libraries that are loaded; looked for again once more modules are imported."""
    global _found
    modules = len(sys.modules)
    if _found is None or _found[0] != modules:
        _found = modules, ThreadpoolController()
    return _found[1]
