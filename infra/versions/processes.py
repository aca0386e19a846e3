"""Which process holds an output, for people and for other processes of the same machine."""

import getpass
import os
import re
import socket
from pathlib import Path


def describe_process() -> str:
    """User, machine and number of this process, such as ``ann@gpu-3, process 4711``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}, process {os.getpid()}"


def parse_process(described: str) -> tuple[str | None, str | None, int | None]:
    """User, machine and number out of what :func:`describe_process` gave; None each where it is of another form.

    >>> parse_process("ann@gpu-3, process 4711"), parse_process("unknown")
    (('ann', 'gpu-3', 4711), (None, None, None))
    """
    found = re.fullmatch(r"(.*)@([^@]*), process ([0-9]+)", described)
    return (found[1], found[2], int(found[3])) if found is not None else (None, None, None)


def process_id() -> str:
    """This process, in a form that :func:`process_lives` understands; empty where the system has none (not Linux)."""
    return f"{place}/{os.getpid()}/{_status(os.getpid())[1]}" if (place := _place()) else ""


def process_lives(process: str) -> bool | None:
    """Whether a process runs; None where it is stopped, of another machine or container, or that cannot be known.

    >>> process_lives(process_id()), process_lives("")
    (True, None)
    """
    place, _, rest = process.rpartition("/")[0].rpartition("/")
    if not place or place != _place():
        return None
    start = process.rpartition("/")[2]
    if not rest.isdecimal():
        return None
    number = int(rest)
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's; when it began is for all to see
        pass
    state, begun = _status(number)
    if state in ("T", "t") and begun == start:
        return None
    return state not in ("Z", "X") and begun in (start, "")


def _place() -> str:
    """This boot of this machine, and which processes are seen from here."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _status(number: int) -> tuple[str, str]:
    """State of a process and when it began, in clock ticks since the boot; both empty where that is hidden."""
    try:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        return fields[0], fields[19]
    except (OSError, IndexError):
        return "", ""
