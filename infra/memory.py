"""Memory that was freed and that the C library keeps for itself."""

import ctypes
import gc
from contextlib import suppress


def give_back_memory() -> None:
    """Gives freed memory back to the machine.

    After many arrays of a few hundred KiB glibc holds hundreds of MiB of freed pages between those still in use; it has
    a call to give them back, ``malloc_trim``. Other C libraries give back by themselves; nothing is done there.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
