"""A file system in memory beneath the local store: what is not synced may be lost or torn when the power goes."""

import errno
import io
import itertools
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

from barycenter.infra.storage.local import Disk, LocalStore
from tests.simulation.kernel import Kernel, Process

HOT = ("lease/", "manifest", "promotions/", "pins")
"""Where the commit protocol keeps its files: more happens between operations there."""

_COMMITS = ("manifest", "promotions/", ".manifest.json.")

_WRITE_FAULTS = ("full",)
_WRITES = ("create", "link", "rename")
_UNSEEN = frozenset({"mkdir", "create", "fsync", "fsync folder", "rmdir", "lock"})


def heat(path: str, writes: bool) -> int:
    """How much may happen at an operation: 2 at a commit, 1 in its protocol, 0 elsewhere."""
    return 2 if writes and path.startswith(_COMMITS) else int(path.startswith(HOT))


@dataclass(eq=False)
class Inode:
    """A file: its number, its bytes, and those that a sync has made last."""

    number: int
    data: bytes = b""
    synced: bytes | None = None


class Folder(dict[str, "Inode | Folder"]):
    """Names in a folder; those on the platter, and what happened since the last sync, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.durable: dict[str, Inode | Folder] = {}
        self.unsynced: list[tuple[str, Inode | Folder | None]] = []

    def put(self, name: str, entry: "Inode | Folder") -> None:
        self[name] = entry
        self.unsynced.append((name, entry))

    def take(self, name: str) -> None:
        del self[name]
        self.unsynced.append((name, None))

    def sync(self, changes: int | None = None) -> None:
        """Makes the first ``changes`` of the changes last, or all."""
        for name, entry in self.unsynced[:changes]:
            if entry is None:
                self.durable.pop(name, None)
            else:
                self.durable[name] = entry
        self.unsynced.clear()

    __hash__ = object.__hash__
    __eq__ = object.__eq__


class SimulatedDisk(Disk):
    """The file system of one world, below one root.

    Args:
        kernel: Before each operation others may run.
        root: Folder that ``changed`` is given paths relative to.
        changed: Called with a path, its content before and after (None: no file).
        links: Whether there are hard links.

    Attributes:
        coarse: Whether only what other processes can see is a step.
    """

    def __init__(
        self,
        kernel: Kernel,
        root: str,
        changed: Callable[[str, bytes | None, bytes | None], None],
        links: bool = True,
    ) -> None:
        self._kernel, self._root, self._cut, self._changed, self._links = kernel, root, len(root) + 1, changed, links
        self._top = Folder()
        self._locks: dict[str, Process] = {}
        self.coarse = False
        self._numbers = itertools.count(1)

    # What LocalStore calls.

    def make_folder(self, folder: str) -> bool:
        if self._find_folder(folder) is not None:
            return False
        above, name = self._place("mkdir", folder, _WRITE_FAULTS)
        if isinstance(above.get(name), Inode):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), folder)
        if name in above:
            return False
        above.put(name, Folder())
        return True

    def open_new(self, path: str) -> BinaryIO:
        folder, name = self._place("create", path, _WRITE_FAULTS)
        if name in folder:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        inode = Inode(next(self._numbers))
        folder.put(name, inode)
        return cast(BinaryIO, _Writer(inode))

    def sync(self, stream: BinaryIO) -> None:
        self._step("fsync", "", _WRITE_FAULTS)
        inode = cast(_Writer, stream).inode
        inode.synced = inode.data

    def sync_folder(self, folder: str) -> None:
        self._step("fsync folder", folder)
        self._folder(folder).sync()

    def link(self, path: str, target: str) -> None:
        folder, name = self._place("link", target)
        if not self._links:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), target)
        if name in folder:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), target)
        inode = self._inode(path)
        folder.put(name, inode)
        self._changed(target[self._cut :], None, inode.data)

    def replace(self, path: str, target: str) -> None:
        folder, name = self._place("rename", target)
        inode = self._inode(path)
        before = folder.get(name)
        if isinstance(before, Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), target)
        self._take(path)
        folder.put(name, inode)
        self._changed(target[self._cut :], None if before is None else before.data, inode.data)

    def unlink(self, path: str) -> None:
        self._step("unlink", path)
        above, _, name = path.rpartition("/")
        folder = self._find_folder(above)
        entry = None if folder is None else folder.get(name)
        if folder is not None and isinstance(entry, Inode):
            folder.take(name)
            self._changed(path[self._cut :], entry.data, None)

    def remove_folder(self, folder: str) -> None:
        self._step("rmdir", folder)
        found = self._find_folder(folder)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        if found:
            raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), folder)
        self._take(folder)

    def open(self, path: str) -> BinaryIO:
        self._step("open", path)
        return io.BytesIO(self._inode(path).data)

    def read(self, path: str) -> bytes:
        self._step("read", path)
        return self._inode(path).data

    def stat(self, path: str) -> os.stat_result:
        self._step("stat", path)
        inode = self._inode(path)
        known = {
            "st_dev": 1,
            "st_nlink": 2,
            "st_ino": inode.number,
            "st_mtime_ns": inode.number,
            "st_size": len(inode.data),
        }
        return cast(os.stat_result, SimpleNamespace(**known))

    def is_file(self, path: str) -> bool:
        self._step("stat", path)
        above, _, name = path.rpartition("/")
        folder = self._find_folder(above)
        return folder is not None and isinstance(folder.get(name), Inode)

    def walk(self, folder: str, prefix: str, sizes: bool) -> Iterator[tuple[str, int]]:
        self._step("list", folder)
        if folder[self._cut :] == "lease":
            self._kernel.current.looked = self._kernel.current.count
        listed = self._folder(folder)
        for name, entry in list(listed.items()):
            if isinstance(entry, Folder):
                try:
                    yield from self.walk(f"{folder}/{name}", f"{prefix}{name}/", sizes)
                except FileNotFoundError:
                    continue
            else:
                yield prefix + name, len(entry.data) if sizes else -1

    @contextmanager
    def locked(self, folder: str) -> Iterator[None]:
        self._step("lock", folder)
        holder, process = self._locks.get(folder), self._kernel.process
        while holder is not None and holder.alive:
            self._kernel.wait(lambda: self._locks.get(folder) is None or not self._locks[folder].alive)
            holder = self._locks.get(folder)
        self._locks[folder] = process
        try:
            yield
        finally:
            if self._locks.get(folder) is process:
                del self._locks[folder]

    def for_arrow(self, path: str) -> BinaryIO:
        return self.open(path)

    # What a world does to it.

    def lose_power(self, chance: random.Random) -> None:
        """What was not synced is lost, torn or kept; every process is dead by then."""
        self._lose(self._top, chance)

    def contents(self, prefix: str = "") -> dict[str, bytes]:
        """Every file below the root, without taking a step."""
        found: dict[str, bytes] = {}

        def visit(folder: Folder, path: str) -> None:
            for name, entry in folder.items():
                if isinstance(entry, Folder):
                    visit(entry, f"{path}{name}/")
                else:
                    found[f"/{path}{name}"[self._cut :]] = entry.data

        visit(self._top, "")
        return {path: data for path, data in found.items() if path.startswith(prefix)}

    def peek(self, path: str) -> bytes | None:
        """The content of a file, without taking a step; None if there is none."""
        folder, _, name = f"{self._root}/{path}".rpartition("/")
        there = self._find_folder(folder)
        entry = None if there is None else there.get(name)
        return entry.data if isinstance(entry, Inode) else None

    def restore(self, contents: dict[str, bytes], root: str) -> None:
        """Puts files there, synced."""
        for path, data in contents.items():
            folder, _, name = f"{root}/{path}".rpartition("/")
            self._folder(folder, make=True).put(name, Inode(next(self._numbers), data, data))
        self._sync_all(self._top)

    def _sync_all(self, folder: Folder) -> None:
        folder.sync()
        for entry in folder.values():
            if isinstance(entry, Folder):
                self._sync_all(entry)

    def _lose(self, folder: Folder, chance: random.Random) -> None:
        folder.sync(chance.randrange(len(folder.unsynced) + 1))
        folder.clear()
        folder.update(folder.durable)
        for entry in folder.values():
            if isinstance(entry, Folder):
                self._lose(entry, chance)
            elif entry.synced is None:
                torn = [b"", entry.data, entry.data[: chance.randrange(len(entry.data) + 1)], bytes(len(entry.data))]
                entry.data = entry.synced = chance.choice(torn)
            else:
                entry.data = entry.synced

    def _step(self, operation: str, path: str, faults: tuple[str, ...] = ()) -> None:
        place = path[self._cut :]
        if self.coarse and (operation in _UNSEEN or place.endswith(".tmp")):
            self._kernel.check_alive()
            return
        fault = self._kernel.step(f"{operation} {place}", heat(place, operation in _WRITES), faults)
        if fault == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        if self.coarse:
            folder = self._find_folder(path)
            there = (
                None if folder is None else tuple(sorted((name, isinstance(folder[name], Inode)) for name in folder))
            )
            self._kernel.process.saw((operation, place, self.peek(place), there))

    def _place(self, operation: str, path: str, faults: tuple[str, ...] = ()) -> tuple[Folder, str]:
        self._step(operation, path, faults)
        folder, _, name = path.rpartition("/")
        return self._folder(folder), name

    def _take(self, path: str) -> None:
        above, _, name = path.rpartition("/")
        self._folder(above).take(name)

    def _find_folder(self, path: str) -> Folder | None:
        found: Any = self._top
        for part in filter(None, path.split("/")):
            found = found.get(part)
            if not isinstance(found, Folder):
                return None
        return cast(Folder, found)

    def _folder(self, path: str, make: bool = False) -> Folder:
        found: Folder = self._top
        for part in filter(None, path.split("/")):
            entry = found.get(part)
            if entry is None and make:
                entry = Folder()
                found.put(part, entry)
            if entry is None:
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
            if not isinstance(entry, Folder):
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
            found = entry
        return found

    def _inode(self, path: str) -> Inode:
        folder, _, name = path.rpartition("/")
        entry = self._folder(folder).get(name)
        if entry is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        if isinstance(entry, Folder):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        return entry


class _Writer(io.RawIOBase):
    """A stream into a new file."""

    def __init__(self, inode: Inode) -> None:
        super().__init__()
        self.inode = inode

    def write(self, data: Any) -> int:
        self.inode.data += bytes(data)
        return len(data)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return len(self.inode.data)


class SimulatedLocalStore(LocalStore):
    """The local store on a simulated disk; its root is ``sim://NAME/...``."""

    def __init__(self, root: str, disk: SimulatedDisk) -> None:
        super().__init__(Path("/" + root.partition("://")[2]), disk)

    def uri(self, path: str) -> str:
        return "sim:/" + super().uri(path)

    def is_case_insensitive(self) -> bool:
        return False
