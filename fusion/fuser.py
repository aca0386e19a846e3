"""The same vectors for new rows, in a user's own process.

from barycenter.fusion.fuser import Fuser
fuser = Fuser.load("out/emoji")
vectors = fuser.encode({"text": ["a crab", None], "image": [Path("crab.png"), Path("boat.jpg")]})
"""

import io
import json
import os
import tempfile
import threading
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow.fs as pafs
from numpy.typing import NDArray

import barycenter.fusion.alignment as alignments
from barycenter.fusion.alignment import Alignment
from barycenter.fusion.dataset.reader import find_manifest, open_location
from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.encoders import Encoder, EncoderSpec, Preprocessing, describe, libraries_of, load
from barycenter.fusion.encoders.fingerprint import library_versions
from barycenter.fusion.encoders.input_validation import check_input_values
from barycenter.fusion.encoders.machine import has_wide_vectors
from barycenter.fusion.encoders.multiple_values import PooledResult, pool_values
from barycenter.fusion.encoders.pipeline import Pipeline
from barycenter.fusion.errors import BadInputError, Reason, RunError
from barycenter.fusion.machine_limits import whole_cpus

BATCHES = {"text": 2048, "image": 16, "vector": 4096}
"""Tokens (text) or rows (others) of a batch, by kind of input."""

_ADOPTED = "adopted"

Values = Mapping[str, Sequence[object]]


