"""Resolves local paths in the job file, relative to the file's folder."""

import os
from pathlib import Path

_NAME_PREFIXES = ("builtin/", "torchvision/")


def is_uri(path: str) -> bool:
    """Whether ``path`` is a URI for fsspec rather than a local path.

    >>> is_uri("s3://bucket/a.jsonl"), is_uri("data/a.jsonl")
    (True, False)
    """
    return "://" in path or "::" in path


def resolve_path(path: str, base: Path) -> str:
    """Makes a local path absolute, relative ones from ``base``, and removes ``..``; returns a URI as it is.

    >>> resolve_path("../data/*.jsonl", Path("/jobs"))
    '/data/*.jsonl'
    """
    if is_uri(path):
        return path
    return os.path.normpath(base.absolute() / Path(path).expanduser())


def resolve_encoder(encoder: str, base: Path) -> str:
    """Makes an encoder absolute where it is, or is written like, a local folder; returns other names as they are."""
    if encoder.startswith(_NAME_PREFIXES) or is_uri(encoder):
        return encoder
    written_as_path = encoder.startswith((".", "/", "~"))
    local = resolve_path(encoder, base)
    return local if written_as_path or Path(local).is_dir() else encoder


def path_from(path: str, base: Path) -> str:
    """Writes an absolute path as relative to the folder ``base`` where it lies below it; returns others as they are.

    >>> path_from("/jobs/data/a.csv", Path("/jobs")), path_from("/data/a.csv", Path("/jobs"))
    ('data/a.csv', '/data/a.csv')
    """
    below = not is_uri(path) and Path(path).is_relative_to(base.absolute())
    return os.path.relpath(path, base.absolute()) if below else path
