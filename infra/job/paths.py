"""Paths of the job file: which are local, and what they mean from the file's folder."""

import os
from pathlib import Path

_FAMILIES = ("builtin/", "torchvision/")


def is_uri(path: str) -> bool:
    """Whether ``path`` names something for fsspec rather than a local file.

    >>> is_uri("s3://bucket/a.jsonl"), is_uri("data/a.jsonl")
    (True, False)
    """
    return "://" in path or "::" in path


def resolve_path(path: str, base: Path) -> str:
    """A local path as seen from ``base``, absolute and without ``..``; a URI as it is.

    >>> resolve_path("../data/*.jsonl", Path("/jobs"))
    '/data/*.jsonl'
    """
    if is_uri(path):
        return path
    return os.path.normpath(base.absolute() / Path(path).expanduser())


def resolve_encoder(encoder: str, base: Path) -> str:
    """An encoder that is, or is written like, a local folder as an absolute path; any other name as it is."""
    if encoder.startswith(_FAMILIES) or is_uri(encoder):
        return encoder
    written_as_path = encoder.startswith((".", "/", "~"))
    local = resolve_path(encoder, base)
    return local if written_as_path or Path(local).is_dir() else encoder
