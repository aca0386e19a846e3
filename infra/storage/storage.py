"""Where files live: a local folder or any fsspec URI, read and written so that no file is ever seen half."""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Self, cast

import pyarrow as pa
import pyarrow.parquet as pq

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.storage.errors import MissingFileError, first_line, storage_errors
from barycenter.infra.storage.local import TEMPORARY_SUFFIX, LocalStore
from barycenter.infra.storage.remote import RemoteStore, S3Store
from barycenter.infra.userinfo import holds_secret

__all__ = ["STORES", "MissingFileError", "Storage"]

STORES: dict[str, Callable[[str, str | None], LocalStore | RemoteStore]] = {"s3": S3Store, "s3a": S3Store}
"""What makes the store of a root and an endpoint, by scheme; a simulation adds its own."""


class Storage:
    """Files below one root, addressed by relative ``/``-separated paths.

    A write shows whole or not at all: locally a temporary file (its name never ends in ``.parquet``), fsync and
    rename; on S3 one PUT, or one completed multipart upload. Instances are small, picklable and safe after fork:
    connections are opened on first use in each process. Transient faults of a remote server (5xx, SlowDown, timeouts,
    cut connections) are retried here for a minute and nowhere else.

    Every method raises ``RunError`` with one line for what a user can mend: a missing bucket, denied access, no space
    left, a read-only file system, a server that stays away. Credentials come from the environment and are in
    no message.

    Args:
        root: A local folder, ``file://`` or another fsspec URI such as ``s3://bucket/folder``. It need not exist.
        endpoint_url: Address of an S3-compatible server.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     storage = Storage(folder)
    ...     storage.write("a/b.txt", b"hello")
    ...     storage.list(""), storage.create("a/b.txt", b"again"), storage.read("a/b.txt")
    (['a/b.txt'], False, b'hello')
    """

    def __init__(self, root: str, endpoint_url: str | None = None) -> None:
        scheme, separator, rest = root.partition("://")
        if holds_secret(root):
            raise JobError("", f"{scheme}://...: credentials do not belong in a path; set them in the environment")
        if endpoint_url is not None and holds_secret(endpoint_url):
            raise JobError("storage.endpoint_url", "credentials do not belong in a URL; set them in the environment")
        self._store: LocalStore | RemoteStore
        if separator and scheme in STORES:
            self._store = STORES[scheme](root, endpoint_url)
        elif separator and scheme not in ("file", "local"):
            self._store = RemoteStore(root, endpoint_url)
        else:
            self._store = LocalStore(Path(rest if separator else root).expanduser().absolute())
        self.root = self._store.uri("")
        self.endpoint_url = endpoint_url

    def __reduce__(self) -> tuple[type[Self], tuple[str, str | None]]:
        return type(self), (self.root, self.endpoint_url)

    def __repr__(self) -> str:
        return f"Storage({self.root!r})"

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Storage)
        return same and (self.root, self.endpoint_url) == (other.root, other.endpoint_url)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash((self.root, self.endpoint_url))

    @property
    def is_local(self) -> bool:
        """Whether files lie on a mounted file system."""
        return isinstance(self._store, LocalStore)

    @property
    def is_case_insensitive(self) -> bool:
        """Whether names that differ in case alone are one file, as on most disks of macOS and Windows."""
        return self._store.is_case_insensitive()

    @property
    def unanswered_deletions(self) -> int:
        """How many requests to delete got no answer, so that they may still come; none on a disk."""
        return self._store.unanswered_deletions

    def uri(self, path: str = "") -> str:
        """Absolute local path or URI of ``path``, for messages and other libraries."""
        return self._store.uri(_checked(path))

    def write(self, path: str, data: bytes) -> None:
        """Writes or replaces a file."""
        with self.writing(path) as stream:
            stream.write(data)

    def writing(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A binary stream that becomes the file when the block ends; nothing shows if the block raises.

        Remote content is spooled: to memory up to 64 MiB a file and 256 MiB a process, beyond that to the local
        temporary folder.
        """
        return self._store.writing(_checked(path))

    def create(self, path: str, data: bytes) -> bool:
        """Writes a file only if there is none; of several writers exactly one gets True."""
        return self._store.create(_checked(path), data)

    def replace(self, path: str, data: bytes, before: bytes | None) -> bool:
        """Writes a file only if it still holds ``before`` (None: if it is not there); whether it did.

        Of several writers that saw the same content exactly one gets True, locally and on S3; behind other protocols
        another may come between.
        """
        return self._store.replace(_checked(path), data, before)

    def read(self, path: str) -> bytes:
        """The whole file; ``MissingFileError`` if there is none."""
        return self._store.read(_checked(path))

    def open(self, path: str) -> BinaryIO:
        """A seekable stream for reading, to be closed by the caller; remote files are fetched by ranges."""
        return self._store.open(_checked(path))

    def exists(self, path: str) -> bool:
        """Whether there is such a file."""
        return self._store.exists(_checked(path))

    def walk(self, prefix: str = "") -> Iterator[str]:
        """Relative paths of all files below the folder ``prefix``, unordered, in constant memory on S3 and disk."""
        return (path for path, _ in self._store.walk(_checked(prefix), sizes=False))

    def list(self, prefix: str = "") -> list[str]:
        """Relative paths of all files below the folder ``prefix``, sorted; empty if there is no such folder."""
        return sorted(self.walk(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Bytes of every file below the folder ``prefix``, by relative path in sorted order."""
        return dict(sorted(self._store.walk(_checked(prefix), sizes=True)))

    def remove(self, paths: Iterable[str]) -> None:
        """Deletes files, and local folders left empty; what is gone already is no error. Paths are taken one by one."""
        self._store.remove(_checked(path) for path in paths)

    def sync_folders(self, folders: Iterable[str]) -> None:
        """Makes the files in some folders outlast a power cut, also those of a process killed before it had done so."""
        self._store.sync_folders([_checked(folder) for folder in folders])

    def abandon_uploads(self) -> int:
        """Gives up multipart uploads that a killed run left unfinished on S3; how many there were."""
        return self._store.abandon_uploads()

    @staticmethod
    def is_temporary(path: str) -> bool:
        """Whether ``path`` is what a killed local write leaves behind."""
        name = path.rpartition("/")[2]
        return name.startswith(".") and name.endswith(TEMPORARY_SUFFIX)

    def sha256(self, path: str) -> str:
        """Hexadecimal SHA-256 of a file, read in pieces."""
        with self.open(path) as stream:
            return hashlib.file_digest(cast(Any, stream), "sha256").hexdigest()

    def write_table(self, path: str, table: pa.Table, **options: Any) -> None:
        """Writes a table as one Parquet file; ``options`` go to ``pyarrow.parquet.write_table``."""
        with self.writing(path) as stream:
            pq.write_table(table, stream, **options)

    def create_table(self, path: str, table: pa.Table, **options: Any) -> bool:
        """As :meth:`write_table`, but only if there is no such file; of several writers exactly one gets True."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, **options)
        return self.create(path, sink.getvalue().to_pybytes())

    def read_table(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """Reads one Parquet file; local files are memory-mapped. Folder names add no columns."""
        with self.parquet(path) as file:
            return file.read(columns=None if columns is None else list(columns))

    def parquet_metadata(self, path: str) -> pq.FileMetaData:
        """A Parquet file's footer: row groups, row count, schema, key-value metadata."""
        with self.parquet(path) as file:
            return file.metadata

    def mapped(self, path: str) -> pa.NativeFile:
        """A file to be read in place, of any size: local ones are memory-mapped, others copied and the copy mapped.

        The copy lies in the folder for temporary files and goes with its last reader.
        """
        with storage_errors(self.uri(path)):
            source: Any = self._store.for_arrow(_checked(path))
            if isinstance(source, Path):
                return pa.memory_map(str(source))
            with source, tempfile.NamedTemporaryFile(prefix="barycenter-") as copy:
                shutil.copyfileobj(source, copy, 1 << 22)
                copy.flush()
                return pa.memory_map(copy.name)

    @contextmanager
    def parquet(self, path: str) -> Iterator[pq.ParquetFile]:
        """An open ``pyarrow.parquet.ParquetFile``, for reading row groups; a damaged file is a ``RunError``."""
        place = _checked(path)
        with storage_errors(self.uri(path)):
            source: Any = self._store.for_arrow(place)
        mapped = isinstance(source, Path)
        try:
            with storage_errors(self.uri(path)):
                file = pq.ParquetFile(source, memory_map=mapped, pre_buffer=not mapped)
            with file:
                yield file
        except pa.ArrowInvalid as error:
            raise RunError(
                f"{self.uri(path)}: not a whole Parquet file ({first_line(error)}); delete it and run again"
            ) from error
        finally:
            if not mapped:
                source.close()


def _checked(path: str) -> str:
    if path.startswith("/") or (".." in path and ".." in path.split("/")) or "\0" in path:
        raise RunError(f"{path!r} is outside the folder of the output; give a path below it")
    return path.strip("/")
