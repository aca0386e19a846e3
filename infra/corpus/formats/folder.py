"""A folder of pictures without a table: one row a picture, with the text file beside it if there is one."""

import hashlib
from collections.abc import Callable, Container, Mapping
from typing import Any

import pyarrow as pa

from barycenter.fusion.errors import RunError
from barycenter.infra.corpus.base import Format, Problems, Shard, SourceIndex, Types
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.listing import Entry, Listing
from barycenter.infra.corpus.types.rows import records_to_table

StatCalls = Mapping[str, Callable[[], tuple[int, str]]]

PICTURE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".avifs", ".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".tga", ".icb", ".vda", ".vst", ".ico", ".psd", ".qoi", ".sgi", ".rgb", ".rgba", ".bw", ".dds", ".fli", ".flc"),
    *(".heic", ".heif", ".hif", ".heics", ".heifs", ".jxl"),
)
"""Endings of the formats of ``limits.formats``; in the last line those of pictures that cannot be decoded."""


class Folder(Format):
    """Pictures in folders, in the order of their names; every folder is one source.

    Columns: ``file_name`` (relative to the corpus, the default key), ``stem`` (the name alone, without its ending),
    ``image``, ``label`` (name of the innermost folder, where there is one) and ``text`` (of the .txt file of the same
    name, where there is any).
    """

    default_key = "file_name"

    def __init__(self) -> None:
        self._children_by_shard: dict[str, StatCalls] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_children_by_shard": {}}

    def find_sources(self, listing: Listing) -> list[Entry]:
        """Returns one entry for each folder that holds pictures."""
        folders: dict[str, str] = {}
        for entry in listing.entries:
            if is_picture(entry.relative):
                folder, _, name = entry.relative.rpartition("/")
                folders[f"{folder or '.'}/"] = entry.uri[: -len(name) - 1]
        return [Entry(uri, relative, 0, "") for relative, uri in sorted(folders.items())]

    def index_source(self, files: Files, entry: Entry, rows_per_shard: int, sample_rows: int) -> SourceIndex:
        """Lists the folder; each shard's stamp is a digest of its own pictures and texts."""
        del sample_rows
        children = files.children(entry.uri)
        pictures = _picture_names(children)
        starts = range(0, len(pictures), rows_per_shard)
        stamps = [_size_and_digest(children, pictures[start : start + rows_per_shard]) for start in starts]
        columns = ["file_name", "stem", "image"]
        columns += ["label"] if entry.relative != "./" else []
        columns += ["text"] if any(_sidecar_name(name) in children for name in pictures) else []
        return SourceIndex(len(pictures), dict.fromkeys(columns, pa.string()), shard_stamps=stamps)

    def size_and_stamp(self, files: Files, shard: Shard) -> tuple[int, str]:
        """Returns the present size and digest of the shard's pictures and texts."""
        children = self._children_by_shard[shard.id] = files.children(shard.uri)
        return _size_and_digest(children, _picture_names(children)[shard.start : shard.start + shard.length])

    def read(self, files: Files, shard: Shard, columns: Types, key: str | None = None) -> tuple[pa.Table, Problems]:
        """Reads names and texts; pictures are named by path or URI and not read."""
        children = self._children_by_shard.pop(shard.id, None) or files.children(shard.uri)
        names = _picture_names(children)[shard.start : shard.stop]
        bad: list[str | None] = [None] * len(names)
        folder = shard.folder
        values: dict[str, Any] = {
            "file_name": [name if folder == "." else f"{folder}/{name}" for name in names],
            "stem": [name.rpartition(".")[0] for name in names],
            "image": [f"{shard.uri}/{name}" for name in names],
            "label": [None if folder == "." else folder.rpartition("/")[2]] * len(names),
        }
        if "text" in columns or key == "text":
            values["text"] = []
            for row, name in enumerate(names):
                sidecar, text = _sidecar_name(name), ""
                if sidecar in children:
                    text, bad[row] = _read_sidecar(files, f"{shard.uri}/{sidecar}")
                values["text"].append(text or None)
        rows = [(dict(zip(values, row, strict=True)), None) for row in zip(*values.values(), strict=True)]
        table, problems = records_to_table(rows, columns, key)
        problems.unreadable = bad
        return table, problems


def is_picture(name: str) -> bool:
    """Whether a file is a picture by the ending of its name."""
    return name.lower().endswith(PICTURE_SUFFIXES)


def is_sidecar(name: str, stems: Container[str]) -> bool:
    """Whether a file is the text beside a picture; ``stems`` are the pictures' paths without their endings."""
    return name.endswith(".txt") and name.removesuffix(".txt") in stems


def _picture_names(children: Mapping[str, Any]) -> list[str]:
    return sorted(filter(is_picture, children))


def _sidecar_name(name: str) -> str:
    return name.rpartition(".")[0] + ".txt"


def _size_and_digest(children: Mapping[str, Any], names: list[str]) -> tuple[int, str]:
    """Sums the sizes of pictures and their text files, and hashes their names, sizes and stamps."""
    size = 0
    digest = hashlib.blake2b(digest_size=12)
    for part in [part for name in names for part in (name, _sidecar_name(name)) if part in children]:
        bytes_, stamp = children[part]()
        size += bytes_
        digest.update(f"{part}\0{bytes_}\0{stamp}\0".encode("utf-8", "surrogateescape"))
    return size, digest.hexdigest()


def _read_sidecar(files: Files, uri: str) -> tuple[str, str | None]:
    """Returns the text of a file and why it could not be read (None where it could)."""
    try:
        return files.read(uri, 0, 64 << 20).decode("utf-8-sig").strip(), None
    except UnicodeDecodeError as error:
        return "", f"{uri.rpartition('/')[2]}: not UTF-8 text (byte {error.start})"
    except RunError as error:
        if isinstance(error.__cause__, PermissionError):
            return "", f"{uri.rpartition('/')[2]}: no permission to read it"
        raise
