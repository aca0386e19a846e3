"""Listing, stamping and reading files: local ones through the operating system, all others through fsspec."""

import errno
import glob
import io
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from fusion.errors import BarycenterError, JobError
from infra._faults import is_transient, retrying, told
from infra._remote import _filesystem
from infra.jobpaths import is_uri

_KEY = "corpus.path"
_READ_AHEAD = 4 << 20


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
        entries: The files.
        is_folder: Whether the path named a folder rather than a file or a pattern.
    """

    root: str
    entries: list[Entry]
    is_folder: bool


class Files:
    """Access to the corpus files; picklable, connections are opened on first use in each process.

    Args:
        storage_options: ``endpoint_url`` of an S3-compatible server, if any.
    """

    def __init__(self, storage_options: Mapping[str, Any] | None = None) -> None:
        self._endpoint_url: str | None = (storage_options or {}).get("endpoint_url")

    def list(self, path: str) -> Listing:
        """Lists a file, folder, pattern or URI; hidden files and names that begin with ``_`` are passed over.

        Raises:
            JobError: On ``corpus.path``: there is nothing, or it may not be read.
        """
        if path.startswith("file://"):
            path = path.removeprefix("file://")
        try:
            return self._list_remote(path) if is_uri(path) else _list_local(path)
        except BarycenterError:
            raise
        except (ImportError, ValueError) as error:
            raise JobError(_KEY, f"{path}: {_first_line(error)}") from None
        except Exception as error:
            raise JobError(_KEY, _told(error, path)) from error

    def stat(self, uri: str) -> tuple[int, str]:
        """Size and stamp of a file now."""
        with told(uri):
            if not is_uri(uri):
                status = Path(uri).stat()
                return status.st_size, str(status.st_mtime_ns)
            filesystem, path = self.remote(uri)
            return _size_and_stamp(retrying(lambda: filesystem.info(path)))

    def stat_file(self, uri: str) -> tuple[int, str]:
        """Size and stamp of a remote file; what the storage raises is passed on, a folder is IsADirectoryError."""
        filesystem, path = self.remote(uri)
        info = retrying(lambda: filesystem.info(path))
        if info["type"] != "file":
            raise IsADirectoryError(uri)
        return _size_and_stamp(info)

    def children(self, folder: str) -> dict[str, Callable[[], tuple[int, str]]]:
        """The files of one folder by name, each with a call that tells its size and stamp."""
        with told(folder):
            if not is_uri(folder):
                with os.scandir(folder) as found:
                    names = [child.name for child in found if child.name[0] not in "._" and child.is_file()]
                return {name: partial(self.stat, f"{folder}/{name}") for name in names}
            filesystem, path = self.remote(folder)
            infos = retrying(lambda: filesystem.ls(path, detail=True))
            return {
                info["name"].rpartition("/")[2]: partial(_size_and_stamp, info)
                for info in infos
                if info["type"] == "file" and not _is_hidden(info["name"].rpartition("/")[2])
            }

    def read(self, uri: str, offset: int, length: int) -> bytes:
        """Bytes of a file; fewer where it ends before."""
        with told(uri):
            if not is_uri(uri):
                with Path(uri).open("rb") as stream:
                    stream.seek(offset)
                    return stream.read(length)
            filesystem, path = self.remote(uri)
            return cast(bytes, retrying(lambda: filesystem.cat_file(path, start=offset, end=offset + length)))

    def open(self, uri: str) -> BinaryIO:
        """A seekable stream; remote files are read ahead in blocks, each of which is retried by itself."""
        if not is_uri(uri):
            return Path(uri).open("rb")
        size, _ = self.stat(uri)
        if size:
            return cast(BinaryIO, io.BufferedReader(_Ranges(self, uri, size), _READ_AHEAD))
        filesystem, path = self.remote(uri)
        return cast(BinaryIO, retrying(lambda: filesystem.open(path, "rb")))

    def open_ranges(self, uri: str, size: int) -> BinaryIO:
        """A seekable stream whose every read is one request, for readers that know what they want."""
        return Path(uri).open("rb") if not is_uri(uri) else cast(BinaryIO, _Ranges(self, uri, size))

    def chunks(self, uri: str, size: int = 8 << 20) -> Iterator[bytes]:
        """The file's bytes from the beginning, in pieces."""
        with self.open(uri) as stream:
            while chunk := stream.read(size):
                yield chunk

    def remote(self, uri: str) -> tuple[Any, str]:
        """The file system behind a URI, and the path in it."""
        protocol = uri.partition("://")[0]
        filesystem = _filesystem(protocol, self._endpoint_url, os.getpid())
        return filesystem, filesystem._strip_protocol(uri)

    def _list_remote(self, uri: str) -> Listing:
        if "::" in uri:
            raise JobError(_KEY, f"{uri}: chained URIs are not read; give the storage's own URI")
        filesystem, path = self.remote(uri)
        scheme = uri.partition("://")[0] + "://"
        if glob.has_magic(path):
            root = _before_magic(path)
            found = retrying(lambda: filesystem.glob(path, detail=True))
        else:
            info = _info(filesystem, path)
            if info is not None and info["type"] == "file":
                entry = Entry(uri, path.rpartition("/")[2], *_size_and_stamp(info))
                return Listing(scheme + path.rpartition("/")[0], [entry], False)
            root = path.rstrip("/")
            found = retrying(lambda: filesystem.find(path, detail=True))
        if not found:
            raise JobError(_KEY, f"{uri}: there is no such file or folder")
        names = sorted((name[len(root) :].strip("/"), name) for name, info in found.items() if info["type"] == "file")
        entries = [
            Entry(filesystem.unstrip_protocol(name), relative, *_size_and_stamp(found[name]))
            for relative, name in names
            if relative and not _is_hidden(relative)
        ]
        return Listing(scheme + root, entries, not glob.has_magic(path))


