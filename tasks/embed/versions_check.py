"""Whether other versions of the libraries, or another kind of machine, still give the vectors that an output has.

Neither is part of an encoder's id. A worker that runs under what the output's vectors were not made with encodes a
kept sample again before its first shard: within a bound it goes on, and what it runs under is recorded.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.dataset.schema import array_to_vectors, vectors_to_array
from barycenter.fusion.encoders import EncoderSpec, fixed_batch_size, libraries_of
from barycenter.fusion.encoders.fingerprint import library_versions
from barycenter.fusion.encoders.machine import machine_kind
from barycenter.fusion.encoders.pipeline import Pipeline
from barycenter.fusion.encoders.trial import differs_by
from barycenter.fusion.errors import BadInputError, JobError
from barycenter.infra.storage import Storage
from barycenter.infra.storage.storage import MissingFileError
from barycenter.infra.versions.embedding_files import sample_path

SAMPLE_ROWS = 64
ADOPT = "--adopt"
METADATA = b"barycenter"
"""Key of the Parquet metadata that holds what an embedding file was made under."""

_BYTES, _LEAST_ROWS = 16 << 20, 8
_BOUND, _HALF_BOUND = 1e-5, 1e-2

Versions = dict[str, Any]
"""What vectors were made under: ``{"machine": its kind, "libraries": {name: version}}``."""


def machine_of(spec: EncoderSpec, device: str) -> str:
    """The kind of this machine, as far as an encoder goes: what runs no model runs on the processor."""
    return machine_kind("cpu" if fixed_batch_size(spec) is not None else device)


def versions_here(spec: EncoderSpec, device: str) -> Versions:
    """What an encoder runs under in this process."""
    return {"machine": machine_of(spec, device), "libraries": library_versions(*libraries_of(spec))}


def bound_of(spec: EncoderSpec) -> float:
    """Largest difference to a kept vector, as a share of the sample's largest absolute value, that counts as none."""
    return _BOUND if spec.dtype == "float32" else _HALF_BOUND


def metadata_of(versions: Versions) -> dict[bytes, bytes]:
    """What a Parquet file says of what its vectors were made under."""
    return {METADATA: json.dumps({"versions": versions}, sort_keys=True).encode()}


@dataclass(frozen=True, slots=True)
class KnownVersions:
    """What the driver knows of an input's encoder; plain data.

    Attributes:
        input_name: The input.
        encoder_id: Its encoder.
        accepted: What its vectors were made under, or found to be the same.
        has_files: Whether embedding files were there before this run.
    """

    input_name: str
    encoder_id: str
    accepted: tuple[Versions, ...] = ()
    has_files: bool = False


class VersionsCheck:
    """One worker's part: it checks the sample where it must, and makes it where there is none.

    Args:
        known: What the driver knows.
        spec: The encoder.
        device: What the model runs on.
        storage: The output.
    """

    def __init__(self, known: KnownVersions, spec: EncoderSpec, device: str, storage: Storage) -> None:
        self._known, self._storage, self._bound = known, storage, bound_of(spec)
        self._applies = bool(libraries_of(spec))
        self.here = versions_here(spec, device)

    @property
    def are_accepted(self) -> bool:
        """Whether what this worker runs under gives the vectors that are there, as far as the driver knows."""
        return not self._applies or self.here in self._known.accepted

    def verify(self, pipeline: Pipeline) -> int:
        """Encodes the sample again, if this worker runs under anything that was not accepted.

        Returns:
            How many rows were encoded.

        Raises:
            JobError: The vectors differ, or there is nothing to compare with.
        """
        if self.are_accepted:
            return 0
        accepted = self._known.accepted
        sample = read_sample(self._storage, self._known.encoder_id)
        if sample is None:
            if self._known.has_files and accepted:
                raise self._error("cannot be compared with the vectors that are there: no sample of them was kept")
            return 0
        if self.here in (accepted := (*accepted, sample.versions)):
            return 0
        difference = differs_by(sample.vectors, _encoded(pipeline, sample.values)[0])
        if not difference <= self._bound:
            share = f"{difference:.2g} of their largest value, {self._bound:g} at most"
            raise self._error(f"gives other vectors than before: {share} ({changed(accepted[-1], self.here)})")
        return len(sample.values)

    def keep(self, pipeline: Pipeline, values: Iterator[object]) -> tuple[bool, int]:
        """Keeps a sample of the values with their vectors, where there is none.

        Returns:
            Whether it was kept, and how many rows were encoded.
        """
        known = self._known
        if not self._applies or self._storage.exists(sample_path(known.encoder_id)):
            return False, 0
        chosen = _choose(values)
        vectors, ok = _encoded(pipeline, chosen)
        good = np.flatnonzero(ok).tolist()
        if not good:
            return False, len(chosen)
        columns = {"value": pa.array([chosen[row] for row in good]), "vector": vectors_to_array(vectors[good])}
        table = pa.table(columns).replace_schema_metadata(metadata_of(self.here))
        return self._storage.create_table(sample_path(known.encoder_id), table), len(chosen)

    def _error(self, problem: str) -> JobError:
        return JobError(
            f"inputs.{self._known.input_name}.encoder",
            f"{problem}; run with the versions and on the kind of machine of {self._storage.uri('plan.json')}, or with "
            f"{ADOPT}, which embeds this input anew under a new id",
        )


