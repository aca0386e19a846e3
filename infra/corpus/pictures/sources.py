"""From the value of an image column to the picture's bytes: what may be read, from where, and what is wrong with it."""

import errno
import json
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from barycenter.fusion.errors import BadInputError, Reason
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.listing import allowed_roots, is_below
from barycenter.infra.corpus.pictures.http import fetch
from barycenter.infra.corpus.pictures.inline import inline_picture
from barycenter.infra.job.paths import is_uri
from barycenter.infra.storage.errors import MissingFileError

_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_WINDOWS = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_TEXT = 24
_WEB = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture that is yet to be read.

    Attributes:
        read: Gives the bytes; raises ``BadInputError``, or what the storage raises where another try may help.
        uri: Where it lies; None for bytes out of the table.
        stamp: Modification time in nanoseconds or etag, where known.
        size: Bytes, where known.
    """

    read: Callable[[], bytes]
    uri: str | None
    stamp: str | None
    size: int | None


class Pictures:
    """Finds the pictures that a corpus names; picklable.

    Args:
        root: The corpus folder.
        images_folder: Folder beside the metadata file that is tried when a path is not found beside it.
        outside_corpus: Whether paths, links and URIs may lead out of ``root``.
        http: Whether pictures may be fetched by http(s).
        max_bytes: Larger pictures are refused unread.
        http_timeout: Seconds that a server may take to send a picture.
        http_concurrency: Pictures fetched by http(s) at a time in one process.
        storage_options: ``endpoint_url`` of an S3-compatible server, if any.
    """

    def __init__(
        self,
        root: str,
        images_folder: str = "images",
        outside_corpus: bool = False,
        http: bool = False,
        max_bytes: int = 256 << 20,
        http_timeout: float = 30.0,
        http_concurrency: int = 8,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._root = root
        self._images_folder = images_folder
        self._outside_corpus = outside_corpus
        self._http = http
        self._max_bytes = max_bytes
        self._http_timeout, self._http_concurrency = http_timeout, http_concurrency
        self._files = Files(storage_options)
        self._real_root = None if is_uri(root) else os.path.realpath(root)
        self._inside = () if self._real_root is None else allowed_roots(root)

    def reader(self, value: object, folder: str = "") -> Picture:
        """Looks a picture up.

        Args:
            value: Encoded bytes; a struct of ``bytes`` and ``path`` (Hugging Face), which may name its ``folder``, or
                the same as JSON, with base64 for the bytes; a path or URI.
            folder: Folder of the metadata file, relative to ``root``: where relative paths start.

        Raises:
            BadInputError: null, empty, not_an_image, file_missing, not_a_file, no_permission, outside_corpus,
                http_not_allowed, too_large.
        """
        if isinstance(value, Mapping):
            folder = value.get("folder") or folder
            value = _bytes_or_path(value)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _written_struct(value)
        if value is None:
            raise BadInputError(Reason.NULL)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._encoded(bytes(value))
        if not isinstance(value, str):
            raise BadInputError(Reason.NOT_AN_IMAGE, f"{value!r:.60} is neither a path nor encoded bytes")
        if not value.strip():
            raise BadInputError(Reason.EMPTY)
        written_out = inline_picture(value, self._max_bytes)
        if written_out is not None:
            return self._encoded(written_out)
        if value.startswith("file://"):
            value = unquote(value.removeprefix("file://").removeprefix("localhost"))
        if _WEB.match(value):
            if not self._http:
                raise BadInputError(Reason.HTTP_NOT_ALLOWED, f"{value}; limits.http: true fetches it")
            limits = (self._max_bytes, self._http_timeout, self._http_concurrency)
            return Picture(partial(fetch, value, *limits), value, None, None)
        return self._found(value, folder)

    def _found(self, value: str, folder: str) -> Picture:
        """A path or URI; one with backslashes that is not there is looked for with slashes."""
        look = self._remote if is_uri(value) or (self._real_root is None and value[:1] != "/") else self._local
        if "\\" not in value:
            return look(value, folder)
        try:
            return look(value, folder)
        except BadInputError as error:
            if error.reason not in (Reason.FILE_MISSING, Reason.OUTSIDE_CORPUS):
                raise
        if _WINDOWS.match(value):
            raise BadInputError(
                Reason.FILE_MISSING, f"{value} is a path of a Windows machine; write it relative to the table"
            )
        return look(value.replace("\\", "/"), folder)

    def place(self, uri: str | None) -> str | None:
        """Where a picture lies, as it is recorded: relative to ``root`` where it lies below it.

        What is kept of a corpus stays true when the corpus is moved, and does not say whose folder it lay in.
        """
        return self._placed(uri) if uri is not None else None

    def _placed(self, uri: str) -> str:
        return uri.removeprefix(self._root.rstrip("/") + "/")

    def _encoded(self, data: bytes) -> Picture:
        if not data:
            raise BadInputError(Reason.EMPTY)
        if data[:1].isascii() and (written_out := self._written_out(data)) is not None:
            data = written_out
        self._check_size(len(data), "encoded bytes")
        return Picture(lambda: data, None, None, len(data))

    def _written_out(self, data: bytes) -> bytes | None:
        """What text in the place of encoded bytes says, if it is base64 or a data: URI."""
        if not data[:_TEXT].isascii() or not data[:_TEXT].decode("ascii").isprintable():
            return None
        try:
            return inline_picture(data.decode("ascii"), self._max_bytes)
        except UnicodeDecodeError:
            return None

    def _local(self, value: str, folder: str) -> Picture:
        if self._real_root is None:
            if not self._outside_corpus:
                raise _outside(value)
            candidates = [value]
        else:
            base = os.path.join(self._root, folder)  # noqa: PTH118 - an absolute value replaces the base
            candidates = [
                os.path.normpath(f"{base}/{value}"),
                os.path.normpath(f"{base}/{self._images_folder}/{value}"),
            ]
            candidates = candidates if not value.startswith("/") else [os.path.normpath(value)]
        asked, value = value, self._placed(value)
        for path in candidates:
            with _picture_errors(value):
                self._check_inside(path, value)
                try:
                    status = os.stat(path)  # noqa: PTH116 - once a picture
                except OSError as error:
                    if error.errno in _MISSING:
                        continue
                    raise
            if not stat.S_ISREG(status.st_mode):
                raise BadInputError(Reason.NOT_A_FILE, value)
            self._check_size(status.st_size, value)
            return Picture(partial(_read_local, path, value), path, str(status.st_mtime_ns), status.st_size)
        raise self._missing(asked, folder)

    def _missing(self, value: str, folder: str) -> BadInputError:
        if value.startswith("/") or is_uri(value):
            return BadInputError(Reason.FILE_MISSING, self._placed(value))
        place = f"{folder.rstrip('/')}/" if folder else ""
        return BadInputError(
            Reason.FILE_MISSING, f"{value}: neither {place}{value} nor {place}{self._images_folder}/{value}"
        )

    def _check_inside(self, path: str, value: str) -> None:
        if self._outside_corpus or self._real_root is None:
            return
        inside = ((path, (os.path.normpath(self._root),)), (os.path.realpath(path), self._inside))
        for target, roots in inside:
            if not is_below(target, roots):
                raise _outside(value, linked=roots is self._inside)

    def _check_size(self, size: int, value: str) -> None:
        if size == 0:
            raise BadInputError(Reason.EMPTY, value)
        if size > self._max_bytes:
            raise BadInputError(Reason.TOO_LARGE, f"{value}: {size} bytes, at most {self._max_bytes} are read")

    def _remote(self, value: str, folder: str) -> Picture:
        if "::" in value or "\0" in value:
            raise BadInputError(Reason.FILE_MISSING, value)
        if is_uri(value):
            candidates = [value]
        else:
            base = f"{folder}/" if folder else ""
            paths = [posixpath.normpath(base + value), posixpath.normpath(f"{base}{self._images_folder}/{value}")]
            if any(path.startswith("..") for path in paths[:1]) and not self._outside_corpus:
                raise _outside(value)
            candidates = [f"{self._root.rstrip('/')}/{path}" for path in paths]
        asked, value = value, self._placed(value)
        for uri in candidates:
            if not self._outside_corpus and not self._is_below(uri):
                raise _outside(value)
            try:
                with _picture_errors(value):
                    size, stamp = self._files.stat_file(uri)
            except BadInputError as error:
                if error.reason is Reason.FILE_MISSING:
                    continue
                raise
            self._check_size(size, value)
            return Picture(partial(self._read_remote, uri, size, value), uri, stamp, size)
        raise self._missing(asked, folder)

    def _is_below(self, uri: str) -> bool:
        if not is_uri(self._root) or uri.partition("://")[0] != self._root.partition("://")[0] or "/../" in uri:
            return False
        root, path = (self._files.remote(name)[1].rstrip("/") for name in (self._root, uri))
        return bool(path.startswith(root + "/"))

    def _read_remote(self, uri: str, size: int, value: str) -> bytes:
        with _picture_errors(value):
            return self._files.read(uri, 0, size)


def _written_struct(text: str) -> object:
    """What a JSON object of ``bytes`` and ``path`` holds; other text as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _bytes_or_path(value) if isinstance(value, dict) and {"bytes", "path"} & value.keys() else text


