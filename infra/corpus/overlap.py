"""Checks that the output folder does not lie where the corpus is listed, so that no run reads its own output."""

import fnmatch
import glob
import os
import posixpath
from collections.abc import Iterable

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.base import Source
from barycenter.infra.corpus.listing import glob_root, is_below
from barycenter.infra.job.paths import is_uri

_JOB_KEY = "output.path"


def check_output_outside_corpus(corpus: str, output: str) -> None:
    """Raises where the output lies below the corpus folder, or where the corpus pattern would match its files.

    Raises:
        JobError: On ``output.path``.
    """
    corpus, output = _without_scheme(corpus), _without_scheme(output)
    if is_uri(corpus) != is_uri(output):
        return
    root = _listing_root(corpus)
    top, target = _resolve(root), _resolve(output)
    pattern, below = (path.strip("/").split("/") for path in (corpus[len(root) :], target[len(top) :]))
    if not is_below(target, [top]) or (root != corpus and not _may_match_below(pattern, below)):
        return
    raise JobError(
        _JOB_KEY,
        f"{output} lies inside the corpus {corpus}: the next run would read it as data; choose a folder outside",
    )


def check_no_links_into_output(corpus: str, sources: Iterable[Source], output: str) -> None:
    """Raises where a folder of the corpus is a link into the output folder.

    Raises:
        JobError: On ``output.path``.
    """
    corpus, output = _without_scheme(corpus), _without_scheme(output)
    if is_uri(corpus) or is_uri(output) or not os.path.isdir(output):  # noqa: PTH112
        return
    if is_below(_resolve(_listing_root(corpus)), [_resolve(output)]):
        return
    for folder in sorted({source.uri.rpartition("/")[0] or "/" for source in sources}):
        if is_below(_resolve(folder), [_resolve(output)]):
            raise JobError(
                _JOB_KEY, f"{folder} of the corpus is a link into {output}; choose a folder outside the corpus"
            )


def _listing_root(corpus: str) -> str:
    """Returns the folder that a glob pattern starts from, or any other corpus path as it is."""
    is_pattern = glob.has_magic(corpus) and (is_uri(corpus) or not os.path.lexists(corpus))
    return glob_root(corpus) if is_pattern else corpus


def _without_scheme(path: str) -> str:
    """Removes ``file://`` and trailing slashes from a path."""
    return path.removeprefix("file://").rstrip("/") or "/"


def _resolve(path: str) -> str:
    """Returns a path with its links and ``..`` resolved; for a URI the ``..`` alone, with s3a as s3."""
    if not is_uri(path):
        return os.path.realpath(path)
    scheme, _, rest = path.partition("://")
    return f"{scheme.replace('s3a', 's3')}://{posixpath.normpath('/' + rest)}"


def _may_match_below(pattern: list[str], below: list[str]) -> bool:
    """Whether a glob pattern, given as parts, may match files below a folder; both relative to the same root."""
    parts = [part for part in below if part]
    for part in pattern:
        if part == "**" or not parts:
            return True
        if not fnmatch.fnmatchcase(parts.pop(0), part):
            return False
    return False
