"""Objects behind fsspec: S3 request by request, any other protocol through fsspec's common calls."""

import io
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice
from typing import Any, BinaryIO, cast

from barycenter.infra.storage.errors import (
    MissingFileError,
    full_disk_errors,
    is_failed_precondition,
    is_unanswered,
    retrying,
    storage_errors,
)
from barycenter.infra.storage.filesystems import RangeStream, open_filesystem
from barycenter.infra.storage.spool import Spool

_PART = 64 * 2**20
_READ_AHEAD = 2**20


class RemoteStore:
    """The operations of :class:`barycenter.infra.storage.storage.Storage` under one fsspec URI."""

    def __init__(self, root: str, endpoint_url: str | None) -> None:
        self._protocol, _, base = root.partition("://")
        self._base = base.strip("/")
        self._scheme = f"{self._protocol}://"
        self._endpoint_url = endpoint_url
        self.unanswered_deletions = 0

    @property
    def _fs(self) -> Any:
        return open_filesystem(self._protocol, self._endpoint_url)

    def _full(self, path: str) -> str:
        return f"{self._base}/{path}" if path else self._base

    def uri(self, path: str) -> str:
        """The full URI."""
        return self._scheme + self._full(path)

    def is_case_insensitive(self) -> bool:
        """Never: object stores compare keys byte by byte."""
        return False

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """A stream whose content is sent as one object when the block ends without an error."""
        with Spool(_PART) as spool:
            with full_disk_errors(tempfile.gettempdir()):
                yield cast(BinaryIO, spool)
            size = spool.tell() if spool.seek(0, io.SEEK_END) else 0
            spool.seek(0)
            with storage_errors(self.uri(path)):
                if size <= _PART:
                    self._put(path, spool.read())
                else:
                    self._put_large(path, cast(BinaryIO, spool))

    def _put(self, path: str, data: bytes) -> None:
        retrying(lambda: self._fs.pipe_file(self._full(path), data))

    def _put_large(self, path: str, stream: BinaryIO) -> None:
        with self._fs.open(self._full(path), "wb") as target:
            while chunk := stream.read(_PART):
                target.write(chunk)

    def _create(self, path: str, data: bytes) -> None:
        self._fs.pipe_file(self._full(path), data, mode="create")

    def create(self, path: str, data: bytes) -> bool:
        """Writes ``path`` unless it exists; of several writers exactly one gets True."""
        tries = 0

        def attempt() -> None:
            nonlocal tries
            tries += 1
            self._create(path, data)

        with storage_errors(self.uri(path)):
            try:
                retrying(attempt)
            except FileExistsError:
                # A first request whose answer was lost may have been ours, unless it is gone by now.
                with suppress(MissingFileError):
                    return tries > 1 and self.read(path) == data
                return False
        return True

    def replace(self, path: str, data: bytes, before: bytes | None) -> bool:
        """Writes ``path`` if it still holds ``before``; another writer may come between."""
        if before is None:
            return self.create(path, data)
        if not self.exists(path) or self.read(path) != before:
            return False
        with storage_errors(self.uri(path)):
            self._put(path, data)
        return True

    def read(self, path: str) -> bytes:
        """The whole object."""
        with storage_errors(self.uri(path)):
            return cast(bytes, retrying(lambda: self._fs.cat_file(self._full(path))))

    def open(self, path: str) -> BinaryIO:
        """A seekable stream that fetches ranges, each retried by itself."""
        with storage_errors(self.uri(path)):
            size = int(retrying(lambda: self._fs.info(self._full(path)))["size"])
        return cast(BinaryIO, io.BufferedReader(RangeStream(partial(self._read_range, path), size), _READ_AHEAD))

    def for_arrow(self, path: str) -> BinaryIO:
        """What pyarrow reads an object from."""
        return self.open(path)

    def _read_range(self, path: str, start: int, stop: int) -> bytes:
        with storage_errors(self.uri(path)):
            return cast(bytes, retrying(lambda: self._fs.cat_file(self._full(path), start=start, end=stop)))

    def exists(self, path: str) -> bool:
        """Whether there is an object."""
        with storage_errors(self.uri(path)):
            try:
                return bool(retrying(lambda: self._fs.info(self._full(path)))["type"] == "file")
            except FileNotFoundError:
                return False

    def walk(self, prefix: str, sizes: bool) -> Iterator[tuple[str, int]]:
        """(path relative to the root, size) of every object below ``prefix``, in no order."""
        del sizes
        with storage_errors(self.uri(prefix)):
            found = retrying(lambda: self._fs.find(self._full(prefix), detail=True))
        cut = len(self._base) + 1
        for name, info in found.items():
            yield name.strip("/")[cut:], int(info["size"])

    def remove(self, paths: Iterable[str]) -> None:
        """Deletes objects; what is gone already is no error."""
        for path in paths:
            with storage_errors(self.uri(path)):
                try:
                    self._delete(lambda path=path: self._fs.rm_file(self._full(path)))  # type: ignore[misc]
                except FileNotFoundError:
                    continue

    def _delete(self, request: Callable[[], Any]) -> Any:
        handled = sys.exc_info()[1]

        def attempt() -> Any:
            try:
                return request()
            except Exception as error:
                self.unanswered_deletions += is_unanswered(error, handled)
                raise

        return retrying(attempt)

    def sync_folders(self, folders: Iterable[str]) -> None:
        """Nothing: what is there lasts."""

    def abandon_uploads(self) -> int:
        """Gives up unfinished multipart uploads; how many there were."""
        return 0


