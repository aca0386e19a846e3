"""An object store in memory beneath the S3 store, request by request: throttled, failing, silent or late."""

import hashlib
import itertools
from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError, ReadTimeoutError
from s3fs.errors import translate_boto_error

from barycenter.infra.storage.remote import S3Store
from tests.simulation.disk import heat
from tests.simulation.kernel import Kernel, Process

_READS = ("slow_down", "server_error", "timeout")
_WRITES = (*_READS, "lost_answer", "late", "kill_sent")
_CONDITIONAL = (*_WRITES, "conflict")
LATEST_SECONDS = 90.0
"""Until a request arrives whose sender was given no answer, or is dead."""


class SimulatedBucket:
    """Objects of one bucket, and the requests that s3fs would send for them.

    Args:
        kernel: Before each request others may run.
        folder: Prefix that ``changed`` is given paths relative to.
        changed: Called with a path, its content before and after (None: no object).
        page: Entries in one page of a listing.

    Attributes:
        coarse: Whether processes keep a history of what they see.
    """

    def __init__(
        self, kernel: Kernel, folder: str, changed: Callable[[str, bytes | None, bytes | None], None], page: int = 1000
    ) -> None:
        self._kernel, self._cut, self._changed, self._page = kernel, len(folder) + 1, changed, page
        self._folder = folder
        self._objects: dict[str, tuple[bytes, str]] = {}
        self._uploads: dict[str, tuple[str, dict[int, bytes]]] = {}
        self._numbers = itertools.count(1)
        self.coarse = False

    # What S3Store calls.

    def call_s3(self, method: str, **arguments: Any) -> Any:
        """One request."""
        place = str(arguments.get("Key", arguments.get("Prefix", "")))[self._cut :]
        conditional = "IfNoneMatch" in arguments or "IfMatch" in arguments
        reads = method.startswith(("get", "head", "list"))
        faults = _READS if reads else _CONDITIONAL if conditional else _WRITES
        if method == "delete_objects":
            place = arguments["Delete"]["Objects"][0]["Key"][self._cut :] + " ..."
        fault = self._kernel.step(f"{method} {place}", heat(place, method == "put_object"), faults)
        request = getattr(self, f"_{method}")
        if self.coarse:
            there = self.contents(place) if reads else self.peek(place)
            self._kernel.process.saw(
                (method, place, tuple(sorted(there.items())) if isinstance(there, dict) else there)
            )
        if fault is None:
            return request(**arguments)
        if fault == "lost_answer":
            request(**arguments)
        elif fault in ("late", "kill_sent"):
            process = self._kernel.process
            after = process.random.uniform(0, process.random.choice((8.0, LATEST_SECONDS)))
            self._kernel.at(self._kernel.now + after, lambda: self._late(process, request, arguments))
            if fault == "kill_sent":
                self._kernel.strike(process)
        raise _fault(fault, method)

    def cat_file(self, path: str, start: int | None = None, end: int | None = None) -> bytes:
        """The bytes of an object, or a range of them."""
        bucket, _, key = path.partition("/")
        data: bytes = self.call_s3("get_object", Bucket=bucket, Key=key)["Body"]
        return data[start:end]

    def info(self, path: str) -> dict[str, Any]:
        """Size and type of an object."""
        bucket, _, key = path.partition("/")
        answer = self.call_s3("head_object", Bucket=bucket, Key=key)
        return {"type": "file", "size": answer["ContentLength"], "ETag": answer["ETag"]}

    # What a world does to it.

    def contents(self, prefix: str = "") -> dict[str, bytes]:
        """Every object below the folder, without taking a step."""
        cut = self._cut
        return {key[cut:]: data for key, (data, _) in self._objects.items() if key[cut:].startswith(prefix)}

    def peek(self, path: str) -> bytes | None:
        """The content of an object, without taking a step; None if there is none."""
        found = self._objects.get(f"{self._folder}/{path}")
        return None if found is None else found[0]

    def restore(self, contents: dict[str, bytes], folder: str) -> None:
        """Puts objects there."""
        for path, data in contents.items():
            self._objects[f"{folder}/{path}"] = (data, self._tag(data))

    @property
    def uploads(self) -> int:
        """Unfinished multipart uploads."""
        return len(self._uploads)

    def _late(self, process: Process, request: Callable[..., Any], arguments: dict[str, Any]) -> None:
        self._kernel.acting = process
        try:
            request(**arguments)
        except OSError:
            return
        finally:
            self._kernel.acting = None

    @staticmethod
    def _tag(data: bytes) -> str:
        return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'

    def _store(self, key: str, data: bytes) -> dict[str, str]:
        before = self._objects.get(key)
        tag = self._tag(data)
        self._objects[key] = (data, tag)
        self._changed(key[self._cut :], None if before is None else before[0], data)
        return {"ETag": tag}

    def _there(self, key: str, missing: str) -> tuple[bytes, str]:
        if key not in self._objects:
            raise _error(missing, 404)
        return self._objects[key]

    def _put_object(
        self, *, Bucket: str, Key: str, Body: bytes, IfNoneMatch: str | None = None, IfMatch: str | None = None
    ) -> dict[str, str]:
        if IfNoneMatch and Key in self._objects:
            raise _error("PreconditionFailed", 412, Condition="If-None-Match")
        if IfMatch and self._there(Key, "NoSuchKey")[1] != IfMatch:
            raise _error("PreconditionFailed", 412, Condition="If-Match")
        return self._store(Key, bytes(Body))

    def _head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        data, tag = self._there(Key, "404")
        return {"ContentLength": len(data), "ETag": tag}

    def _get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        data, tag = self._there(Key, "NoSuchKey")
        return {"Body": data, "ContentLength": len(data), "ETag": tag}

    def _list_objects_v2(self, *, Bucket: str, Prefix: str, ContinuationToken: str = "") -> dict[str, Any]:
        if Prefix[self._cut :] == "lease/":
            self._kernel.current.looked = self._kernel.current.count
        keys = sorted(key for key in self._objects if key.startswith(Prefix) and key > ContinuationToken)
        page = keys[: self._page]
        answer: dict[str, Any] = {"Contents": [{"Key": key, "Size": len(self._objects[key][0])} for key in page]}
        return answer | ({"IsTruncated": True, "NextContinuationToken": page[-1]} if len(keys) > len(page) else {})

    def _delete_objects(self, *, Bucket: str, Delete: dict[str, Any]) -> dict[str, Any]:
        for entry in Delete["Objects"]:
            before = self._objects.pop(entry["Key"], None)
            if before is not None:
                self._changed(entry["Key"][self._cut :], before[0], None)
        return {}

    def _create_multipart_upload(self, *, Bucket: str, Key: str) -> dict[str, str]:
        upload = f"upload-{next(self._numbers)}"
        self._uploads[upload] = (Key, {})
        return {"UploadId": upload}

    def _upload(self, upload: str) -> tuple[str, dict[int, bytes]]:
        if upload not in self._uploads:
            raise _error("NoSuchUpload", 404)
        return self._uploads[upload]

    def _upload_part(self, *, Bucket: str, Key: str, UploadId: str, PartNumber: int, Body: bytes) -> dict[str, str]:
        self._upload(UploadId)[1][PartNumber] = bytes(Body)
        return {"ETag": f'"part-{PartNumber}"'}

    def _complete_multipart_upload(
        self, *, Bucket: str, Key: str, UploadId: str, MultipartUpload: dict[str, Any]
    ) -> dict[str, str]:
        _, parts = self._upload(UploadId)
        wanted = [part["PartNumber"] for part in MultipartUpload["Parts"]]
        if not set(wanted) <= parts.keys():
            raise _error("InvalidPart", 400)
        del self._uploads[UploadId]
        return self._store(Key, b"".join(parts[number] for number in wanted))

    def _abort_multipart_upload(self, *, Bucket: str, Key: str, UploadId: str) -> dict[str, Any]:
        self._upload(UploadId)
        del self._uploads[UploadId]
        return {}

    def _list_multipart_uploads(self, *, Bucket: str, Prefix: str) -> dict[str, Any]:
        there = [(upload, key) for upload, (key, _) in self._uploads.items() if key.startswith(Prefix)]
        return {"Uploads": [{"Key": key, "UploadId": upload} for upload, key in there]}


def _error(code: str, status: int, **more: str) -> Exception:
    answer = {"Error": {"Code": code, "Message": code} | more, "ResponseMetadata": {"HTTPStatusCode": status}}
    translated: Exception = translate_boto_error(ClientError(answer, "simulated"))  # type: ignore[arg-type]
    return translated


def _fault(fault: str, method: str) -> Exception:
    if fault == "slow_down":
        return _error("SlowDown", 503)
    if fault == "server_error":
        return _error("InternalError", 500)
    if fault == "conflict":
        return _error("ConditionalRequestConflict", 409)
    return ReadTimeoutError(endpoint_url=f"simulated {method}")


class SimulatedS3Store(S3Store):
    """The S3 store over a simulated bucket; its root is ``sim+s3://BUCKET/...``."""

    def __init__(self, root: str, bucket: SimulatedBucket) -> None:
        super().__init__(root, None)
        self._simulated = bucket

    @property
    def _fs(self) -> Any:
        return self._simulated
