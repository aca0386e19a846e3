"""Which files a corpus path names: one rule for folders, patterns and object stores, and a count of the rest."""

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from barycenter.fusion.errors import JobError

_KEY = "corpus.path"

HIDDEN, UNDERSCORE, OF_A_WRITER = "hidden", "underscore_name", "left_by_a_writer"
NOT_UTF8, BROKEN_LINK, SPECIAL, SEEN_BEFORE = "name_not_utf8", "broken_link", "not_a_file", "folder_seen_before"
OTHER_FORMAT, EMPTY, BESIDE_TABLE = "other_format", "empty", "picture_beside_table"

_SYSTEM = {"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx"}
_WRITERS = {
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
        leading_out: Relative paths of those that are links to files outside ``root``, or lie in such a folder.
    """

    root: str
    entries: list[Entry]
    is_folder: bool
    underscored: list[Entry] = field(default_factory=list)
    passed_over: Counter[str] = field(default_factory=Counter)
    leading_out: frozenset[str] = frozenset()


def reason_to_pass(relative: str, asked: str = "") -> str | None:
    """Why a file is not taken, by its path alone; None for one that may be.

    Args:
        relative: Path below the listing's root, ``/``-separated.
        asked: The pattern below the root: a part of it that begins with ``.`` or ``_`` asks for such names.

    >>> reason_to_pass("a/.DS_Store"), reason_to_pass("_SUCCESS"), reason_to_pass("_background/_DSC0001.JPG")
    ('hidden', 'left_by_a_writer', 'underscore_name')
    >>> reason_to_pass("_year=2020/part-0.parquet"), reason_to_pass("_part.csv", asked="_*.csv")
    (None, None)
    """
    first = {part[0] for part in asked.split("/") if part}
    parts = relative.split("/")
    try:
        relative.encode()
    except UnicodeEncodeError:
        return NOT_UTF8
    if any(_is_of_a_writer(part) for part in parts):
        return OF_A_WRITER
    if any((part.startswith(".") and "." not in first) or part.lower() in _SYSTEM for part in parts):
        return HIDDEN
    if "_" not in first and any(part.startswith("_") and "=" not in part for part in parts):
        return UNDERSCORE
    return None


def _is_of_a_writer(part: str) -> bool:
    return part in _WRITERS or part.startswith(_WRITER_PREFIXES) or part.endswith(_WRITER_SUFFIXES)


def sorted_out(
    root: str, entries: Iterable[Entry], is_folder: bool, *, asked: str = "", walk: "Walk | None" = None
) -> Listing:
    """A listing of those entries that may be taken by their names, the others counted."""
    taken: list[Entry] = []
    underscored: list[Entry] = []
    passed_over: Counter[str] = Counter()
    for entry in entries:
        reason = reason_to_pass(entry.relative, asked)
        if reason is None:
            taken.append(entry)
        elif reason == UNDERSCORE:
            underscored.append(entry)
        else:
            passed_over[reason] += 1
    if walk is not None:
        passed_over += walk.passed_over
    taken, underscored = (sorted(found, key=lambda entry: entry.relative) for found in (taken, underscored))
    return Listing(root, taken, is_folder, underscored, passed_over, frozenset(walk.leading_out if walk else ()))


def list_local(path: str) -> Listing:
    """Lists a local file, folder or pattern; what is there under the very name is no pattern.

    Raises:
        OSError: There is nothing, or it may not be read.
        JobError: On ``corpus.path``: no file matches, or it is a device or the like.
    """
    if glob.has_magic(path) and not os.path.lexists(path):
        root = before_magic(path)
        walk = Walk(root)
        names = glob.iglob(path, recursive=True, include_hidden=True)  # noqa: PTH207 - an absolute pattern
        entries = list(walk.matched(dict.fromkeys(names)))
        if not entries and not walk.passed_over:
            raise JobError(_KEY, f"no file matches {path}")
        return sorted_out(root, entries, False, asked=path[len(root) :], walk=walk)
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        walk = Walk(path)
        return sorted_out(path, list(walk.below(path)), True, walk=walk)
    if not stat.S_ISREG(status.st_mode):
        raise JobError(_KEY, f"{path}: is neither a file nor a folder")
    with Path(path).open("rb"):
        root = str(Path(path).parent)
        return Listing(root, [_entry(path, root, status)], False)


class Walk:
    """Finds files below a local folder.

    Attributes:
        passed_over: How many names were seen that are no files to read, by reason.
        leading_out: Relative paths of files that links show from outside the folder.
    """

    def __init__(self, root: str) -> None:
        self.passed_over: Counter[str] = Counter()
        self.leading_out: list[str] = []
        self._root = root
        self._inside = allowed_roots(root)
        self._seen: set[tuple[int, int]] = set()

    def below(self, folder: str, outside: bool = False) -> Iterator[Entry]:
        """Every file below a folder, in the order of names; linked folders once."""
        status = Path(folder).stat()
        if (status.st_dev, status.st_ino) in self._seen:
            self.passed_over[SEEN_BEFORE] += 1
            return
        self._seen.add((status.st_dev, status.st_ino))
        with os.scandir(folder) as found:
            children = sorted(found, key=lambda child: child.name)
        for child in children:
            out = outside or (child.is_symlink() and not is_below(os.path.realpath(child.path), self._inside))
            if _is_folder(child):
                yield from self._subfolder(child.path, out)
            else:
                yield from self._file(child.path, out)

    def _subfolder(self, path: str, out: bool) -> Iterator[Entry]:
        """A folder; one that is passed over by its name need not be readable."""
        try:
            yield from self.below(path, out)
        except PermissionError:
            if reason_to_pass(os.path.relpath(path, self._root)) in (None, UNDERSCORE):
                raise
            self.passed_over[HIDDEN] += 1

    def matched(self, names: Iterable[str]) -> Iterator[Entry]:
        """The files among names that a pattern matches."""
        for name in names:
            if not Path(name).is_dir():
                real = os.path.realpath(name)
                yield from self._file(name, not is_below(real, self._inside))

    def _file(self, path: str, out: bool) -> Iterator[Entry]:
        try:
            status = os.stat(path)  # noqa: PTH116 - once a file
        except OSError:
            self.passed_over[BROKEN_LINK] += 1
            return
        if not stat.S_ISREG(status.st_mode):
            self.passed_over[SPECIAL] += 1
            return
        entry = _entry(path, self._root, status)
        if out:
            self.leading_out.append(entry.relative)
        yield entry


def allowed_roots(root: str) -> tuple[str, ...]:
    """The real folders that a corpus folder's links may lead to.

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


def before_magic(path: str) -> str:
    """The folder above the first part of a pattern that has a wildcard."""
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first]) or "/"


def _entry(path: str, root: str, status: Any) -> Entry:
    return Entry(path, os.path.relpath(path, root).replace(os.sep, "/"), status.st_size, str(status.st_mtime_ns))


def _is_folder(child: os.DirEntry[str]) -> bool:
    try:
        return child.is_dir()
    except OSError:
        return False
