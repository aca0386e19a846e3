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
_TRIES = 5
_CLAIM_SECONDS = 10.0
_CLAIM_POLL = 0.02


class Disk:
    """What a local store asks of the operating system, call by call; a simulation replaces it."""

    def make_folder(self, folder: str) -> bool:
        """Makes a folder, if it is not there; whether it made it. ``FileNotFoundError`` where the one above is not."""
        try:
            Path(folder).mkdir()
        except FileExistsError:
            if not Path(folder).is_dir():
                raise
            return False
        return True

    def open_new(self, path: str) -> BinaryIO:
        """A stream into a file that was not there; ``FileExistsError`` if it was."""
        return Path(path).open("xb")

    def sync(self, stream: BinaryIO) -> None:
        """Makes what was written last."""
        stream.flush()
        os.fsync(stream.fileno())

    def sync_folder(self, folder: str) -> None:
        """Syncs a folder, so that the names in it outlast a power cut; mounts that cannot (FUSE, SMB) are let be."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF):
                raise
        finally:
            os.close(descriptor)

    def link(self, path: str, target: str) -> None:
        """A second name of a file; ``FileExistsError`` if the name is taken."""
        Path(target).hardlink_to(path)

    def replace(self, path: str, target: str) -> None:
        """Renames a file over whatever has the name."""
        Path(path).replace(target)

    def unlink(self, path: str) -> None:
        """Takes a name away; no error where there is none."""
        Path(path).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """Takes an empty folder away; ``OSError`` where it is not empty."""
        Path(folder).rmdir()

    def open(self, path: str) -> BinaryIO:
        """A seekable stream."""
        return Path(path).open("rb")

    def read(self, path: str) -> bytes:
        """The whole file."""
        return Path(path).read_bytes()

    def stat(self, path: str) -> os.stat_result:
        """What the file system knows of a file."""
        return Path(path).stat()

    def is_file(self, path: str) -> bool:
        """Whether there is a file of the name."""
        return Path(path).is_file()

    def walk(self, folder: str, prefix: str, sizes: bool) -> Iterator[tuple[str, int]]:
        """(``prefix`` and path relative to ``folder``, size or -1) of every file below a folder, in no order."""
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    with suppress(FileNotFoundError):
                        yield from self.walk(entry.path, f"{prefix}{entry.name}/", sizes)
                elif not sizes:
                    yield prefix + entry.name, -1
                else:
                    with suppress(FileNotFoundError):
                        yield prefix + entry.name, entry.stat().st_size

    @contextmanager
    def locked(self, folder: str) -> Iterator[None]:
        """Holds the lock of a folder; where a mount has no locks, nothing."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def for_arrow(self, path: str) -> Path | BinaryIO:
        """What pyarrow reads a file from."""
        return Path(path)


