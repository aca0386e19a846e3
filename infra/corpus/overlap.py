"""Keeps a run from reading what it writes: the output folder may not lie where the corpus is listed."""

import fnmatch
import glob
import os
import posixpath
from collections.abc import Iterable

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.base import Source
from barycenter.infra.corpus.listing import before_magic, is_below
from barycenter.infra.job.paths import is_uri

_KEY = "output.path"


def check_apart(corpus: str, output: str) -> None:
    """Refuses an output below a corpus folder, or where a corpus pattern would find its files.

    Args:
        corpus: File, folder, pattern or URI.
        output: Folder or URI.

    Raises:
        JobError: On ``output.path``.
    """
    corpus, output = _plain(corpus), _plain(output)
    if is_uri(corpus) != is_uri(output):
        return
    there = not is_uri(corpus) and os.path.lexists(corpus)
    pattern = glob.has_magic(corpus) and not there
    root = before_magic(corpus) if pattern else corpus
    below = _below(_real(root), _real(output))
    if below is None or (pattern and not _finds(corpus[len(root) :].strip("/").split("/"), below)):
        return
    raise JobError(_KEY, f"{output} lies where {corpus} is read: the next run would read it; give a folder elsewhere")


def check_sources(corpus: str, sources: Iterable[Source], output: str) -> None:
    """Refuses a corpus that links lead into the output.

    Raises:
        JobError: On ``output.path``.
    """
    corpus, output = _plain(corpus), _plain(output)
    if is_uri(corpus) or is_uri(output) or not os.path.isdir(output):  # noqa: PTH112
        return
    root = before_magic(corpus) if glob.has_magic(corpus) and not os.path.lexists(corpus) else corpus
    if _below(_real(output), _real(root)) is not None:
        return
    for folder in sorted({source.uri.rpartition("/")[0] or "/" for source in sources}):
        if is_below(_real(folder), [_real(output)]):
            raise JobError(_KEY, f"{folder} of the corpus is a link into {output}; give a folder elsewhere")


def _plain(path: str) -> str:
    return path.removeprefix("file://").rstrip("/") or "/"


def _real(path: str) -> str:
    if not is_uri(path):
        return os.path.realpath(path)
    scheme, _, rest = path.partition("://")
    return f"{scheme.replace('s3a', 's3')}://{posixpath.normpath('/' + rest)}"


def _below(root: str, path: str) -> list[str] | None:
    """The parts of a path below a folder; None where it does not lie there."""
    return path[len(root) :].strip("/").split("/") if is_below(path, [root]) else None


def _finds(pattern: list[str], below: list[str]) -> bool:
    """Whether a pattern may match files below a folder."""
    parts = [part for part in below if part]
    for part in pattern:
        if part == "**" or not parts:
            return True
        if not fnmatch.fnmatchcase(parts.pop(0), part):
            return False
    return False
