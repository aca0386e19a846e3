"""Held-out rows that two heads predict differently."""

from typing import Any

import numpy as np

from barycenter.fusion.errors import JobError
from barycenter.fusion.metrics import bootstrap_gap, correct
from barycenter.infra.storage.json_files import read_json
from barycenter.tasks.data.labeled_rows import read_file
from barycenter.tasks.data.rows import group_labels
from barycenter.tasks.heads.predict import heads_of
from barycenter.tasks.heads.predictions import key_name
from barycenter.tasks.report.comparison.sides import Side

_EXAMPLES, _RESAMPLES = 10, 1000


def changed_predictions(before: Side, after: Side, wanted: str | None, notes: list[str]) -> dict[str, Any] | None:
    """Rows held out from both heads whose prediction changed; a note says why there are none to compare.

    Args:
        before: One version.
        after: The other.
        wanted: Kind of head, where a version has several.
        notes: Takes what could not be compared.

    Returns:
        ``heads`` [before, after]: their kinds; ``n``: rows held out from both; ``relabeled``: how many of them have
        another true value in the other version; ``changed``; of labels ``gained`` and
        ``lost``: wrong before and right after, and the other way round, and ``difference`` {mean, low, high,
        within_noise} of the shares that are right on these rows, whole groups resampled; ``rows`` [{key, target,
        before, after}], first those that are wrong now.

    Raises:
        JobError: A version has several heads and none was named, or it has none of the kind that was.
    """
    folders = _heads(before, after, wanted)
    metrics = [_metrics(side, folder) for side, folder in zip((before, after), folders, strict=True)]
    for side, folder, known in zip((before, after), folders, metrics, strict=True):
        if folder is None:
            notes.append(f"no head is trained on {side.name}, so predictions are not compared")
            return None
        if known is None:
            notes.append(f"the head of {side.name} has no held-out rows, so predictions are not compared")
            return None
    one, other = ((known or {}) for known in metrics)
    if (one["task"], one["train"]["target"]) != (other["task"], other["train"]["target"]):
        notes.append("the heads learned different targets, so predictions are not compared")
        return None
    tables = [_predictions(side, str(folder)) for side, folder in zip((before, after), folders, strict=True)]
    keys = [key for key in tables[0] if key in tables[1]]
    if not keys:
        notes.append("no row was held out from both heads, so predictions are not compared")
        return None
    truth = ([table[key][0] for key in keys] for table in tables)
    found: dict[str, Any] = {"heads": [one["head"], other["head"]], "n": len(keys)}
    found["relabeled"] = int((~correct(*truth)).sum())
    if one["task"] == "regression":
        return found | _of_numbers(keys, tables[0], tables[1])
    return found | _of_labels(keys, tables[0], tables[1], _groups(after, other["train"]["group_by"], keys))


def _heads(before: Side, after: Side, wanted: str | None) -> list[str | None]:
    """A folder each: of the same settings where both have such a head."""
    there = [heads_of(side.storage, side.manifest.version) for side in (before, after)]
    for side, heads in zip((before, after), there, strict=True):
        if wanted is not None and wanted not in heads.values():
            kinds = ", ".join(sorted(set(heads.values())))
            known = f"its heads are of kind {kinds}" if kinds else "it has no head; `barycenter train` makes one"
            raise JobError("--head", f"{side.name} has no head of kind {wanted!r}; {known}")
    there = [{folder: kind for folder, kind in heads.items() if wanted in (None, kind)} for heads in there]
    ids = [{folder.rpartition("/")[2]: folder for folder in heads} for heads in there]
    both = ids[0].keys() & ids[1].keys()
    if len(both) == 1:
        name = both.pop()
        return [each[name] for each in ids]
    for side, heads in zip((before, after), there, strict=True):
        if len(heads) > 1:
            kinds = ", ".join(f"{folder} ({kind})" for folder, kind in heads.items())
            raise JobError("--head", f"{side.name}: there are several, name one by its kind: {kinds}")
    return [next(iter(heads), None) for heads in there]


def _metrics(side: Side, folder: str | None) -> dict[str, Any] | None:
    if folder is None or not side.storage.exists(f"{folder}/predictions.parquet"):
        return None
    metrics: dict[str, Any] = read_json(side.storage, f"{folder}/metrics.json")
    return metrics


def _predictions(side: Side, folder: str) -> dict[str, tuple[Any, Any]]:
    """{key: (true value, prediction)} of the held-out rows of a head; a head has at most 500,000 rows in all."""
    key = key_name(side.manifest.key)
    table = side.storage.read_table(f"{folder}/predictions.parquet", columns=[key, "target", "prediction"])
    columns = (table.column(name).to_pylist() for name in (key, "target", "prediction"))
    return {name: (target, said) for name, target, said in zip(*columns, strict=True)}


Table = dict[str, tuple[Any, Any]]


def _of_labels(keys: list[str], one: Table, other: Table, groups: list[str]) -> dict[str, Any]:
    right = [correct([table[key][0] for key in keys], [table[key][1] for key in keys]) for table in (one, other)]
    changed = ~correct([one[key][1] for key in keys], [other[key][1] for key in keys])
    mean, low, high = bootstrap_gap(right[1], right[0], groups, n=_RESAMPLES)
    order = np.lexsort((np.arange(len(keys)), right[1]))
    rows = [int(at) for at in order if changed[at]][:_EXAMPLES]
    return {
        "changed": int(changed.sum()),
        "gained": int((right[1] & ~right[0]).sum()),
        "lost": int((right[0] & ~right[1]).sum()),
        "difference": {"mean": mean, "low": low, "high": high, "within_noise": low <= 0 <= high},
        "rows": [_row(keys[at], one, other) for at in rows],
    }


def _of_numbers(keys: list[str], one: Table, other: Table) -> dict[str, Any]:
    said = [np.array([table[key][1] for key in keys], dtype=np.float64) for table in (one, other)]
    moved = np.abs(said[1] - said[0])
    order = [int(at) for at in np.argsort(-moved, kind="stable") if moved[at] > 0][:_EXAMPLES]
    return {
        "changed": int((moved > 0).sum()),
        "mean_change": float(moved.mean()),
        "rows": [_row(keys[at], one, other) for at in order],
    }


def _row(key: str, one: Table, other: Table) -> dict[str, Any]:
    target = other[key][0]
    shown = target if isinstance(target, bool | int | float | str | list) or target is None else str(target)
    return {"key": key, "target": shown, "before": one[key][1], "after": other[key][1]}


def _groups(side: Side, column: str | None, keys: list[str]) -> list[str]:
    """Group of each row: near-copies are no independent evidence."""
    manifest = side.manifest
    if column is None or column not in (*manifest.kept, manifest.key):
        return keys
    groups: dict[str, str] = {}
    wanted = set(keys)
    for file in manifest.files:
        table = read_file(side.storage, manifest, file, [manifest.key, column])
        names = table.column(manifest.key).to_pylist()
        pairs = zip(names, group_labels(names, table.column(column).to_pylist()), strict=True)
        groups |= {name: group for name, group in pairs if name in wanted}
    return [groups.get(key, key) for key in keys]