def is_adoptable(error: JobError, name: str) -> bool:
    """Whether ``--adopt`` helps against an error."""
    return error.key == f"inputs.{name}.encoder" and ADOPT in error.problem


@dataclass(frozen=True)
class Sample:
    """Values and their vectors, and what those were made under."""

    values: list[object]
    vectors: NDArray[np.float32]
    versions: Versions


def read_sample(storage: Storage, encoder_id: str) -> Sample | None:
    """The kept sample of an encoder; None where there is none."""
    path = sample_path(encoder_id)
    try:
        if not storage.exists(path):
            return None
        table = storage.read_table(path)
    except MissingFileError:
        return None
    versions: Versions = json.loads(table.schema.metadata[METADATA])["versions"]
    return Sample(table.column("value").to_pylist(), array_to_vectors(table.column("vector")), versions)


def changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs, in words.

    >>> changed({"machine": "a", "libraries": {"torch": "1"}}, {"machine": "b", "libraries": {"torch": "2"}})
    'torch 1 then, 2 now; a then, b now'
    """
    theirs, ours = before["libraries"], now["libraries"]
    names = [name for name in sorted({*theirs, *ours}) if theirs.get(name) != ours.get(name)]
    parts = [f"{name} {theirs.get(name)} then, {ours.get(name)} now" for name in names]
    if before["machine"] != now["machine"]:
        parts.append(f"{before['machine']} then, {now['machine']} now")
    return "; ".join(parts)


def evenly(values: Sequence[object]) -> Iterator[object]:
    """All values once, so ordered that the first few are spread over all of them.

    >>> list(evenly(range(6)))[:3]
    [0, 4, 2]
    """
    step = 1 << max(len(values) - 1, 0).bit_length()
    seen = 0
    while step:
        for place in range(0, len(values), step):
            if not seen or place % (2 * step):
                yield values[place]
        seen, step = 1, step // 2


def _choose(values: Iterator[object]) -> list[object]:
    """The first 64 that can be read and differ, fewer where they are large."""
    chosen: dict[object, None] = {}
    size = 0
    for value in values:
        if len(chosen) == SAMPLE_ROWS or (size > _BYTES and len(chosen) >= _LEAST_ROWS):
            break
        try:
            content = value() if callable(value) else value
        except BadInputError:
            continue
        if isinstance(content, str | bytes) and content and content not in chosen:
            chosen[content] = None
            size += len(content)
    return list(chosen)


def _encoded(pipeline: Pipeline, values: Sequence[object]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Vectors of the values, at the same batch always, and which of them could be encoded."""
    sizes = pipeline.encoder.batch_sizes
    result = pipeline.embed(values, batch_size=sizes[min(1, len(sizes) - 1)])
    return result.vectors, result.ok
