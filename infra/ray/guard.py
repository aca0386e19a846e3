"""Ends what a Ray of our own leaves behind when its driver is killed.

Ray's agents outlive their raylet by a minute, for they report its end to a control store that is gone. As a module this
is the process that ends them: ``python -m barycenter.infra.ray.guard FOLDER`` waits until its standard input ends. That
it does when the driver ends, in whatever way.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_GRACE_SECONDS = 2.0
_PROCESSES = Path("/proc")


@contextmanager
def guarded(session_folder: str | None) -> Iterator[None]:
    """Within the block a killed driver takes the processes of its Ray with it.

    Args:
        session_folder: The folder of its Ray's session, where those processes write their logs; None where Ray does
            not say it: nothing is done then, as where processes have no folder in ``/proc``.
    """
    if session_folder is None or not _PROCESSES.is_dir():
        yield
        return
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, session_folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C is for the driver
    )
    try:
        yield
    finally:
        process.kill()
        process.communicate()


def processes_of(session_folder: str) -> list[int]:
    """The processes of a Ray session.

    An option of their command line names the folder, or they call themselves Ray's and have a file below it open. Both
    are so of Ray's agents, by its version; neither is of the ``tail`` of a log.
    """
    return [int(each.name) for each in _PROCESSES.iterdir() if each.name.isdecimal() and _is_of(each, session_folder)]


def _is_of(process: Path, session_folder: str) -> bool:
    try:
        words = (process / "cmdline").read_bytes().split(b"\0")
        if any(word.startswith(b"--") and session_folder.encode() in word for word in words):
            return True
        opened = (each.readlink() for each in (process / "fd").iterdir())
        return words[0].startswith(b"ray::") and any(Path(session_folder) in each.parents for each in opened)
    except OSError:  # it is gone, or another user's
        return False


def _wait_and_end(session_folder: str) -> None:
    sys.stdin.read()
    end = time.monotonic() + _GRACE_SECONDS
    while time.monotonic() < end and processes_of(session_folder):
        time.sleep(0.1)
    for process in processes_of(session_folder):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


if __name__ == "__main__":
    _wait_and_end(sys.argv[1])