def _bytes_or_path(value: Mapping[str, object]) -> object:
    return value.get("bytes") if value.get("bytes") is not None else value.get("path")


def _outside(value: str, *, linked: bool = False) -> BadInputError:
    what = "links lead" if linked else "it leads"
    return BadInputError(
        Reason.OUTSIDE_CORPUS, f"{value}: {what} out of the corpus folder; limits.outside_corpus: true allows it"
    )


@contextmanager
def _picture_errors(value: str) -> Iterator[None]:
    """Turns errors that concern one picture into BadInputError; others, such as a server's, pass through."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise BadInputError(Reason.FILE_MISSING, value) from None
    except MissingFileError:
        raise BadInputError(Reason.FILE_MISSING, value) from None
    except IsADirectoryError:
        raise BadInputError(Reason.NOT_A_FILE, value) from None
    except PermissionError:
        raise BadInputError(Reason.NO_PERMISSION, value) from None
    except (ValueError, UnicodeError):
        raise BadInputError(Reason.FILE_MISSING, f"{value!r:.200} is no path") from None
    except OSError as error:
        if error.errno in _MISSING:
            raise BadInputError(Reason.FILE_MISSING, value) from None
        raise


def _read_local(path: str, value: str) -> bytes:
    with _picture_errors(value):
        return Path(path).read_bytes()
