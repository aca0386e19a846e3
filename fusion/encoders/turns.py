"""Who may use the processor: one call has the model, and on a CPU nothing is prepared while the model runs."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """One for each encoder.

    A model's own threads wait for each other at every layer; a preparing thread that takes the core of one of them
    holds up all. On a CPU the model and the preparing threads therefore take turns.

    Attributes:
        model: Held by the call that runs the model.
    """

    def __init__(self) -> None:
        self.model = threading.Lock()
        self._idle = threading.Event()
        self._idle.set()

    @contextmanager
    def busy(self) -> Iterator[None]:
        """While the model computes: preparing threads stop at their next row."""
        self._idle.clear()
        try:
            yield
        finally:
            self._idle.set()

    def wait_for_idle(self) -> None:
        """Returns when no model computes on these cores."""
        self._idle.wait()
