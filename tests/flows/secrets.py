"""Marked secrets in the environment, and what shows one of them."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MARKED = {
    "AWS_ACCESS_KEY_ID": "AKIAMARKEDBYTEST",
    "AWS_SECRET_ACCESS_KEY": "marked-secret-key",
    "AWS_SESSION_TOKEN": "marked-session-token",
    "HF_TOKEN": "hf_markedtoken",
    "HTTPS_PROXY": "http://somebody:marked-password@proxy.invalid:3128",
}
_MARKS = [value.rpartition("@")[0].rpartition(":")[2] or value for value in MARKED.values()]


def marks_in(content: bytes | str) -> list[str]:
    """The marks in a text or file."""
    data = content.encode() if isinstance(content, str) else content
    return [mark for mark in _MARKS if mark.encode() in data]


def files_with_marks(folders: Iterable[Path]) -> Iterator[str]:
    """Every file below some folders that holds a mark, with the marks."""
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink() and (found := marks_in(path.read_bytes())):
                yield f"{path}: {found}"


@contextmanager
def every_record() -> Iterator[list[str]]:
    """What is logged in the block, as if the root logger were at its lowest level; loggers with a level keep theirs."""
    lines: list[str] = []
    handle, formatter = logging.Logger.handle, logging.Formatter("%(name)s %(message)s")

    def is_enabled(logger: logging.Logger, level: int) -> bool:
        each: logging.Logger | None = logger
        while each is not None and (each is logging.root or not each.level):
            each = each.parent
        return level >= (each.level if each is not None else logging.DEBUG)

    def note(logger: logging.Logger, record: logging.LogRecord) -> None:
        lines.append(formatter.format(record))
        if record.levelno >= logger.getEffectiveLevel():
            handle(logger, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(logging.Logger, "isEnabledFor", is_enabled)
        patch.setattr(logging.Logger, "handle", note)
        yield lines


@contextmanager
def marked_environment() -> Iterator[list[str]]:
    """Marked secrets in the environment, for the length of the block; what is logged meanwhile."""
    with pytest.MonkeyPatch.context() as patch, every_record() as lines:
        for name, value in (MARKED | {"NO_PROXY": "127.0.0.1,localhost"}).items():
            patch.setenv(name, value)
        yield lines
