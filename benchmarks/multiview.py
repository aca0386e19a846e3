"""UCI digits (2,000 rows, six numeric views): pairs, three and six views, fused by `auto` to half of the concatenation.

The columns are measurements of many units (areas beside angles), so each is brought to unit variance first, for all
candidates alike; no label enters that. Two times five folds; every choice is made inside the training part. The same
linear probe scores the fused vector, the concatenation, and the concatenation with missing views filled in, complete
and with each view missing.
"""

import os
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import warnings
from concurrent.futures import ProcessPoolExecutor
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from barycenter.fusion.alignment import AlignmentSearch, Sample
from barycenter.fusion.evaluation.probe import cross_validated_probe
from barycenter.fusion.moments import FoldMoments
from benchmarks.harness import finish, note, shared, table, versions

VIEWS = ("fac", "fou", "kar", "mor", "pix", "zer")
SETS = (*combinations(VIEWS, 2), ("fou", "kar", "zer"), ("fac", "mor", "pix"), VIEWS)
FOLDS, REPEATS = 5, 2
ALLOWED = -0.005


def digits(names: tuple[str, ...]) -> tuple[dict[str, NDArray[np.float32]], list[str]]:
    """The views, their columns standardized, and the digit of every row."""
    tables = {
        name: np.loadtxt(shared(f"data/uci_mfeat/mfeat-{name}.csv"), delimiter=",", skiprows=1, dtype=np.float32)
        for name in names
    }
    classes = next(iter(tables.values()))[:, -1].astype(int)
    views = {name: values[:, :-1] for name, values in tables.items()}
    return {m: (v - v.mean(axis=0)) / v.std(axis=0) for m, v in views.items()}, [f"digit {digit}" for digit in classes]


def scored(names: tuple[str, ...]) -> dict[str, Any]:
    """One set of views."""
    warnings.simplefilter("ignore")
    views, labels = digits(names)
    dim = sum(values.shape[1] for values in views.values()) // 2

    def fit(part: Any, part_labels: Any, part_groups: Any) -> Any:
        folds = FoldMoments.of(part, 5, part_groups)
        return AlignmentSearch(dim).fit_moments(folds, Sample(part, part_groups, part_labels, "classification")).fuse

    by = cross_validated_probe(views, labels, None, FOLDS, REPEATS, fit, dim=min(dim, 64))["candidates"]
    missing = [f"without {name}" for name in names]
    return {
        "views": "+".join(names),
        "dim": dim,
        "concat": by["concat"]["complete"],
        "fused": by["fused"]["complete"],
        "imputed, one missing": float(np.mean([by["concat_imputed"][condition] for condition in missing])),
        "fused, one missing": float(np.mean([by["fused"][condition] for condition in missing])),
        "worst gap, one missing": min(by["fused"][c] - by["concat_imputed"][c] for c in missing),
    }


def main() -> None:
    """Runs everything."""
    with ProcessPoolExecutor(2) as pool:
        rows = []
        for row in pool.map(scored, SETS):
            rows.append(row)
            note(row)
    table(rows)
    pairs = [row for row in rows if row["views"].count("+") == 1]
    more = [row for row in rows if row["views"].count("+") > 1]

    def gap(some: list[dict[str, Any]], one: str, other: str) -> float:
        return float(np.mean([row[one] - row[other] for row in some]))

    complete = gap(pairs, "fused", "concat")
    missing = gap(pairs, "fused, one missing", "imputed, one missing")
    finish(
        {
            "pairs": len(pairs),
            "concat": round(float(np.mean([row["concat"] for row in pairs])), 4),
            "fused_minus_concat": round(complete, 4),
            "fused_minus_concat_imputed_one_missing": round(missing, 4),
            "within_half_a_point": complete >= ALLOWED and missing >= ALLOWED,
            "more_views_fused_minus_concat": round(gap(more, "fused", "concat"), 4),
            "more_views_one_missing": round(gap(more, "fused, one missing", "imputed, one missing"), 4),
            "versions": versions("numpy", "scipy"),
        }
    )


if __name__ == "__main__":
    main()
