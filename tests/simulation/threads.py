"""What the code takes from :mod:`threading` and :mod:`concurrent.futures`, on the threads of a kernel."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.simulation import world
from tests.simulation.kernel import FOREVER, Kernel


def _kernel() -> Kernel:
    return world.current_world().kernel


class Thread:
    """Runs its target as another thread of the process that starts it."""

    def __init__(self, target: Callable[[], None], name: str, daemon: bool) -> None:
        assert daemon
        self._target, self._name = target, name

    def start(self) -> None:
        """Begins."""
        process = _kernel().process
        self._thread = _kernel().spawn(process, self._target, f"{process.name}.{self._name}{next(process.children)}")

    def join(self, timeout: float | None = None) -> None:
        """Waits for its end."""
        _kernel().wait(lambda: self._thread.ended, FOREVER if timeout is None else timeout)


class Event:
    """A flag to wait for."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """Raises the flag."""
        self._set = True

    def is_set(self) -> bool:
        """Whether it is raised."""
        return self._set

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for it; whether it is raised."""
        if not self._set:
            _kernel().wait(self.is_set, FOREVER if timeout is None else timeout)
        return self._set


class Lock:
    """Held by one thread at a time."""

    def __init__(self) -> None:
        self._free = True

    def __enter__(self) -> None:
        while not self._free:
            _kernel().wait(lambda: self._free)
        self._free = False

    def __exit__(self, *_: object) -> None:
        self._free = True


class OneAfterTheOther:
    """Stands for ``ThreadPoolExecutor`` where a pool only reads."""

    def __init__(self, workers: int) -> None:
        del workers

    def __enter__(self) -> "OneAfterTheOther":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def map(self, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        """The results, in order."""
        return map(function, items)