class S3Store(RemoteStore):
    """S3 and what speaks its protocol: conditional PUT, paged listings, multipart uploads with retried parts."""

    def __init__(self, root: str, endpoint_url: str | None) -> None:
        super().__init__(root, endpoint_url)
        self._bucket, _, self._folder = self._base.partition("/")

    def _key(self, path: str) -> str:
        return f"{self._folder}/{path}" if self._folder else path

    def _call(self, method: str, **arguments: Any) -> Any:
        return retrying(lambda: self._fs.call_s3(method, Bucket=self._bucket, **arguments))

    def _put(self, path: str, data: bytes) -> None:
        self._call("put_object", Key=self._key(path), Body=data)

    def _create(self, path: str, data: bytes) -> None:
        self._fs.call_s3("put_object", Bucket=self._bucket, Key=self._key(path), Body=data, IfNoneMatch="*")

    def replace(self, path: str, data: bytes, before: bytes | None) -> bool:
        """Writes ``path`` if it still holds ``before``; of several writers that saw it exactly one gets True."""
        if before is None:
            return self.create(path, data)
        tag = self._tag(path)
        if tag is None or self.read(path) != before:
            return False
        with storage_errors(self.uri(path)):
            try:
                self._call("put_object", Key=self._key(path), Body=data, IfMatch=tag)
            except OSError as error:
                if not is_failed_precondition(error):
                    raise
                # A first request whose answer was lost may have been ours.
                return self.read(path) == data
        return True

    def _tag(self, path: str) -> str | None:
        """The ETag of an object; None where there is none."""
        with storage_errors(self.uri(path)):
            try:
                return str(self._call("head_object", Key=self._key(path))["ETag"])
            except FileNotFoundError:
                return None

    def _put_large(self, path: str, stream: BinaryIO) -> None:
        key = self._key(path)
        upload = self._call("create_multipart_upload", Key=key)["UploadId"]
        try:
            parts: list[dict[str, Any]] = []
            while chunk := stream.read(_PART):
                number = len(parts) + 1
                answer = self._call("upload_part", Key=key, UploadId=upload, PartNumber=number, Body=chunk)
                parts.append({"PartNumber": number, "ETag": answer["ETag"]})
            self._complete(key, upload, parts)
        except BaseException:
            with suppress(Exception):  # what went wrong first is reported; `abandon_uploads` finds what is left
                self._call("abort_multipart_upload", Key=key, UploadId=upload)
            raise

    def _complete(self, key: str, upload: str, parts: list[dict[str, Any]]) -> None:
        """Completes an upload; one whose first answer was lost is gone by the next try, and whole."""
        tries = 0

        def attempt() -> None:
            nonlocal tries
            tries += 1
            arguments = {"Bucket": self._bucket, "Key": key, "UploadId": upload, "MultipartUpload": {"Parts": parts}}
            self._fs.call_s3("complete_multipart_upload", **arguments)

        try:
            retrying(attempt)
        except FileNotFoundError:
            if tries == 1:
                raise
            self._call("head_object", Key=key)

    def exists(self, path: str) -> bool:
        """Whether there is an object."""
        return self._tag(path) is not None

    def _pages(self, method: str, prefix: str, marks: dict[str, str]) -> Iterator[Any]:
        """Answers of a paged listing; ``marks`` maps the answer's continuation fields to the next request's."""
        arguments: dict[str, Any] = {"Prefix": prefix}
        while True:
            page = self._call(method, **arguments)
            yield page
            if not page.get("IsTruncated"):
                return
            arguments |= {ask: page[given] for given, ask in marks.items()}

    def walk(self, prefix: str, sizes: bool) -> Iterator[tuple[str, int]]:
        """(path relative to the root, size) of every object below ``prefix``, page by page."""
        del sizes
        cut = len(self._folder) + 1 if self._folder else 0
        start = self._key(f"{prefix}/") if prefix else (f"{self._folder}/" if self._folder else "")
        with storage_errors(self.uri(prefix)):
            for page in self._pages("list_objects_v2", start, {"NextContinuationToken": "ContinuationToken"}):
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):
                        yield entry["Key"][cut:], int(entry["Size"])

    def remove(self, paths: Iterable[str]) -> None:
        """Deletes objects, a thousand a request; what is gone already is no error."""
        with storage_errors(self.uri("")):
            rest = iter(paths)
            while objects := [{"Key": self._key(path)} for path in islice(rest, 1000)]:
                request: dict[str, Any] = {"Bucket": self._bucket, "Delete": {"Objects": objects, "Quiet": True}}
                answer = self._delete(partial(self._fs.call_s3, "delete_objects", **request))
                if failed := answer.get("Errors"):
                    raise PermissionError(f"{len(failed)} objects were not deleted")

    def abandon_uploads(self) -> int:
        """Gives up unfinished multipart uploads below the root; how many there were."""
        marks = {"NextKeyMarker": "KeyMarker", "NextUploadIdMarker": "UploadIdMarker"}
        count = 0
        with storage_errors(self.uri("")):
            for page in self._pages("list_multipart_uploads", f"{self._folder}/" if self._folder else "", marks):
                for upload in page.get("Uploads", ()):
                    with suppress(FileNotFoundError):  # completed or given up by now, perhaps by a request of ours
                        self._call("abort_multipart_upload", Key=upload["Key"], UploadId=upload["UploadId"])
                    count += 1
        return count
