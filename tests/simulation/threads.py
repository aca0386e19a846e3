"""What the code takes from :mod:`threading` and :mod:`concurrent.futures`, on the threads of a kernel."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.simulation.kernel import FOREVER, Kernel


class SimulatedThreading:
    """Stands for the module :mod:`threading`; ``kernel`` gives the kernel of the moment."""

    def __init__(self, kernel: Callable[[], Kernel]) -> None:
        class Thread:
            """Runs its target as another thread of the process that starts it."""

            def __init__(self, target: Callable[[], None], name: str, daemon: bool) -> None:
                assert daemon
                self._target, self._name, self._thread = target, name, None

            def start(self) -> None:
                process = kernel().process
                name = f"{process.name}.{self._name}{next(process.children)}"
                self._thread: Any = kernel().spawn(process, self._target, name)

            def join(self, timeout: float = FOREVER) -> None:
                kernel().wait(lambda: self._thread.ended, timeout)

        class Event:
            """A flag to wait for."""

            def __init__(self) -> None:
                self._set = False

            def set(self) -> None:
                self._set = True

            def is_set(self) -> bool:
                return self._set

            def wait(self, timeout: float = FOREVER) -> bool:
                if not self._set:
                    kernel().wait(self.is_set, timeout)
                return self._set

        class Lock:
            """Held by one thread at a time."""

            def __init__(self) -> None:
                self._free = True

            def __enter__(self) -> None:
                while not self._free:
                    kernel().wait(lambda: self._free)
                self._free = False

            def __exit__(self, *_: object) -> None:
                self._free = True

        self.Thread, self.Event, self.Lock = Thread, Event, Lock


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
