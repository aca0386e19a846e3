"""Digests of the files that encoders read, of which their ids are made; versions of libraries, which are in no id."""

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from barycenter.fusion.encoders.base import JSON


@lru_cache(maxsize=256)
def _digest(path: str, size: int, mtime_ns: int) -> str:
    del size, mtime_ns
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digest(path: Path) -> str:
    """SHA-256 of a file's content; read once per process while its size and time stay the same."""
    status = path.stat()
    return _digest(str(path.resolve()), status.st_size, status.st_mtime_ns)


def files_digest(folder: Path, files: Iterable[Path]) -> str:
    """SHA-256 over the names (relative to ``folder``) and contents of ``files``, whatever their order."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(f"{path.relative_to(folder).as_posix()} {file_digest(path)}\n".encode())
    return total.hexdigest()


@lru_cache(maxsize=256)
def installed_version(package: str) -> str:
    """Installed version of a distribution, looked for once per process; ``PackageNotFoundError`` where it is absent."""
    return version(package)


def library_versions(*packages: str) -> dict[str, JSON]:
    """Installed versions of the named distributions; an absent one is None."""
    found: dict[str, JSON] = {}
    for package in packages:
        try:
            found[package] = installed_version(package)
        except PackageNotFoundError:
            found[package] = None
    return found
