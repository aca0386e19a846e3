"""Finds and reads the picture that a value of an image column names or holds."""

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
from barycenter.infra.userinfo import without_userinfo

_MISSING_ERRNOS = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP)
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")
_TEXT_HEAD_BYTES = 24
IMAGES_FOLDER = "images"
"""Folder beside the table in which relative paths are tried second."""

_HTTP_URL = re.compile(r"https?://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded picture that was found but not read yet.

    Attributes:
        read: Returns the bytes; raises ``BadInputError``, or the storage's own error where a retry may help.
        uri: Path or URI; None for bytes in the table.
        stamp: Modification time in nanoseconds or etag, where known.
        size: Bytes, where known.
    """

    read: Callable[[], bytes]
    uri: str | None
    stamp: str | None
    size: int | None


class Pictures:
    """Finds the pictures that the rows of a corpus name or hold; picklable.

    Args:
        root: The corpus folder.
        outside_corpus: Whether paths, links and URIs may lead out of ``root``.
        http: Whether pictures may be fetched by http(s).
        max_bytes: Larger pictures are rejected unread.
        http_timeout: Seconds that a server may take to send a picture.
        http_concurrency: Pictures fetched by http(s) at a time in one process.
        storage_options: ``endpoint_url`` of an S3-compatible server, if any.
    """

    def __init__(
        self,
        root: str,
        outside_corpus: bool = False,
        http: bool = False,
        max_bytes: int = 256 << 20,
        http_timeout: float = 30.0,
        http_concurrency: int = 8,
        storage_options: Mapping[str, Any] | None = None,
    ) -> None:
        self._root = root
        self._outside_corpus = outside_corpus
        self._http = http
        self._max_bytes = max_bytes
        self._http_timeout, self._http_concurrency = http_timeout, http_concurrency
        self._files = Files(storage_options)
        self._real_root = None if is_uri(root) else os.path.realpath(root)
        self._allowed_roots = () if self._real_root is None else allowed_roots(root)

    def find(self, value: object, folder: str = "") -> Picture:
        """Finds the picture that a value names or holds; checks that it exists and may be read.

        Args:
            value: Encoded bytes; a struct of ``bytes`` and ``path`` (Hugging Face), which may name its ``folder``, or
                the same as JSON, with base64 for the bytes; a path or URI.
            folder: Folder of the table, relative to ``root``; relative paths start there.

        Raises:
            BadInputError: null, empty, not_an_image, file_missing, not_a_file, no_permission, outside_corpus,
                http_not_allowed, too_large.
        """
        if isinstance(value, Mapping):
            folder = value.get("folder") or folder
            value = _bytes_or_path(value)
        if isinstance(value, str) and value.lstrip().startswith("{"):
            value = _parse_json_struct(value)
        if value is None:
            raise BadInputError(Reason.NULL)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._picture_of_bytes(bytes(value))
        if not isinstance(value, str):
            raise BadInputError(Reason.NOT_AN_IMAGE, f"{value!r:.60} is neither a path nor encoded bytes")
        if not value.strip():
            raise BadInputError(Reason.EMPTY)
        decoded = inline_picture(value, self._max_bytes)
        if decoded is not None:
            return self._picture_of_bytes(decoded)
        if value.startswith("file://"):
            value = unquote(value.removeprefix("file://").removeprefix("localhost"))
        if _HTTP_URL.match(value):
            if (shown := without_userinfo(value)) != value:
                raise BadInputError(Reason.HTTP_ERROR, f"{shown}: URLs with a user name or password are not fetched")
            if not self._http:
                raise BadInputError(Reason.HTTP_NOT_ALLOWED, f"{value}; limits.http: true fetches it")
            limits = (self._max_bytes, self._http_timeout, self._http_concurrency)
            return Picture(partial(fetch, value, *limits), value, None, None)
        return self._find_path_or_uri(value, folder)

    def _find_path_or_uri(self, value: str, folder: str) -> Picture:
        """Finds a path or URI; where one with backslashes does not exist, tries it with slashes."""
        is_remote = is_uri(value) or (self._real_root is None and value[:1] != "/")
        find = self._find_remote if is_remote else self._find_local
        try:
            return find(value, folder)
        except BadInputError as error:
            if "\\" not in value or error.reason not in (Reason.FILE_MISSING, Reason.OUTSIDE_CORPUS):
                raise
        if _WINDOWS_PATH.match(value):
            raise BadInputError(Reason.FILE_MISSING, f"{value} is a Windows path; write it relative to the table")
        return find(value.replace("\\", "/"), folder)

    def relative_uri(self, uri: str) -> str:
        """Returns a path or URI relative to ``root``; one outside it as it is.

        Recorded paths so stay valid when the corpus is moved, and do not reveal whose folder it was in.
        """
        return uri.removeprefix(self._root.rstrip("/") + "/")

    def _picture_of_bytes(self, data: bytes) -> Picture:
        """Returns the picture of encoded bytes, or of bytes that are the text of base64."""
        if not data:
            raise BadInputError(Reason.EMPTY)
        if data[:1].isascii() and (decoded := self._decode_text(data)) is not None:
            data = decoded
        self._check_size(len(data), "encoded bytes")
        return Picture(lambda: data, None, None, len(data))

    def _decode_text(self, data: bytes) -> bytes | None:
        """Decodes bytes that are the text of a base64 picture or data: URI; returns None for other bytes."""
        if not data[:_TEXT_HEAD_BYTES].isascii() or not data[:_TEXT_HEAD_BYTES].decode("ascii").isprintable():
            return None
        try:
            return inline_picture(data.decode("ascii"), self._max_bytes)
        except UnicodeDecodeError:
            return None

    def _find_local(self, value: str, folder: str) -> Picture:
        """Finds a local path: absolute, or relative to the table's folder or its folder of images."""
        if self._real_root is None:
            if not self._outside_corpus:
                raise _outside_error(value)
            candidates = [value]
        else:
            base = os.path.join(self._root, folder)  # noqa: PTH118 - an absolute value replaces the base
            places = [value] if value.startswith("/") else [f"{base}/{value}", f"{base}/{IMAGES_FOLDER}/{value}"]
            candidates = list(map(os.path.normpath, places))
        asked, value = value, self.relative_uri(value)
        for path in candidates:
            with _errors_as_rejects(value):
                self._check_inside(path, value)
                try:
                    status = os.stat(path)  # noqa: PTH116 - once a picture
                except OSError as error:
                    if error.errno in _MISSING_ERRNOS:
                        continue
                    raise
            if not stat.S_ISREG(status.st_mode):
                raise BadInputError(Reason.NOT_A_FILE, value)
            self._check_size(status.st_size, value)
            return Picture(partial(_read_local, path, value), path, str(status.st_mtime_ns), status.st_size)
        raise self._missing_error(asked, folder)

    def _missing_error(self, value: str, folder: str) -> BadInputError:
        if value.startswith("/") or is_uri(value):
            return BadInputError(Reason.FILE_MISSING, self.relative_uri(value))
        place = f"{folder.rstrip('/')}/" if folder else ""
        return BadInputError(Reason.FILE_MISSING, f"{value}: neither {place}{value} nor {place}{IMAGES_FOLDER}/{value}")

    def _check_inside(self, path: str, value: str) -> None:
        """Raises where a local path, or what its links lead to, is outside the corpus folder and must not be."""
        if self._outside_corpus or self._real_root is None:
            return
        inside = ((path, (os.path.normpath(self._root),)), (os.path.realpath(path), self._allowed_roots))
        for target, roots in inside:
            if not is_below(target, roots):
                raise _outside_error(value, linked=roots is self._allowed_roots)

    def _check_size(self, size: int, value: str) -> None:
        if size == 0:
            raise BadInputError(Reason.EMPTY, value)
        if size > self._max_bytes:
            raise BadInputError(Reason.TOO_LARGE, f"{value}: {size} bytes, at most {self._max_bytes} are read")

    def _find_remote(self, value: str, folder: str) -> Picture:
        """Finds a URI, or a path relative to the table's folder in an object store."""
        if "::" in value or "\0" in value:
            raise BadInputError(Reason.FILE_MISSING, value)
        if is_uri(value):
            candidates = [value]
        else:
            base = f"{folder}/" if folder else ""
            paths = [posixpath.normpath(base + value), posixpath.normpath(f"{base}{IMAGES_FOLDER}/{value}")]
            if any(path.startswith("..") for path in paths[:1]) and not self._outside_corpus:
                raise _outside_error(value)
            candidates = [f"{self._root.rstrip('/')}/{path}" for path in paths]
        asked, value = value, self.relative_uri(value)
        for uri in candidates:
            if not self._outside_corpus and not self._is_below_root(uri):
                raise _outside_error(value)
            try:
                with _errors_as_rejects(value):
                    size, stamp = self._files.stat_file(uri)
            except BadInputError as error:
                if error.reason is Reason.FILE_MISSING:
                    continue
                raise
            self._check_size(size, value)
            return Picture(partial(self._read_remote, uri, size, value), uri, stamp, size)
        raise self._missing_error(asked, folder)

    def _is_below_root(self, uri: str) -> bool:
        if not is_uri(self._root) or uri.partition("://")[0] != self._root.partition("://")[0] or "/../" in uri:
            return False
        root, path = (self._files.remote(name)[1].rstrip("/") for name in (self._root, uri))
        return bool(path.startswith(root + "/"))

    def _read_remote(self, uri: str, size: int, value: str) -> bytes:
        with _errors_as_rejects(value):
            return self._files.read(uri, 0, size)


def _parse_json_struct(text: str) -> object:
    """Returns the bytes or the path in a JSON object of ``bytes`` and ``path``; other text as it is."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text
    return _bytes_or_path(value) if isinstance(value, dict) and {"bytes", "path"} & value.keys() else text


def _bytes_or_path(value: Mapping[str, object]) -> object:
    return value.get("bytes") if value.get("bytes") is not None else value.get("path")


def _outside_error(value: str, *, linked: bool = False) -> BadInputError:
    what = "links lead" if linked else "it leads"
    return BadInputError(
        Reason.OUTSIDE_CORPUS, f"{value}: {what} out of the corpus folder; limits.outside_corpus: true allows it"
    )


@contextmanager
def _errors_as_rejects(value: str) -> Iterator[None]:
    """Turns errors of a single picture to ``BadInputError``; other errors, such as a server's, are not caught."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError, MissingFileError):
        raise BadInputError(Reason.FILE_MISSING, value) from None
    except IsADirectoryError:
        raise BadInputError(Reason.NOT_A_FILE, value) from None
    except PermissionError:
        raise BadInputError(Reason.NO_PERMISSION, value) from None
    except (ValueError, UnicodeError):
        raise BadInputError(Reason.FILE_MISSING, f"{value!r:.200} is not a valid path") from None
    except OSError as error:
        if error.errno in _MISSING_ERRNOS:
            raise BadInputError(Reason.FILE_MISSING, value) from None
        raise


def _read_local(path: str, value: str) -> bytes:
    with _errors_as_rejects(value):
        return Path(path).read_bytes()