class Fuser:
    """Encoders, alignment and average of one version of a fused data set; encoders are loaded when first needed.

    Attributes:
        manifest: The version's manifest.
        alignment: Its alignment.
        specs: How each input is encoded.
    """

    def __init__(
        self, manifest: Manifest, alignment: Alignment, specs: Mapping[str, EncoderSpec], device: str = "cpu"
    ) -> None:
        self.manifest, self.alignment, self.specs = manifest, alignment, dict(specs)
        self._device = device
        self._encoders: dict[str, Encoder] = {}
        self._pipelines: dict[str, Pipeline] = {}
        self._lock, self._pid = threading.Lock(), os.getpid()

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        version: int | str | None = None,
        encoders: Mapping[str, str] | None = None,
        weights: Mapping[str, str] | None = None,
        filesystem: Any = None,
        device: str = "cpu",
    ) -> Self:
        """The encoders, alignment and average that a run's manifest names.

        Args:
            source: Output folder or manifest file, local or a URI such as ``s3://bucket/out``.
            version: Number or hash of a version; None is the newest.
            encoders: ``{input: folder or hub id}`` where an encoder lies elsewhere than when the job ran.
            weights: ``{input: file}``, likewise.
            filesystem: pyarrow or fsspec filesystem of ``source``; None takes it from the URI.
            device: torch's name of the device that encoders run on.

        Raises:
            RunError: If nothing is committed there, or an encoder here is not the one that the features are made with.
            JobError: If an encoder cannot be used.
            ValueError: If ``encoders`` or ``weights`` name an unknown input.
        """
        opened, path = open_location(source, filesystem)
        root, manifest = find_manifest(opened, path, version)
        alignment = _alignment(opened, f"{root}/alignment/{manifest.alignment_id}")
        specs = {name: _spec(entry) for name, entry in manifest.inputs.items()}
        for key, given in {"encoders": encoders, "weights": weights}.items():
            if unknown := [name for name in given or () if name not in specs]:
                raise ValueError(f"{key}: unknown input {', '.join(unknown)}; the inputs are {', '.join(specs)}")
        for name, folder in (encoders or {}).items():
            specs[name] = replace(specs[name], encoder=folder)
        for name, file in (weights or {}).items():
            specs[name] = replace(specs[name], weights=file)
        made_under = _versions(opened, root)
        for name, spec in specs.items():
            _check(name, spec, manifest.inputs[name])
            _warn_of_versions(name, spec, made_under.get(manifest.inputs[name]["encoder_id"], []))
        return cls(manifest, alignment, specs, device)

    def encode(self, inputs: Values) -> NDArray[np.floating]:
        """Fused vectors, as the job would have written them.

        Args:
            inputs: ``{input: n values}``: texts, pictures as paths, encoded bytes or PIL images, vectors. A list of
                several is one text where the job joins columns, else their mean, as in the job. None (a vector of NaN
                too), and what cannot be read, is a missing input; so is an input that is left out.

        Returns:
            (n, dim) in the features' number format; a row of NaN where no input could be used.

        Raises:
            TypeError: If an input's values are not one a row, or a row is no text, picture or vector as it should be;
                names the input and the row.
            ValueError: If an input is unknown, inputs differ in length, or a vector has another width or is partly NaN.
        """
        embedded = self.embed(inputs)
        return self.fuse({name: np.where(part.ok[:, None], part.vectors, np.nan) for name, part in embedded.items()})

    def fuse(self, views: Mapping[str, NDArray[np.floating]]) -> NDArray[np.floating]:
        """Fused vectors of the inputs' own vectors.

        Args:
            views: ``{input: (n, d)}``, a row of NaN where an input is missing.

        Returns:
            As :meth:`encode`.
        """
        some = np.flatnonzero(np.any([~np.isnan(view[:, 0]) for view in views.values()], axis=0))
        average = self.manifest.average
        fused = np.full((len(next(iter(views.values()))), self.manifest.dim), np.nan, self.manifest.dtype)
        if len(some):
            here = {name: view[some].astype(np.float32) for name, view in views.items()}
            fused[some] = self.alignment.fuse(here, average=average["method"], weights=average.get("weights"))
        return fused

    def embed(self, inputs: Values) -> dict[str, PooledResult]:
        """Every input's own vectors, and why a row has none."""
        rows = self._checked(inputs)
        return {name: self._embed(name, values) for name, values in rows.items()}

    def close(self) -> None:
        """Ends the threads that encode; they are started again when needed."""
        with self._lock:
            for pipeline in self._pipelines.values() if self._pid == os.getpid() else ():
                pipeline.__exit__(None, None, None)
            self._pipelines = {}

    def __getstate__(self) -> dict[str, Any]:
        """Without threads: a copy in another process starts its own."""
        return {name: value for name, value in self.__dict__.items() if name not in ("_pipelines", "_lock", "_pid")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._pipelines = {}
        self._lock, self._pid = threading.Lock(), os.getpid()

    def _checked(self, inputs: Values) -> dict[str, list[object]]:
        if not isinstance(inputs, Mapping):
            raise TypeError(f"expected {{input: values}}, got {type(inputs).__name__}")
        known = ", ".join(self.specs)
        if not inputs:
            raise ValueError(f"no input is given; the inputs are {known}, at least one of them is needed")
        if unknown := [str(name) for name in inputs if name not in self.specs]:
            raise ValueError(f"unknown input {', '.join(unknown)}; the inputs are {known}")
        rows = {
            name: check_input_values(
                name, self.specs[name].kind, values, self.manifest.inputs[name]["dim"], self._is_joined(name)
            )
            for name, values in inputs.items()
        }
        lengths = {name: len(values) for name, values in rows.items()}
        if len(set(lengths.values())) > 1:
            raise ValueError(f"inputs of different lengths: {lengths}; use None for what is missing")
        return rows

    def _is_joined(self, name: str) -> bool:
        return isinstance(self.manifest.inputs[name].get("spec", {}).get("column"), list)

    def pipeline(self, name: str) -> Pipeline:
        """The encoder of an input with threads that prepare on all cores; torch itself divides the model's work."""
        with self._lock:
            if self._pid != os.getpid():  # forked: the threads are not here
                self._pipelines, self._pid = {}, os.getpid()
            if name not in self._encoders:
                self._encoders[name] = load(self.specs[name], device=self._device)
            if name not in self._pipelines:
                self._pipelines[name] = Pipeline(self._encoders[name], whole_cpus(), model_threads=1)
            return self._pipelines[name]

    def _embed(self, name: str, values: Sequence[object]) -> PooledResult:
        spec = self.specs[name]
        rows = [_members(spec.kind, value, self._is_joined(name)) for value in values]
        flat = [_value(spec.kind, member) for members in rows for member in members]
        offsets = np.cumsum([0, *map(len, rows)])
        return pool_values(self.pipeline(name).embed(flat, batch_size=BATCHES[spec.kind]), len(flat), offsets)


def _spec(entry: Mapping[str, Any]) -> EncoderSpec:
    given = entry.get("spec", {})
    preprocessing = given.get("preprocessing")
    return EncoderSpec(
        kind=entry["kind"],
        encoder=given.get("encoder", entry.get("encoder")),
        weights=given.get("weights"),
        preprocessing=Preprocessing(**preprocessing) if preprocessing else None,
        trust_remote_code=given.get("trust_remote_code", False),
        width=entry["dim"] if entry["kind"] == "vector" else None,
        dtype=entry.get("fingerprint", {}).get("dtype", "float32"),
        long_text=given.get("long_text", "truncate"),
        engine=entry.get("fingerprint", {}).get("engine", "torch"),
        reproducible=given.get("reproducible"),
        onednn=has_wide_vectors(),
    )


def _check(name: str, spec: EncoderSpec, entry: Mapping[str, Any]) -> None:
    """Refuses another encoder."""
    found = describe(spec)
    if found.encoder_id == entry["encoder_id"]:
        return
    theirs = entry.get("fingerprint", {})
    ours = found.fingerprint
    differing = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
    if differing != [_ADOPTED]:
        raise RunError(
            f"input {name}: {spec.encoder} is not the encoder that the features are made with "
            f"({', '.join(differing)} differ); name the right one by encoders= or weights="
        )


def _warn_of_versions(name: str, spec: EncoderSpec, made_under: Sequence[Mapping[str, Any]]) -> None:
    """Warns where the vectors were never made, nor compared, under the versions of the libraries that are here."""
    here, there = library_versions(*libraries_of(spec)), [versions["libraries"] for versions in made_under]
    if there and here not in there:
        warnings.warn(
            f"input {name}: other library versions than the features are made with "
            f"({there[-1]} there, {here} here); vectors may differ slightly",
            stacklevel=3,
        )


def _versions(filesystem: pafs.FileSystem, root: str) -> dict[str, Any]:
    """What plan.json says of each encoder's vectors, if it lies there."""
    try:
        with filesystem.open_input_stream(f"{root}/plan.json") as stream:
            versions: dict[str, Any] = json.loads(stream.read()).get("versions", {})
    except (OSError, ValueError):
        return {}
    return versions


def _alignment(filesystem: pafs.FileSystem, path: str) -> Alignment:
    with tempfile.TemporaryDirectory() as folder:
        for name in ("alignment.safetensors", "alignment.json"):
            try:
                with filesystem.open_input_stream(f"{path}/{name}") as stream:
                    (Path(folder) / name).write_bytes(stream.read())
            except FileNotFoundError as error:
                raise RunError(f"{path}/{name}: not there; the manifest names it, restore it or run again") from error
        return alignments.load(folder)


def _members(kind: str, value: object, joined: bool) -> list[object]:
    """A row's values, at least one; several columns of a text are one value."""
    if not isinstance(value, list | tuple) or (
        kind == "vector" and not any(isinstance(x, list | tuple | np.ndarray) for x in value)
    ):
        return [value]
    if joined:
        return ["\n".join(str(part) for part in value if part is not None) or None]
    return list(value) or [None]


def _value(kind: str, value: object) -> object:
    """A value as the encoder takes it; pictures become callables, which the pipeline's threads open."""
    if kind == "image" and isinstance(value, str | Path):
        return partial(_read, Path(value))
    if kind == "image" and hasattr(value, "save") and hasattr(value, "mode"):
        return partial(_encoded, value)
    return value


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(Reason.FILE_MISSING, f"{path}: {error.strerror}") from None


def _encoded(picture: Any) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
