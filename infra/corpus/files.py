"""Listing, stamping and reading files: local ones through the operating system, all others through fsspec."""

import errno
import glob
import io
import os
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast

from barycenter.fusion.errors import BarycenterError, JobError
from barycenter.infra.corpus.listing import (
    UNDERSCORE,
    Entry,
    Listing,
    filter_listing,
    glob_root,
    is_sure,
    list_local,
    skip_reason,
)
from barycenter.infra.job.paths import is_uri
from barycenter.infra.storage.errors import credentials_error, first_line, is_transient, retrying, storage_errors
from barycenter.infra.storage.filesystems import RangeStream, open_filesystem

_KEY = "corpus.path"
_READ_AHEAD = 4 << 20


class Files:
    """Access to the corpus files; picklable, connections are opened on first use in each process.

    ``storage_options`` may have the ``endpoint_url`` of an S3-compatible server.
    """

    def __init__(self, storage_options: Mapping[str, Any] | None = None) -> None:
        self._endpoint_url: str | None = (storage_options or {}).get("endpoint_url")

    def list(self, path: str) -> Listing:
        """Lists a file, folder, pattern or URI; what is passed over by its name is counted.

        Raises:
            JobError: On ``corpus.path``: there is nothing, or it may not be read.
            RunError: The storage refuses the credentials, or there are none.
        """
        if path.startswith("file://"):
            path = path.removeprefix("file://")
        try:
            return self._list_remote(path) if is_uri(path) else list_local(path)
        except BarycenterError:
            raise
        except (ImportError, ValueError) as error:
            raise JobError(_KEY, f"{path}: {first_line(error)}") from None
        except Exception as error:
            raise credentials_error(error, path) or JobError(_KEY, _error_message(error, path)) from error

    def stat(self, uri: str) -> tuple[int, str]:
        """Size and stamp of a file now."""
        with storage_errors(uri):
            if not is_uri(uri):
                status = Path(uri).stat()
                return status.st_size, str(status.st_mtime_ns)
            return _size_and_stamp(self._request("info", uri))

    def stat_file(self, uri: str) -> tuple[int, str]:
        """Size and stamp of a remote file; what the storage raises is passed on, a folder is IsADirectoryError."""
        try:
            info = self._request("info", uri)
        except PermissionError:
            self._check_credentials(uri)
            info = self._request("info", uri)
        if info["type"] != "file":
            raise IsADirectoryError(uri)
        return _size_and_stamp(info)

    def _check_credentials(self, uri: str) -> None:
        """Asks for one byte of a file: the refusal of ``info`` does not say whether the credentials have ended.

        Raises:
            RunError: They have, or the server does not know them.
            PermissionError: They do not open this file.
        """
        try:
            self._request("cat_file", uri, start=0, end=1)
        except PermissionError as error:
            if (refused := credentials_error(error, uri)) is not None:
                raise refused from error
            raise

    def children(self, folder: str) -> dict[str, Callable[[], tuple[int, str]]]:
        """The files of one folder by name, each with a call that returns its size and stamp."""
        with storage_errors(folder):
            if not is_uri(folder):
                with os.scandir(folder) as found:
                    names = [child.name for child in found if _is_shown(child.name) and is_sure(child.is_file)]
                return {name: partial(self.stat, f"{folder}/{name}") for name in names}
            infos = self._request("ls", folder, detail=True)
            return {
                info["name"].rpartition("/")[2]: partial(_size_and_stamp, info)
                for info in infos
                if info["type"] == "file" and _is_shown(info["name"].rpartition("/")[2])
            }

    def read(self, uri: str, offset: int, length: int) -> bytes:
        """Bytes of a file; fewer where it ends before."""
        with storage_errors(uri):
            if not is_uri(uri):
                with Path(uri).open("rb") as stream:
                    stream.seek(offset)
                    return stream.read(length)
            return cast(bytes, self._request("cat_file", uri, start=offset, end=offset + length))

    def open(self, uri: str) -> BinaryIO:
        """A seekable stream; remote files are read ahead in blocks, each of which is retried by itself."""
        if not is_uri(uri):
            return Path(uri).open("rb")
        size, _ = self.stat(uri)
        if size:
            return cast(BinaryIO, io.BufferedReader(self._ranges(uri, size), _READ_AHEAD))
        return cast(BinaryIO, self._request("open", uri, mode="rb"))

    def open_ranges(self, uri: str, size: int) -> BinaryIO:
        """A seekable stream whose every read is one request, for readers that know what they want."""
        return Path(uri).open("rb") if not is_uri(uri) else cast(BinaryIO, self._ranges(uri, size))

    def chunks(self, uri: str, size: int = 8 << 20) -> Iterator[bytes]:
        """The file's bytes from the beginning, in pieces."""
        with self.open(uri) as stream:
            while chunk := stream.read(size):
                yield chunk

    def remote(self, uri: str) -> tuple[Any, str]:
        """The file system behind a URI, and the path in it."""
        protocol = uri.partition("://")[0]
        filesystem = open_filesystem(protocol, self._endpoint_url)
        return filesystem, filesystem._strip_protocol(uri)

    def _request(self, method: str, uri: str, **arguments: Any) -> Any:
        """Calls a method of the file system behind a URI, which each try asks for anew, on the path in it."""

        def attempt() -> Any:
            filesystem, path = self.remote(uri)
            return getattr(filesystem, method)(path, **arguments)

        return retrying(attempt)

    def _ranges(self, uri: str, size: int) -> RangeStream:
        return RangeStream(lambda start, stop: self.read(uri, start, stop - start), size)

    def _list_remote(self, uri: str) -> Listing:
        if "::" in uri:
            raise JobError(_KEY, f"{uri}: chained URIs are not read; give the storage's own URI")
        filesystem, path = self.remote(uri)
        scheme = uri.partition("://")[0] + "://"
        try:
            info = self._request("info", uri)
        except FileNotFoundError:
            info = None
        if info is not None and info["type"] == "file":
            entry = Entry(uri, path.rpartition("/")[2], *_size_and_stamp(info))
            return Listing(scheme + path.rpartition("/")[0], [entry], False)
        pattern = info is None and glob.has_magic(path)
        root = glob_root(path) if pattern else path.rstrip("/")
        found = self._request("glob" if pattern else "find", uri, detail=True)
        if not found:
            raise JobError(_KEY, f"{uri}: there is no such file or folder; correct the path")
        names = {name: name[len(root) :].strip("/") for name, info in found.items() if info["type"] == "file"}
        entries = [
            Entry(filesystem.unstrip_protocol(name), relative, *_size_and_stamp(found[name]))
            for name, relative in names.items()
            if relative
        ]
        return filter_listing(scheme + root, entries, not pattern, pattern=path[len(root) :] if pattern else "")


def _is_shown(name: str) -> bool:
    return skip_reason(name) in (None, UNDERSCORE)


def _size_and_stamp(info: Mapping[str, Any]) -> tuple[int, str]:
    names = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated", "created")
    stamp = next((info[name] for name in names if info.get(name)), "")
    text = str(stamp.timestamp() if isinstance(stamp, datetime) else stamp)
    return int(info.get("size") or 0), text.strip('"')


def _error_message(error: Exception, path: str) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{path}: there is no such file or folder; correct the path"
    if isinstance(error, PermissionError):
        return f"{error.filename or path}: no permission to read it; change its owner or mode"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return f"{path}: a symbolic link that leads in circles; remove it"
    if is_transient(error):
        return f"{path}: the storage server does not answer ({type(error).__name__}); check storage.endpoint_url"
    return f"{path}: cannot be read ({first_line(error)}); check the path and who may read it"
