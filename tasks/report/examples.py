"""What the report shows of single rows: a map of the fused vectors, and neighbors with texts and thumbnails."""

import base64
import importlib.util
import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.encoders.image.decoding import decode
from barycenter.fusion.errors import BadInputError, RunError
from barycenter.fusion.heads.targets import is_empty
from barycenter.fusion.metrics import unit_rows
from barycenter.infra.corpus import Shard
from barycenter.infra.job.models import LimitsJob
from barycenter.tasks.data.rows import evenly_spaced
from barycenter.tasks.embed.stage import input_columns
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.input_values import Columns, InputValues

_MAP_ROWS, _QUERIES, _NEAREST, _CASES_EACH = 2000, 400, 5, 4
_THUMBNAIL_PIXELS, _JPEG_QUALITY = 112, 80
_MAX_TEXT = 400
_GOOD_AGREEMENT, _BAD_AGREEMENT = 0.8, 0.2

Labels = NDArray[Any]


@dataclass(frozen=True)
class ShownRows:
    """Rows to show some of.

    Attributes:
        shards: The shards that they are all rows of, in order.
        keys: Key of each row.
        fused: (n, dim), NaN where a row has no input.
        labels: The target of each row; None where there is no target.
        groups: Rows with equal ones are near-copies.
        queries: (n,) rows to look up neighbors of: held out, with all inputs.
    """

    shards: Sequence[Shard]
    keys: Sequence[str | None]
    fused: NDArray[np.float32]
    labels: Labels | None
    groups: Sequence[str | None]
    queries: NDArray[np.bool_]

    @property
    def numbers(self) -> bool:
        """Whether the target is a number rather than a label."""
        known = [] if self.labels is None else [label for label in self.labels if not is_empty(label)]
        return bool(known) and all(isinstance(label, float) for label in known)

    @property
    def spread(self) -> float:
        """Standard deviation of a target of numbers."""
        assert self.labels is not None
        return float(np.std([label for label in self.labels if not is_empty(label)]))


def project_to_plane(shown: ShownRows) -> dict[str, Any]:
    """Evenly spaced rows in the plane, by UMAP where it is installed, else by their principal components.

    Returns:
        ``{x, y, label, method}``, of a target of numbers with ``value``; empty with fewer than three rows.
    """
    there = np.flatnonzero(~np.isnan(shown.fused[:, 0]))
    if len(there) < 3:
        return {}
    rows = evenly_spaced(there.tolist(), _MAP_ROWS)
    vectors = shown.fused[rows].astype(np.float64)
    method, points = "PCA", _principal_components(vectors)
    if importlib.util.find_spec("umap") is not None and len(rows) > 50:
        from umap import UMAP

        method, points = "UMAP", UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(vectors)
    labels = [None] * len(rows) if shown.labels is None else [shown.labels[row] for row in rows]
    x, y = (np.round(points[:, axis], 4).tolist() for axis in (0, 1))
    found = {"x": x, "y": y, "label": [label_text(label) for label in labels], "method": method}
    return found | ({"value": [None if is_empty(each) else each for each in labels]} if shown.numbers else {})


