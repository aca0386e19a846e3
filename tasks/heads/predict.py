"""A trained head over every row of a fused data set, or over new rows; predictions to one Parquet file."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from barycenter.fusion.dataset.schema import Manifest, array_to_vectors
from barycenter.fusion.errors import JobError, RunError
from barycenter.fusion.heads import LinearHead
from barycenter.fusion.heads.base import Head
from barycenter.infra.storage import Storage
from barycenter.infra.storage.json_files import read_json
from barycenter.tasks.data.labeled_rows import HeadInputs, aligned_for, read_file
from barycenter.tasks.data.new_rows import NewRows
from barycenter.tasks.heads.predictions import Labeling, predictions
from barycenter.tasks.heads.stage import load_head

_HEAD_FILE = "head.json"
_PREDICTIONS_FILE = "all-rows.parquet"


def predict(
    storage: Storage, manifest: Manifest, head: tuple[Storage, str], sink: Storage, path: str
) -> dict[str, Any]:
    """Predicts every row, in the order of the features; one file's rows in memory.

    Beside key, prediction and probability the file has the true value, where the features keep the target, the part of
    the split, where it is known, and which inputs the row has.

    Returns:
        ``{rows, path, head, task}``.

    Raises:
        RunError: If there is no head, or it reads other vectors.
    """
    model, labeling = load_head(*head), Labeling.of(*head)
    inputs = HeadInputs(storage, manifest, _kind(model))
    known = [*manifest.kept, manifest.key]
    more = [] if labeling is None else [column for column in labeling.columns if column in known]
    has = {name: f"has_{name}" for name in manifest.inputs}

    def parts() -> Iterator[pa.Table]:
        for file in manifest.files:
            table = read_file(storage, manifest, file, [manifest.key, "fused", *inputs.columns, *more, *has.values()])
            fused = np.asarray(array_to_vectors(table.column("fused")), dtype=np.float32)
            scores = _scores(model, fused, inputs.of(table))
            yield predictions(
                model,
                manifest.key,
                table.column(manifest.key).to_pylist(),
                scores,
                labels=None if labeling is None else labeling.labels(table),
                split=None if labeling is None else labeling.split(table, manifest),
                has={name: table.column(column).to_numpy() for name, column in has.items()},
            )

    return _written(parts(), sink, path) | {"head": _kind(model), "task": model.task_}


def predict_new(
    rows: NewRows, manifest: Manifest, head: tuple[Storage, str], sink: Storage, path: str
) -> dict[str, Any]:
    """Predicts rows that are not in the data set, as :func:`predict`; a row without any input has no prediction."""
    model, labeling = load_head(*head), Labeling.of(*head)

    def parts() -> Iterator[pa.Table]:
        for part in rows.each([] if labeling is None else labeling.columns):
            there = part.usable
            views = {name: view[there] for name, view in part.views.items()}
            aligned = aligned_for(_kind(model), views, rows.fuser.alignment)
            scores = _scores(model, part.fused[there].astype(np.float32), aligned)
            yield predictions(
                model,
                manifest.key,
                part.keys,
                scores,
                labels=None if labeling is None else labeling.labels(part.table),
                split=None if labeling is None else labeling.split(part.table),
                scored=there,
                has={name: ~np.isnan(view[:, 0]) for name, view in part.views.items()},
            )

    return _written(parts(), sink, path) | {"head": _kind(model), "task": model.task_}


def _kind(model: Head) -> str:
    return "linear" if isinstance(model, LinearHead) else str(getattr(model, "kind"))  # noqa: B009


def _scores(model: Head, fused: NDArray[np.float32], aligned: dict[str, NDArray[np.float32]]) -> NDArray[np.float64]:
    try:
        return model.raw_scores(fused, aligned)
    except ValueError as error:
        raise RunError(
            f"the head does not fit these features: {error}; name another by --head, or train one"
        ) from error


def _written(parts: Iterable[pa.Table], sink: Storage, path: str) -> dict[str, Any]:
    rows, writer = 0, None
    with sink.writing(path) as stream:
        for part in parts:
            if writer is None:
                writer = pq.ParquetWriter(stream, part.schema, compression="zstd")
            writer.write_table(part)
            rows += part.num_rows
        if writer is not None:
            writer.close()
    return {"rows": rows, "path": sink.uri(path)}


def heads_of(storage: Storage, version: str) -> dict[str, str]:
    """{folder: kind} of the heads that are trained on a version."""
    kinds = {}
    for path in storage.list(f"head/{version}"):
        if path.endswith(f"/{_HEAD_FILE}"):
            header = read_json(storage, path)
            kinds[path.removesuffix(f"/{_HEAD_FILE}")] = (header.get("params") or {}).get("kind", "linear")
    return kinds


def find_head(storage: Storage, version: str, wanted: str | None) -> tuple[Storage, str]:
    """The head of a version; where there are several, of the kind that is wanted, or in that folder.

    Args:
        storage: The output.
        version: Of the features.
        wanted: A kind, the name of the head's folder, or with a slash its path in the output, or a path or URI
            elsewhere; None where there is one head.

    Returns:
        The storage and the folder in it.

    Raises:
        RunError: If there is none.
        JobError: If there are several to choose from.
    """
    kinds = heads_of(storage, version)
    matching = [folder for folder, kind in kinds.items() if wanted in (None, kind, folder, folder.rpartition("/")[2])]
    if not matching and wanted is not None and "/" in wanted:
        return Storage(wanted, storage.endpoint_url), ""
    if not matching:
        missing = f"no {wanted} head" if wanted else "no head"
        raise RunError(f"{missing} is trained on version {version} of {storage.root}; run `barycenter train` first")
    if len(matching) > 1:
        each = ", ".join(f"{folder.rpartition('/')[2]} ({kinds[folder]})" for folder in matching)
        raise JobError("--head", f"there are several, name one: {each}")
    return storage, matching[0]


def default_path(folder: str) -> str:
    """Where the predictions of a head go by default: beside the head."""
    return f"{folder}/{_PREDICTIONS_FILE}"