class LocalStore:
    """The operations of :class:`barycenter.infra.storage.storage.Storage` under one local folder."""

    unanswered_deletions = 0

    def __init__(self, root: Path, disk: Disk | None = None) -> None:
        self._root, self._disk = str(root), disk or Disk()
        self._inside = f"{root}/" if root.name else self._root
        self._lasting: set[str] = set()

    def uri(self, path: str) -> str:
        """The absolute local path."""
        return self._at(path)

    def _at(self, path: str) -> str:
        return self._inside + path if path else self._root

    def for_arrow(self, path: str) -> Path | BinaryIO:
        """What pyarrow reads a file from."""
        return self._disk.for_arrow(self._at(path))

    def is_case_insensitive(self) -> bool:
        """Whether the file system takes names of other case for the same; found by the root's own name."""
        root = Path(self._root)
        for folder in [root, *root.parents]:
            if folder.exists() and folder.name != folder.name.swapcase():
                other = folder.with_name(folder.name.swapcase())
                return other.exists() and other.samefile(folder)
        return False

    @contextmanager
    def writing(self, path: str) -> Iterator[BinaryIO]:
        """A stream into a temporary file that replaces ``path`` when the block ends without an error."""
        target = self._at(path)
        temporary = self._temporary(target)
        try:
            with storage_errors(self.uri(path)):
                self._make_folder(_parent(target))
                stream = self._disk.open_new(temporary)
            with full_disk_errors(self.uri(path)), stream:
                yield stream
                with storage_errors(self.uri(path)):
                    self._disk.sync(stream)
            with storage_errors(self.uri(path)):
                self._disk.replace(temporary, target)
                self._disk.sync_folder(_parent(target))
        except BaseException:
            with suppress(OSError):
                self._disk.unlink(temporary)
            raise

    def create(self, path: str, data: bytes) -> bool:
        """Writes ``path`` unless it exists; of several writers exactly one gets True."""
        with storage_errors(self.uri(path)):
            for _ in range(_TRIES - 1):
                # Garbage collection takes away the temporary files, and the empty folders, of others that only begin.
                with suppress(FileNotFoundError):
                    return self._created(self._at(path), data)
            return self._created(self._at(path), data)

    def _created(self, target: str, data: bytes) -> bool:
        temporary = self._temporary(target)
        self._make_folder(_parent(target))
        try:
            with self._disk.open_new(temporary) as stream:
                stream.write(data)
                self._disk.sync(stream)
            try:
                self._disk.link(temporary, target)
            except FileExistsError:
                if not self._is_link_of(temporary, target):
                    return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                if not self._placed_by_claim(temporary, target):
                    return False
            self._disk.sync_folder(_parent(target))
            return True
        finally:
            with suppress(OSError):
                self._disk.unlink(temporary)

    def _is_link_of(self, temporary: str, target: str) -> bool:
        """Whether a link that was refused is there all the same: NFS asks again when an answer is lost."""
        with suppress(FileNotFoundError):
            ours, theirs = self._disk.stat(temporary), self._disk.stat(target)
            return ours.st_nlink > 1 and (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
        return False

    def replace(self, path: str, data: bytes, before: bytes | None) -> bool:
        """Writes ``path`` if it still holds ``before``; others that do so wait for each other."""
        if before is None:
            return self.create(path, data)
        with storage_errors(self.uri(path)), self._disk.locked(_parent(self._at(path))):
            if not self.exists(path) or self.read(path) != before:
                return False
            with self.writing(path) as stream:
                stream.write(data)
            return True

    def read(self, path: str) -> bytes:
        """The whole file."""
        with storage_errors(self.uri(path)):
            return self._disk.read(self._at(path))

    def open(self, path: str) -> BinaryIO:
        """A seekable stream."""
        with storage_errors(self.uri(path)):
            return self._disk.open(self._at(path))

    def exists(self, path: str) -> bool:
        """Whether there is a file."""
        with storage_errors(self.uri(path)):
            return self._disk.is_file(self._at(path))

    def walk(self, prefix: str, sizes: bool) -> Iterator[tuple[str, int]]:
        """(path relative to the root, size or -1) of every file below ``prefix``, in no order."""
        folder = self._at(prefix)
        with storage_errors(self.uri(prefix)), suppress(FileNotFoundError, NotADirectoryError):
            yield from self._disk.walk(folder, f"{prefix}/" if prefix else "", sizes)

    def remove(self, paths: Iterable[str]) -> None:
        """Deletes files, then the folders that this left empty; what is gone already is no error."""
        folders: set[str] = set()
        for path in paths:
            target = self._at(path)
            with storage_errors(self.uri(path)):
                self._disk.unlink(target)
            folders.add(_parent(target))
        for folder in sorted(folders, key=lambda each: (each.count("/"), each), reverse=True):
            self._prune(folder)

    def sync_folders(self, folders: Iterable[str]) -> None:
        """Syncs folders; those that are not there are let be."""
        for folder in folders:
            with storage_errors(self.uri(folder)), suppress(FileNotFoundError):
                self._disk.sync_folder(self._at(folder))

    def abandon_uploads(self) -> int:
        """Nothing: unfinished local writes are temporary files."""
        return 0

    def _make_folder(self, folder: str) -> None:
        """Makes a folder and those above it, where they are not there, so that a power cut leaves them there."""
        try:
            made = self._disk.make_folder(folder)
        except FileNotFoundError:
            self._make_folder(_parent(folder))
            made = self._disk.make_folder(folder)
        if not made and folder in self._lasting:
            return
        # Another process may have made this folder, or the one above, and not have come further.
        inside = folder != self._root and folder.startswith(self._inside)
        if inside:
            self._make_folder(_parent(folder))
            self._disk.sync_folder(_parent(folder))
        else:
            for above in (_parent(_parent(folder)), _parent(folder)):
                with suppress(OSError):  # above the output folders may be of any kind, and let nobody list them
                    self._disk.sync_folder(above)
        self._lasting.add(folder)

    def _prune(self, folder: str) -> None:
        while folder != self._root and folder.startswith(self._inside):
            try:
                self._disk.remove_folder(folder)
            except OSError:
                return
            folder = _parent(folder)

    def _placed_by_claim(self, temporary: str, target: str) -> bool:
        """Renames a written file to ``target`` unless that is there, where the file system knows no hard links.

        A claim beside it, made with O_EXCL, lets one writer at a time look and rename; readers see the whole file or
        none. A claim that stays the same for ten seconds is a killed writer's and is taken away: what it guards takes
        no time.
        """
        claim = _beside(target, "claim")
        clock = current_clock()
        seen, since = None, clock.monotonic()
        while True:
            try:
                self._disk.open_new(claim).close()
                break
            except FileExistsError:
                with suppress(FileNotFoundError):
                    status = self._disk.stat(claim)
                    if seen != (status.st_ino, status.st_mtime_ns):
                        seen, since = (status.st_ino, status.st_mtime_ns), clock.monotonic()
                    elif clock.monotonic() - since > _CLAIM_SECONDS:
                        self._disk.unlink(claim)
                clock.sleep(_CLAIM_POLL)
        try:
            if self._disk.is_file(target):
                return False
            self._disk.replace(temporary, target)
            return True
        finally:
            self._disk.unlink(claim)

    @staticmethod
    def _temporary(target: str) -> str:
        return _beside(target, current_clock().token(8))


def _parent(path: str) -> str:
    """The folder above, as text: paths are made for every operation, and :mod:`pathlib` takes longer than some."""
    return path.rpartition("/")[0] or "/"


def _beside(target: str, what: str) -> str:
    """A temporary file for ``target``, in its folder."""
    folder, _, name = target.rpartition("/")
    return f"{folder}/.{name[:100]}.{what}{TEMPORARY_SUFFIX}"
