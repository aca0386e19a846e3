"""The score of every row behind a report, so that two reports can be compared on the rows that they share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from barycenter.fusion.errors import RunError
from barycenter.fusion.splits import stable_hash
from barycenter.infra.storage import Storage
from barycenter.infra.storage.storage import MissingFileError
from barycenter.infra.versions.manifests import scored_rows_path
from barycenter.tasks.report.probing import Probed
from barycenter.tasks.report.rendering.facts import section

_KEY, _GROUP, _HOW, _REPORT = "key_hash", "group_hash", b"how", b"report_id"


@dataclass(frozen=True)
class ScoredRows:
    """Scores of single rows.

    Attributes:
        how: ``out of fold`` or ``held out``.
        keys: (n,) hashes of their keys, all different.
        groups: (n,) hashes of their groups.
        table: A column of scores for each candidate and condition.
    """

    how: str
    keys: NDArray[np.uint64]
    groups: NDArray[np.uint64]
    table: pa.Table

    def scores(self, candidate: str, condition: str) -> NDArray[np.float64] | None:
        """(n,) scores of a candidate, None where it has none."""
        name = _column(candidate, condition)
        return self.table.column(name).to_numpy() if name in self.table.column_names else None


def write_scored_rows(
    storage: Storage,
    version: str,
    report: dict[str, Any],
    probed: Probed | None,
    keys: Sequence[str | None],
    groups: Sequence[str | None],
) -> None:
    """Writes those of a new report on a version, in place of those of the last.

    Args:
        storage: The output.
        version: What the report is on.
        report: The report, with its lineage.
        probed: What the probe found; None without a target.
        keys: Of the rows that it numbers.
        groups: Of those rows.
    """
    path = scored_rows_path(version)
    if probed is None or not len(probed.rows):
        storage.remove([path])
        return
    named = ([values[row] for row in probed.rows] for values in (keys, groups))
    columns: dict[str, Any] = dict(zip((_KEY, _GROUP), map(stable_hash, named), strict=True))
    for candidate, by in probed.scores.items():
        columns |= {_column(candidate, condition): scores for condition, scores in by.items()}
    how = "out of fold" if "cross_validated" in probed.figures else "held out"
    about = {_HOW: how.encode(), _REPORT: report["lineage"]["report_id"].encode()}
    storage.write_table(path, pa.table(columns).replace_schema_metadata(about), compression="zstd")


def read_scored_rows(storage: Storage, report: dict[str, Any]) -> ScoredRows | None:
    """Those behind a report; None where they are not there, damaged, or those of another."""
    path = scored_rows_path(str(report.get("version")))
    try:
        table = storage.read_table(path)
    except (MissingFileError, RunError):
        return None
    about = table.schema.metadata or {}
    if about.get(_REPORT, b"").decode() != section(report, "lineage").get("report_id"):
        return None
    keys, groups = (table.column(name).to_numpy() for name in (_KEY, _GROUP))
    return ScoredRows(about[_HOW].decode(), keys, groups, table)


def _column(candidate: str, condition: str) -> str:
    return f"{candidate}, {condition}"
