"""How often does the report find a signal where there is none?

Data sets of two random inputs and a random target: classes balanced and unbalanced, two and ten of them, several labels
a row, numbers with and without long tails; 60, 200 and 1,000 rows. Each goes through the probe as a report's rows do,
out of fold and held out. Counted is how often the report's answer is not "no signal"; its bound is meant to
fail in 2.5 % of such data sets. The last line of stdout is JSON.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from barycenter.fusion.alignment import Joint
from barycenter.fusion.alignment.imputation import Imputer
from barycenter.fusion.evaluation.probe import cross_validated_probe, probe
from barycenter.fusion.heads.targets import Task, as_objects
from barycenter.fusion.moments import Moments
from barycenter.tasks.report.rendering.answers import has_signal
from benchmarks.harness import finish, note, table, versions

DRAWS = {60: 60, 200: 60, 1000: 20}
"""Data sets of each size, for each target and way to score."""

WIDTH, DIM, FOLDS, RIDGE = 16, 8, 5, 0.1

Views = dict[str, NDArray[np.float32]]
Draw = Callable[[np.random.Generator, int], list[Any]]

TARGETS: dict[str, tuple[Task, Draw]] = {
    "two classes, equal": ("classification", lambda rng, n: rng.permutation(np.arange(n) % 2).tolist()),
    "two classes, by lot": ("classification", lambda rng, n: rng.integers(0, 2, n).tolist()),
    "two classes, 9 to 1": ("classification", lambda rng, n: (rng.random(n) < 0.1).astype(int).tolist()),
    "ten classes, by lot": ("classification", lambda rng, n: rng.integers(0, 10, n).tolist()),
    "ten classes, unequal": ("classification", lambda rng, n: np.minimum(rng.geometric(0.4, n), 10).tolist()),
    "several labels": ("multilabel", lambda rng, n: [np.flatnonzero(row).tolist() for row in rng.random((n, 3)) < 0.3]),
    "numbers": ("regression", lambda rng, n: rng.normal(size=n).tolist()),
    "numbers, long tail": ("regression", lambda rng, n: np.exp(1.5 * rng.normal(size=n)).tolist()),
}


def main() -> None:
    found = [measured(name, rows, how) for how in ("out of fold", "held out") for rows in DRAWS for name in TARGETS]
    table(found)
    versions("numpy", "scipy", "scikit-learn")
    tried, signals = sum(case["drawn"] for case in found), sum(case["signals"] for case in found)
    worst = max(found, key=lambda case: case["signals"] / case["drawn"])
    finish(
        {
            "drawn": tried,
            "signals": signals,
            "share": round(signals / tried, 4),
            "worst": worst,
            "cases": found,
        }
    )


def measured(name: str, rows: int, how: str) -> dict[str, Any]:
    """How many of some draws are said to have a signal."""
    seeds = range(DRAWS[rows])
    signals = sum(signal(name, np.random.default_rng([seed, rows]), rows, how) for seed in seeds)
    case = {"target": name, "rows": rows, "how": how, "drawn": len(seeds), "signals": signals}
    note(case)
    return case


def signal(name: str, rng: np.random.Generator, rows: int, how: str) -> bool:
    """Whether the report finds a signal in one data set of noise."""
    task, draw = TARGETS[name]
    views: Views = {side: rng.normal(size=(rows, WIDTH)).astype(np.float32) for side in ("text", "image")}
    labels = as_objects(draw(rng, rows))
    if how == "held out":
        test = rng.random(rows) < 1 / FOLDS
        training = {side: view[~test] for side, view in views.items()}
        imputer = Imputer(Moments.of(training), RIDGE)
        report = probe(views, fused(training), labels, None, ~test, test, imputer=imputer, dim=DIM, task=task)
        return has_signal({"probe": report})
    report = cross_validated_probe(
        views, labels, None, FOLDS, 1, lambda part, *_: fused(part), dim=DIM, task=task,
        imputer=lambda part, _: Imputer(Moments.of(part), RIDGE),
    )  # fmt: skip
    return has_signal({"probe": {"cross_validated": report}})


def fused(training: Views) -> Callable[[Views], NDArray[np.floating]]:
    """What makes fused vectors, fitted on training rows."""
    alignment = Joint(dim=DIM, regularization=RIDGE).fit(training)
    return lambda views: alignment.fuse(views)


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
