"""A trained head over every row of a fused data set; predictions to one Parquet file."""

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from barycenter.fusion.dataset.schema import Manifest, array_to_vectors
from barycenter.fusion.errors import JobError, RunError
from barycenter.fusion.heads import LinearHead
from barycenter.infra.storage import Storage
from barycenter.tasks.data.labeled_rows import HeadInputs, read_file
from barycenter.tasks.heads.stage import load_head, predictions

_HEAD_FILE = "head.json"
_PREDICTIONS_FILE = "all-rows.parquet"


def predict(
    storage: Storage, manifest: Manifest, head: tuple[Storage, str], sink: Storage, path: str
) -> dict[str, Any]:
    """Writes key, prediction and probability of every row, in the order of the features; one file's rows in memory.

    Returns:
        ``{rows, path, head, task}``.

    Raises:
        RunError: If there is no head, or it reads other vectors.
    """
    model = load_head(*head)
    kind = "linear" if isinstance(model, LinearHead) else model.kind
    inputs = HeadInputs(storage, manifest, kind)
    rows, writer = 0, None
    with sink.writing(path) as stream:
        for file in manifest.files:
            table = read_file(storage, manifest, file, [manifest.key, "fused", *inputs.columns])
            fused = np.asarray(array_to_vectors(table.column("fused")), dtype=np.float32)
            try:
                scores = model.raw_scores(fused, inputs.of(table))
            except ValueError as error:
                raise RunError(f"the head does not fit these features: {error}") from error
            written = predictions(model, table.column(manifest.key).to_pylist(), scores)
            if writer is None:
                writer = pq.ParquetWriter(stream, written.schema, compression="zstd")
            writer.write_table(written)
            rows += written.num_rows
        if writer is not None:
            writer.close()
    return {"rows": rows, "path": sink.uri(path), "head": kind, "task": model.task_}


def find_head(storage: Storage, version: str, wanted: str | None) -> str:
    """The folder of a version's head; where there are several, of the kind or the folder that is wanted.

    Raises:
        RunError: If there is none.
        JobError: If there are several to choose from.
    """
    kinds = {}
    for path in storage.list(f"head/{version}"):
        if path.endswith(f"/{_HEAD_FILE}"):
            header = json.loads(storage.read(path))
            kinds[path.removesuffix(f"/{_HEAD_FILE}")] = header["params"].get("kind", "linear")
    matching = [folder for folder, kind in kinds.items() if wanted in (None, kind, folder)]
    if not matching:
        missing = f"no {wanted} head" if wanted else "no head"
        raise RunError(f"{missing} is trained on version {version} of {storage.root}; run `barycenter train` first")
    if len(matching) > 1:
        each = ", ".join(f"{folder} ({kinds[folder]})" for folder in matching)
        raise JobError("--head", f"there are several, name one: {each}")
    return matching[0]


def default_path(folder: str) -> str:
    """Where the predictions of a head go by default: beside the head."""
    return f"{folder}/{_PREDICTIONS_FILE}"