def _principal_components(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    centered = vectors - vectors.mean(axis=0)
    _, axes = np.linalg.eigh(centered.T @ centered)
    points: NDArray[np.float64] = centered @ axes[:, : -min(3, axes.shape[1] + 1) : -1]
    if points.shape[1] < 2:
        points = np.hstack([points, np.zeros_like(points)])
    return points * np.where(points[np.abs(points).argmax(axis=0), [0, 1]] < 0, -1.0, 1.0)


def neighbor_examples(run: Run, shown: ShownRows) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Rows with their nearest neighbors by cosine similarity; near-copies, of the same group, are not counted.

    With a target, as many rows whose neighbors share it (good) as rows whose neighbors do not (bad), each evenly
    spaced among those of their kind, so that none is picked by eye.

    Returns:
        ``[{key, text, label, thumbnail, good, neighbors: [{key, text, label, thumbnail, similarity}]}]``, and
        ``{n, share, good, bad}``: rows looked up, how much of their neighbors' labels agree on average, and how many
        rows were good and bad. Of numbers ``share`` is left out, and there are ``difference``, how far the mean of the
        neighbors is from a row's own number on average, and ``spread``, the standard deviation of all.
    """
    found = _nearest(shown)
    figures: dict[str, Any] = {"n": len(found)}
    agreement = _agreement(shown, found)
    if agreement is not None:
        good = [row for row, value in agreement.items() if value >= _GOOD_AGREEMENT]
        bad = [row for row, value in agreement.items() if value <= _BAD_AGREEMENT]
        if agreement:
            figures |= _summary(shown, agreement) | {"good": len(good), "bad": len(bad)}
        chosen = [*evenly_spaced(good, _CASES_EACH), *evenly_spaced(bad, _CASES_EACH)]
    else:
        chosen = evenly_spaced(list(found), _CASES_EACH)
    contents = row_contents(run, shown, sorted({row for query in chosen for row in (query, *found[query][0])}))
    cases = []
    for query in chosen:
        nearest = [
            contents[row] | {"similarity": round(float(value), 4)} for row, value in zip(*found[query], strict=True)
        ]
        case = contents[query] | {"neighbors": nearest}
        cases.append(case if agreement is None else case | {"good": agreement[query] >= _GOOD_AGREEMENT})
    return cases, figures


def _nearest(shown: ShownRows) -> dict[int, tuple[list[int], list[float]]]:
    """{row: its nearest rows of other groups, and their cosine similarities} for evenly spaced rows to look up."""
    there = np.flatnonzero(~np.isnan(shown.fused[:, 0]))
    queries = evenly_spaced(np.flatnonzero(shown.queries & ~np.isnan(shown.fused[:, 0])).tolist(), _QUERIES)
    if len(queries) == 0 or len(there) < 2:
        return {}
    codes: dict[object, int] = {}
    code = np.array([codes.setdefault(group, len(codes)) for group in shown.groups])
    similarity = unit_rows(shown.fused[queries]) @ unit_rows(shown.fused[there]).T
    similarity[code[queries][:, None] == code[there][None, :]] = -np.inf
    found = {}
    for query, similarities in zip(queries, similarity, strict=True):
        order = np.argsort(-similarities, kind="stable")[:_NEAREST]
        order = order[np.isfinite(similarities[order])]
        found[query] = (there[order].tolist(), similarities[order].tolist())
    return found


def _agreement(shown: ShownRows, found: dict[int, tuple[list[int], list[float]]]) -> dict[int, float] | None:
    """{row: how much of its neighbors' labels agrees with its own, 0 to 1}; None where there are no labels.

    Of numbers it is one less the difference from the neighbors' mean, in standard deviations.
    """
    labels = shown.labels
    if labels is None:
        return None
    spread = shown.spread if shown.numbers else 0.0
    result = {}
    for query, (rows, _) in found.items():
        others = [labels[row] for row in rows if not is_empty(labels[row])]
        if is_empty(labels[query]) or not others:
            continue
        if shown.numbers:
            result[query] = 1 - abs(float(np.mean(others)) - labels[query]) / max(spread, 1e-12)
        else:
            result[query] = float(np.mean([_same(labels[query], other) for other in others]))
    return result


def _summary(shown: ShownRows, agreement: dict[int, float]) -> dict[str, float]:
    mean = float(np.mean(list(agreement.values())))
    return {"difference": (1 - mean) * shown.spread, "spread": shown.spread} if shown.numbers else {"share": mean}


def _same(one: Any, other: Any) -> bool:
    return set(one) == set(other) if isinstance(one, list | tuple | np.ndarray) else bool(one == other)


def row_contents(run: Run, shown: ShownRows, rows: Sequence[int]) -> dict[int, dict[str, Any]]:
    """Key, label, text and thumbnail of some rows; of several texts or pictures in a row the first."""
    starts = np.cumsum([0, *(shard.rows for shard in shown.shards)])
    by_shard: dict[int, list[int]] = defaultdict(list)
    for row in rows:
        by_shard[int(np.searchsorted(starts, row, side="right")) - 1].append(row)
    all_columns = [replace(input_columns(run, name), weights=None) for name in reversed(run.inputs)]
    inputs = {columns.kind: columns for columns in all_columns if columns.kind in ("text", "image")}
    found: dict[int, dict[str, Any]] = {}
    for number, mine in by_shard.items():
        shard = shown.shards[number]
        names = list(dict.fromkeys(name for columns in inputs.values() for name in columns.names))
        table = run.corpus.read(shard, names).take(pa.array([row - int(starts[number]) for row in mine]))
        texts = _first_values(table, inputs.get("text"), shard.folder)
        pictures = _first_values(table, inputs.get("image"), shard.folder)
        for row, text, picture in zip(mine, texts, pictures, strict=True):
            values = {
                "key": shown.keys[row],
                "label": None if shown.labels is None else label_text(shown.labels[row]),
                "text": str(text)[:_MAX_TEXT] if isinstance(text, str) else None,
                "thumbnail": thumbnail(picture, run.job.limits),
            }
            found[row] = {name: value for name, value in values.items() if value is not None}
    return found


def _first_values(table: pa.Table, columns: Columns | None, folder: str) -> list[Any]:
    if columns is None:
        return [None] * table.num_rows
    found = InputValues(table, columns, folder)
    starts, stops = found.offsets[:-1].tolist(), found.offsets[1:].tolist()
    return [found.values[start] if stop > start else None for start, stop in zip(starts, stops, strict=True)]


def thumbnail(read: Callable[[], bytes] | None, limits: LimitsJob) -> str | None:
    """A small JPEG of a picture, in base64, decoded under the job's limits; None where there is none to show."""
    if read is None:
        return None
    try:
        picture = decode(read(), formats=limits.formats, max_pixels=limits.max_pixels, target=_THUMBNAIL_PIXELS)
    except (BadInputError, RunError, OSError):
        return None
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode()


def label_text(label: Any) -> str | None:
    """A label, a set of labels or a number as people read it; None where it says nothing."""
    if is_empty(label):
        return None
    if isinstance(label, list | tuple | np.ndarray):
        return ", ".join(str(part) for part in label)
    return f"{label:.4g}" if isinstance(label, float) else str(label)
