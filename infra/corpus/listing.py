"""Selects the files that a corpus path names: one rule for folders, glob patterns and object stores."""

import glob
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barycenter.fusion.errors import JobError

_JOB_KEY = "corpus.path"

HIDDEN, UNDERSCORE, WRITER_FILE = "hidden", "underscore_name", "left_by_a_writer"
NOT_UTF8, BROKEN_LINK, SPECIAL, SEEN_BEFORE = "name_not_utf8", "broken_link", "not_a_file", "folder_seen_before"
OTHER_FORMAT, EMPTY, BESIDE_TABLE = "other_format", "empty", "picture_beside_table"

_SYSTEM_NAMES = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"}
_WRITER_NAMES = {
    *("_SUCCESS", "_temporary", "_metadata", "_common_metadata", "_spark_metadata", "_delta_log", "_committed_vacuum"),
    *("_logs", "_distcp_logs", "_change_data", "_symlink_format_manifest"),
}
_WRITER_PREFIXES = ("_started_", "_committed_", "_temporary")
_WRITER_SUFFIXES = ("._COPYING_", ".crc")


@dataclass(frozen=True, slots=True)
class Entry:
    """One listed file: absolute path or URI, path relative to the listing's root, bytes, mtime or etag."""

    uri: str
    relative: str
    size: int
    stamp: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files behind a corpus path, sorted by relative path.

    Attributes:
        root: Folder that the relative paths start from.
        entries: The files that may be taken.
        is_folder: Whether the path named a folder rather than a file or a pattern.
        underscored: Files whose name or folder begins with ``_``: taken as pictures, passed over as tables.
        passed_over: How many other files were seen, by the reason they are not taken.
        links_outside: Relative paths of those that are links to files outside ``root``, or lie in such a folder.
    """

    root: str
    entries: list[Entry]
    is_folder: bool
    underscored: list[Entry] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    links_outside: frozenset[str] = frozenset()


def skip_reason(relative: str, pattern: str = "") -> str | None:
    """Returns why a file is passed over, judged by its path alone; None for a file that may be read.

    Args:
        relative: Path below the listing's root, ``/``-separated.
        pattern: Glob pattern below the root; ``.`` or ``_`` at the beginning of a part admits names that begin so.

    >>> skip_reason("a/.DS_Store"), skip_reason("_SUCCESS"), skip_reason("_background/_DSC0001.JPG")
    ('hidden', 'left_by_a_writer', 'underscore_name')
    >>> skip_reason("_year=2020/part-0.parquet"), skip_reason("_part.csv", pattern="_*.csv")
    (None, None)
    """
    first = {part[0] for part in pattern.split("/") if part}
    parts = relative.split("/")
    try:
        relative.encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    if any(_is_writer_file(part) for part in parts):
        return WRITER_FILE
    if any((part.startswith(".") and "." not in first) or part.lower() in _SYSTEM_NAMES for part in parts):
        return HIDDEN
    if "_" not in first and any(part.startswith("_") and "=" not in part for part in parts):
        return UNDERSCORE
    return None


def _is_writer_file(part: str) -> bool:
    """Whether a file or folder name is one that Spark, Hadoop or another writer leaves beside its data."""
    return part in _WRITER_NAMES or part.startswith(_WRITER_PREFIXES) or part.endswith(_WRITER_SUFFIXES)


def filter_listing(
    root: str, entries: Iterable[Entry], is_folder: bool, *, pattern: str = "", walk: "FolderWalk | None" = None
) -> Listing:
    """Builds a listing of the entries whose names are not passed over; counts the others by reason."""
    taken: list[Entry] = []
    underscored: list[Entry] = []
    passed_over: Counter[str] = Counter()
    for entry in entries:
        reason = skip_reason(entry.relative, pattern)
        if reason is None:
            taken.append(entry)
        elif reason == UNDERSCORE:
            underscored.append(entry)
        else:
            passed_over[reason] += 1
    if walk is not None:
        passed_over += walk.passed_over
    taken, underscored = (sorted(found, key=lambda entry: entry.relative) for found in (taken, underscored))
    return Listing(root, taken, is_folder, underscored, passed_over, frozenset(walk.links_outside if walk else ()))


def list_local(path: str) -> Listing:
    """Lists a local file, folder or glob pattern; a path that exists is taken literally, not as a pattern.

    Raises:
        OSError: The path does not exist or is not readable.
        JobError: On ``corpus.path``: no file matches, or the path is neither a file nor a folder.
    """
    if glob.has_magic(path) and not os.path.lexists(path):
        root = glob_root(path)
        walk = FolderWalk(root)
        names = glob.iglob(path, recursive=True, include_hidden=True)  # noqa: PTH207 - an absolute pattern
        entries = list(walk.files_among(dict.fromkeys(names)))
        if not entries and not walk.passed_over:
            raise JobError(_JOB_KEY, f"no file matches {path}; check the pattern")
        return filter_listing(root, entries, False, pattern=path[len(root) :], walk=walk)
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        walk = FolderWalk(path)
        return filter_listing(path, list(walk.files_below(path)), True, walk=walk)
    if not stat.S_ISREG(status.st_mode):
        raise JobError(_JOB_KEY, f"{path} is neither a file nor a folder; give one of them or a glob pattern")
    with Path(path).open("rb"):
        root = str(Path(path).parent)
        return Listing(root, [_entry(path, root, status)], False)


class FolderWalk:
    """Finds files below a local folder.

    Attributes:
        passed_over: How many names were passed over, by reason.
        links_outside: Relative paths of files that lie outside the folder and are reached by links.
    """

    def __init__(self, root: str) -> None:
        self.passed_over: Counter[str] = Counter()
        self.links_outside: list[str] = []
        self._root = root
        self._allowed_roots = allowed_roots(root)
        self._seen_folders: set[tuple[int, int]] = set()

    def files_below(self, folder: str, outside_root: bool = False) -> Iterator[Entry]:
        """Yields every file below a folder, in the order of names; a folder that several links lead to comes once."""
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in self._seen_folders:
            self.passed_over[SEEN_BEFORE] += 1
            return
        self._seen_folders.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as found:
            children = sorted(found, key=lambda child: child.name)
        for child in children:
            outside = outside_root or (child.is_symlink() and not self._is_inside(child.path))
            if is_sure(child.is_dir):
                yield from self._subfolder(child.path, outside)
            else:
                yield from self._regular_file(child.path, outside)

    def _subfolder(self, path: str, outside_root: bool) -> Iterator[Entry]:
        """Yields the files below a folder; counts one without permission if its name is passed over."""
        try:
            yield from self.files_below(path, outside_root)
        except PermissionError:
            if skip_reason(os.path.relpath(path, self._root)) in (None, UNDERSCORE):
                raise
            self.passed_over[HIDDEN] += 1

    def files_among(self, paths: Iterable[str]) -> Iterator[Entry]:
        """Yields the files among the paths that a glob pattern matched."""
        for path in paths:
            if not Path(path).is_dir():
                yield from self._regular_file(path, not self._is_inside(path))

    def _is_inside(self, path: str) -> bool:
        """Whether a path, its links followed, lies below an allowed root."""
        return is_below(os.path.realpath(path), self._allowed_roots)

    def _regular_file(self, path: str, outside_root: bool) -> Iterator[Entry]:
        """Yields the entry of a regular file; counts broken links, devices and the like."""
        try:
            status = os.stat(path)  # noqa: PTH116 - once a file
        except OSError:
            self.passed_over[BROKEN_LINK] += 1
            return
        if not stat.S_ISREG(status.st_mode):
            self.passed_over[SPECIAL] += 1
            return
        entry = _entry(path, self._root, status)
        if outside_root:
            self.links_outside.append(entry.relative)
        yield entry


def allowed_roots(root: str) -> tuple[str, ...]:
    """Returns the resolved folders that links in a corpus folder may lead to.

    A snapshot of the Hugging Face cache (``<repo>/snapshots/<revision>/``) is links into ``<repo>/blobs/``, which
    holds nothing but the files of that repository.
    """
    real = os.path.realpath(root)
    parts = Path(real).parts
    roots = [real]
    if "snapshots" in parts[:-1]:
        repository = Path(*parts[: len(parts) - 1 - parts[::-1].index("snapshots")])
        roots += [str(repository / "blobs")] if (repository / "blobs").is_dir() else []
    return tuple(roots)


def is_below(path: str, roots: Iterable[str]) -> bool:
    """Whether a path is one of the folders, or lies below one."""
    return any(path == root or path.startswith(root.rstrip("/") + "/") for root in roots)


def glob_root(path: str) -> str:
    """Returns the folder above the first part of a glob pattern that has a wildcard."""
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first]) or "/"


def _entry(path: str, root: str, status: Any) -> Entry:
    return Entry(path, os.path.relpath(path, root).replace(os.sep, "/"), status.st_size, str(status.st_mtime_ns))


def is_sure(test: Callable[[], bool]) -> bool:
    """The answer of a directory entry's ``is_dir`` or ``is_file``; False where it cannot be examined."""
    try:
        return test()
    except OSError:
        return False