def _list_local(path: str) -> Listing:
    if glob.has_magic(path) and not os.path.lexists(path):
        root = _before_magic(path)
        found = glob.iglob(path, recursive=True)  # noqa: PTH207 - an absolute pattern
        names = [name for name in found if Path(name).is_file()]
        if not names:
            raise JobError(_KEY, f"no file matches {path}")
        return Listing(root, _sorted([_entry(name, root) for name in names]), False)
    status = Path(path).stat()
    if stat.S_ISDIR(status.st_mode):
        return Listing(path, _sorted(_walk(path, path, set())), True)
    if not stat.S_ISREG(status.st_mode):
        raise JobError(_KEY, f"{path}: is neither a file nor a folder")
    with Path(path).open("rb"):
        root = str(Path(path).parent)
        return Listing(root, [_entry(path, root)], False)


def _walk(folder: str, root: str, seen: set[tuple[int, int]]) -> Iterator[Entry]:
    status = Path(folder).stat()
    if (status.st_dev, status.st_ino) in seen:
        return
    seen.add((status.st_dev, status.st_ino))
    with os.scandir(folder) as found:
        children = sorted(found, key=lambda child: child.name)
    for child in children:
        if child.name.startswith((".", "_")):
            continue
        if child.is_dir():
            yield from _walk(child.path, root, seen)
        elif child.is_file():
            yield _entry(child.path, root)


def _entry(path: str, root: str) -> Entry:
    status = Path(path).stat()
    return Entry(path, os.path.relpath(path, root).replace(os.sep, "/"), status.st_size, str(status.st_mtime_ns))


def _sorted(entries: Iterator[Entry] | list[Entry]) -> list[Entry]:
    return sorted(entries, key=lambda entry: entry.relative)


def _before_magic(path: str) -> str:
    """The folder above the first part of a pattern that has a wildcard."""
    parts = path.split("/")
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    return "/".join(parts[:first]) or "/"


def _is_hidden(relative: str) -> bool:
    return any(part.startswith((".", "_")) for part in relative.split("/"))


def _info(filesystem: Any, path: str) -> dict[str, Any] | None:
    try:
        return cast(dict[str, Any], retrying(lambda: filesystem.info(path)))
    except FileNotFoundError:
        return None


def _size_and_stamp(info: Mapping[str, Any]) -> tuple[int, str]:
    names = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated", "created")
    stamp = next((info[name] for name in names if info.get(name)), "")
    text = str(stamp.timestamp() if isinstance(stamp, datetime) else stamp)
    return int(info.get("size") or 0), text.strip('"')


def _told(error: Exception, path: str) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{path}: there is no such file or folder"
    if isinstance(error, PermissionError):
        return f"{error.filename or path}: no permission to read it"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return f"{path}: a symbolic link that leads in circles"
    if is_transient(error):
        return f"{path}: the storage server does not answer ({type(error).__name__}); check storage.endpoint_url"
    return f"{path}: cannot be read ({_first_line(error)})"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class _Ranges(io.RawIOBase):
    """A remote file as a stream without a cache."""

    def __init__(self, files: Files, uri: str, size: int) -> None:
        self._files, self._uri, self._size, self._position = files, uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + (0, self._position, self._size)[whence]
        return self._position

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        left = self._size - self._position
        size = left if size < 0 else min(size, left)
        data = self._files.read(self._uri, self._position, size) if size > 0 else b""
        self._position += len(data)
        return data
