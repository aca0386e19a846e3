"""fsspec's file systems, one for each process, and their files as streams of ranges."""

import io
import logging
import os
from collections.abc import Callable
from typing import Any

import fsspec

S3 = ("s3", "s3a")
"""The protocols of S3."""

_opened: dict[tuple[str, str | None, int], Any] = {}
"""File systems by protocol, server and process: clients survive neither fork nor pickle."""


def open_filesystem(protocol: str, endpoint_url: str | None) -> Any:
    """The file system of a protocol and server in this process; it retries nothing itself and caches no listing.

    It is to be asked for before every request: after :func:`reopen_filesystems` it is another.
    """
    key = (protocol, endpoint_url, os.getpid())
    system = _opened.get(key)
    return system if system is not None else _opened.setdefault(key, _new_filesystem(protocol, endpoint_url))


def opened_s3() -> Any | None:
    """A file system on S3 that this process has opened; None where there is none."""
    here = ((protocol, endpoint_url) for protocol, endpoint_url, process in list(_opened) if process == os.getpid())
    found = next((key for key in here if key[0] in S3), None)
    return None if found is None else open_filesystem(*found)


def reopen_filesystems() -> None:
    """Replaces this process's file systems by new ones, which look for credentials again."""
    for protocol, endpoint_url, process in list(_opened):
        if process == os.getpid():
            _opened[protocol, endpoint_url, process] = _new_filesystem(protocol, endpoint_url)


def _new_filesystem(protocol: str, endpoint_url: str | None) -> Any:
    options: dict[str, Any] = {"skip_instance_cache": True, "use_listings_cache": False}
    if protocol in S3:
        _keep_requests_out_of_logs()
        options["max_concurrency"] = 1
        options["config_kwargs"] = {
            "retries": {"total_max_attempts": 1, "mode": "standard"},
            "connect_timeout": 5,
            "read_timeout": 30,
        }
        if endpoint_url:
            options["endpoint_url"] = endpoint_url
    system = fsspec.filesystem(protocol, **options)
    system.retries = 1
    return system


def _keep_requests_out_of_logs() -> None:
    """At their lowest level these loggers show requests with session tokens; whoever wants that says so of them."""
    for name in ("botocore", "aiobotocore"):
        if logging.getLogger(name).level == logging.NOTSET:
            logging.getLogger(name).setLevel(logging.INFO)


class RangeStream(io.RawIOBase):
    """A file of ``size`` bytes as a seekable stream without a cache: every read is one request.

    >>> stream = RangeStream(lambda start, stop: b"barycenter"[start:stop], 10)
    >>> stream.seek(4), stream.read(3), stream.read()
    (4, b'cen', b'ter')
    """

    def __init__(self, read_range: Callable[[int, int], bytes], size: int) -> None:
        super().__init__()
        self._read_range, self._size, self._position = read_range, size, 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves the position, never before the beginning."""
        self._position = max(0, offset + (0, self._position, self._size)[whence])
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fills a buffer, or as much of it as there is."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def read(self, size: int = -1) -> bytes:
        """Bytes from the position on; all of them by default."""
        stop = self._size if size < 0 else min(self._position + size, self._size)
        data = self._read_range(self._position, stop) if stop > self._position else b""
        self._position += len(data)
        return data
