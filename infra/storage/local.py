"""Files on a local (or mounted) file system: a file appears whole or not at all."""

import errno
import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from barycenter.infra.clock import current_clock
from barycenter.infra.storage.errors import full_disk_errors, storage_errors

TEMPORARY_SUFFIX = ".tmp"
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
_CLAIM_SECONDS = 10.0
_CLAIM_POLL = 0.02


class LocalStore:
    """The operations of :class:`barycenter.infra.storage.storage.Storage` under one local folder."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def uri(self, path: str) -> str:
        """The absolute local path."""
        return str(self._root / path) if path else str(self._root)

    def local_path(self, path: str) -> Path:
        """Where ``path`` lies on this machine."""
        return self._root / path

    def is_case_insensitive(self) -> bool:
        """Whether the file system takes names of other case for the same; found by the root's own name."""
        for folder in [self._root, *self._root.parents]:
            if folder.exists() and folder.name != folder.name.swapcase():
                other = folder.with_name(folder.name.swapcase())
                return other.exists() and other.samefile(folder)
        return False

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """A stream into a temporary file that replaces ``path`` when the block ends without an error."""
        target = self._root / path
        temporary = self._temporary(target)
        try:
            with storage_errors(self.uri(path)):
                target.parent.mkdir(parents=True, exist_ok=True)
                stream = temporary.open("xb")
            with full_disk_errors(self.uri(path)), stream:
                yield stream
                with storage_errors(self.uri(path)):
                    stream.flush()
                    os.fsync(stream.fileno())
            with storage_errors(self.uri(path)):
                temporary.replace(target)
                _fsync_folder(target.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    def create(self, path: str, data: bytes) -> bool:
        """Writes ``path`` unless it exists; of several writers exactly one gets True."""
        target = self._root / path
        temporary = self._temporary(target)
        with storage_errors(self.uri(path)):
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                with temporary.open("xb") as stream:
                    stream.write(data)
                    stream.flush()
                    os.fsync(stream.fileno())
                try:
                    target.hardlink_to(temporary)
                except FileExistsError:
                    return False
                except OSError as error:
                    if error.errno not in _NO_LINKS:
                        raise
                    if not _placed_by_claim(temporary, target):
                        return False
                _fsync_folder(target.parent)
                return True
            finally:
                with suppress(OSError):
                    temporary.unlink()

    def replace(self, path: str, data: bytes, before: bytes | None) -> bool:
        """Writes ``path`` if it still holds ``before``; others that do so wait for each other."""
        if before is None:
            return self.create(path, data)
        with storage_errors(self.uri(path)), _locked((self._root / path).parent):
            if not self.exists(path) or self.read(path) != before:
                return False
            with self.writing(path) as stream:
                stream.write(data)
            return True

    def read(self, path: str) -> bytes:
        """The whole file."""
        with storage_errors(self.uri(path)):
            return (self._root / path).read_bytes()

    def open(self, path: str) -> BinaryIO:
        """A seekable stream."""
        with storage_errors(self.uri(path)):
            return (self._root / path).open("rb")

    def exists(self, path: str) -> bool:
        """Whether there is a file."""
        with storage_errors(self.uri(path)):
            return (self._root / path).is_file()

    def walk(self, prefix: str, sizes: bool) -> Iterator[tuple[str, int]]:
        """(path relative to the root, size or -1) of every file below ``prefix``, in no order."""
        folder = self._root / prefix
        with storage_errors(self.uri(prefix)), suppress(FileNotFoundError, NotADirectoryError):
            yield from _walk(str(folder), f"{prefix}/" if prefix else "", sizes)

    def remove(self, paths: Iterable[str]) -> None:
        """Deletes files, then the folders that this left empty; what is gone already is no error."""
        folders: set[Path] = set()
        for path in paths:
            target = self._root / path
            with storage_errors(self.uri(path)):
                target.unlink(missing_ok=True)
            folders.add(target.parent)
        for folder in sorted(folders, key=lambda each: len(each.parts), reverse=True):
            self._prune(folder)

    def abandon_uploads(self) -> int:
        """Nothing: unfinished local writes are temporary files."""
        return 0

    def _prune(self, folder: Path) -> None:
        while folder != self._root and folder.is_relative_to(self._root):
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent

    @staticmethod
    def _temporary(target: Path) -> Path:
        return target.with_name(f".{target.name[:100]}.{current_clock().token(8)}{TEMPORARY_SUFFIX}")


def _walk(folder: str, prefix: str, sizes: bool) -> Iterator[tuple[str, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                with suppress(FileNotFoundError):
                    yield from _walk(entry.path, f"{prefix}{entry.name}/", sizes)
            elif not sizes:
                yield prefix + entry.name, -1
            else:
                with suppress(FileNotFoundError):
                    yield prefix + entry.name, entry.stat().st_size


def _placed_by_claim(temporary: Path, target: Path) -> bool:
    """Renames a written file to ``target`` unless that is there, where the file system knows no hard links.

    A claim beside it, made with O_EXCL, lets one writer at a time look and rename; readers see the whole file or none.
    A claim that stays the same for ten seconds is a killed writer's and is taken away: what it guards takes no time.
    """
    claim = target.with_name(f".{target.name[:100]}.claim{TEMPORARY_SUFFIX}")
    clock = current_clock()
    seen, since = None, clock.monotonic()
    while True:
        try:
            os.close(os.open(claim, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            break
        except FileExistsError:
            with suppress(FileNotFoundError):
                status = claim.stat()
                if seen != (status.st_ino, status.st_mtime_ns):
                    seen, since = (status.st_ino, status.st_mtime_ns), clock.monotonic()
                elif clock.monotonic() - since > _CLAIM_SECONDS:
                    claim.unlink(missing_ok=True)
            clock.sleep(_CLAIM_POLL)
    try:
        if target.exists():
            return False
        temporary.replace(target)
        return True
    finally:
        claim.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder; where a mount has no locks, nothing."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _fsync_folder(folder: Path) -> None:
    """Makes a rename last; some mounts (FUSE, SMB) cannot, and then theirs is the promise."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
            raise
    finally:
        os.close(descriptor)
