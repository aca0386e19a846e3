"""Content on its way to object storage: in memory while that of all open files is small, else in temporary files."""

import tempfile
import threading
from types import TracebackType
from typing import Any

BUDGET = 256 * 2**20
"""Bytes that the open files of a process hold in memory together."""

_lock = threading.Lock()
_held = 0


def held() -> int:
    """Bytes that all open spooled files hold in memory now."""
    return _held


class Spool(tempfile.SpooledTemporaryFile[bytes]):
    """A temporary file that moves to disk when it holds ``most`` bytes, or all together hold too many, in memory."""

    def __init__(self, most: int) -> None:
        super().__init__(max_size=most)
        self._counted = 0
        self._in_memory = True

    def write(self, data: Any) -> int:
        """Appends bytes."""
        size = super().write(data)
        if self._in_memory and self._count(self.tell()):
            self.rollover()
        return size

    def rollover(self) -> None:
        """Moves the content to disk."""
        super().rollover()
        self._in_memory = False
        self._count(0)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._count(0)
        super().__exit__(kind, error, trace)

    def _count(self, size: int) -> bool:
        """Notes how much is in memory; whether that is too much for all files together."""
        global _held
        with _lock:
            _held += size - self._counted
            self._counted = size
            return _held > BUDGET
