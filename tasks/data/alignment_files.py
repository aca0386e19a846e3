"""Alignments as files of the output folder."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import barycenter.fusion.alignment as alignments
from barycenter.fusion.alignment import Alignment
from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from barycenter.tasks.run.digest import digest

FITTED = "fitted.json"
"""Beside an alignment: on which rows it was fitted."""


@dataclass(frozen=True, slots=True)
class FittedAlignment:
    """A fitted alignment as it is stored.

    Attributes:
        alignment: The alignment.
        alignment_id: Hash of its files, which names its folder.
        summary: What is reported of it, such as the method, the dimension and how both were chosen.
    """

    alignment: Alignment
    alignment_id: str
    summary: dict[str, Any]

    @property
    def average(self) -> tuple[str, dict[str, float] | None]:
        """How aligned inputs are averaged: the method, and the weights where it has some."""
        return self.summary["average"], self.summary["weights"]


def save_alignment(storage: Storage, alignment: Alignment) -> str:
    """Writes an alignment under the hash of its files and returns that id."""
    with tempfile.TemporaryDirectory() as folder:
        alignment.save(folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    alignment_id = _id_of(files)
    for name, content in files.items():
        storage.write(f"alignment/{alignment_id}/{name}", content)
    return alignment_id


def _id_of(files: dict[str, bytes]) -> str:
    return digest([(name, digest(content.hex())) for name, content in files.items()])


def alignment_is_whole(storage: Storage, alignment_id: str) -> bool:
    """Whether an alignment is there as it was saved, with the record of the rows that it was fitted on."""
    paths = storage.list(f"alignment/{alignment_id}")
    files = {path.rsplit("/", 1)[1]: path for path in sorted(paths)}
    return files.pop(FITTED, None) is not None and alignment_id == _id_of(
        {name: storage.read(path) for name, path in files.items()}
    )


def load_alignment(storage: Storage, alignment_id: str) -> Alignment:
    """Reads a saved alignment."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("alignment.safetensors", "alignment.json"):
            (Path(folder) / name).write_bytes(storage.read(f"alignment/{alignment_id}/{name}"))
        try:
            return alignments.load(folder)
        except ValueError as error:
            place = storage.uri(f"alignment/{alignment_id}")
            raise RunError(f"{str(error).replace(folder, place)}; delete it and run again") from error
