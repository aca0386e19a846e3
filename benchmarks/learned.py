"""Do the trained alignments earn their training? On 2,008 emoji, names beside pictures, near-copies on one side.

Three folds; everything is fitted inside each training part; missing inputs of the autoencoder are filled in for the
label, as a job with a target does. autoencoder: out-of-fold accuracy of a linear probe on its
fused vectors, complete and with either input missing, against the same probe on each input alone. contrastive: R@10
both ways among the held-out rows, against ridge CCA weighted by the roots of its held-out correlations. Both against a
run whose training rows have the pictures of other rows.
"""

import os
import sys
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from barycenter.fusion.alignment import CCA, Alignment, Autoencoder, Contrastive, Sample
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.metrics import retrieval
from barycenter.fusion.splits import fold_of
from benchmarks.emojitwo import emojitwo
from benchmarks.harness import finish, note, table, versions

DIM, FOLDS = 256, 3
Views = dict[str, NDArray[np.float32]]


def fitted(kind: str, views: Views, groups: list[str]) -> Alignment:
    """One of the contenders."""
    method = {"autoencoder": Autoencoder, "contrastive": Contrastive, "cca": CCA}[kind.removeprefix("shuffled ")]
    return method(dim=DIM).fit(views, groups=groups)


def meetings(alignment: Alignment, views: Views) -> dict[str, float]:
    """R@10 both ways."""
    aligned = alignment.transform(views)
    if isinstance(alignment, CCA):
        weights = np.sqrt(np.clip(alignment.heldout_correlations_, 0, None))
        aligned = {name: values * weights for name, values in aligned.items()}
    text, image = aligned["text"], aligned["image"]
    return {"text->image": retrieval(text, image)["r10"], "image->text": retrieval(image, text)["r10"]}


def accuracies(
    training: NDArray[np.floating],
    tested: dict[str, NDArray[np.floating]],
    fit: NDArray[Any],
    truth: NDArray[Any],
    keys: list[str],
) -> dict[str, float]:
    """Of one probe, in every condition."""
    head = LinearHead(task="classification").fit(training, fit, groups=keys)
    return {condition: float(np.mean(head.predict(values) == truth)) for condition, values in tested.items()}


def part(task: tuple[str, int]) -> dict[str, Any]:
    """One contender in one fold."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    kind, number = task
    views, labels, groups = emojitwo()
    held = fold_of(groups, FOLDS) == number
    inside, outside = np.flatnonzero(~held), np.flatnonzero(held)
    training, tested = ({name: v[rows] for name, v in views.items()} for rows in (inside, outside))
    keys = [groups[row] for row in inside]
    if kind.startswith("shuffled"):
        training["image"] = training["image"][np.random.default_rng(0).permutation(len(keys))]
    known = np.flatnonzero([labels[row] is not None for row in inside])
    scored = np.flatnonzero([labels[row] is not None for row in outside])
    fit, truth, known_keys = labels[inside][known], labels[outside][scored], [keys[row] for row in known]
    start, found = time.perf_counter(), {"contender": kind, "fold": number, "n": len(outside)}
    if kind in views:
        found |= accuracies(training[kind][known], {"alone": tested[kind][scored]}, fit, truth, known_keys)
        return found
    alignment = fitted(kind, training, keys)
    if isinstance(alignment, Autoencoder):
        features = alignment.feature_moments(training, keys)
        alignment.fill_for_target(features.total, Sample(training, keys, labels[inside].tolist()))
    found |= {"seconds": time.perf_counter() - start, **meetings(alignment, tested)}
    found["epochs"] = len(getattr(alignment, "history_", [0])) - 1
    conditions = {"complete": tested} | {f"without {m}": {o: v for o, v in tested.items() if o != m} for m in views}
    fused = {condition: alignment.fuse(given)[scored] for condition, given in conditions.items()}
    return found | accuracies(alignment.fuse(training)[known], fused, fit, truth, known_keys)


def main() -> None:
    emojitwo()
    contenders = ["cca", "autoencoder", "shuffled autoencoder", "contrastive", "shuffled contrastive", "text", "image"]
    tasks = [(kind, number) for kind in contenders for number in range(FOLDS)]
    with ProcessPoolExecutor(2) as workers:
        parts = list(workers.map(part, tasks))
    rows = [_mean([p for p in parts if p["contender"] == kind]) for kind in contenders]
    names = ["contender", "n", "seconds", "epochs", "text->image", "image->text", "alone", "complete"]
    table([{name: row.get(name, "") for name in [*names, "without text", "without image"]} for row in rows])
    by = {row["contender"]: row for row in rows}
    best = max(by["text"]["alone"], by["image"]["alone"])
    auto, contrast = by["autoencoder"], by["contrastive"]
    gaps = {
        "complete": auto["complete"] - best,
        "without text": auto["without text"] - by["image"]["alone"],
        "without image": auto["without image"] - by["text"]["alone"],
    }
    directions = ("text->image", "image->text")
    against = {way: contrast[way] - by["cca"][way] for way in directions}
    passed = min(gaps.values()) >= -0.01 and min(against.values()) >= -0.03
    note(versions("numpy", "torch", "scikit-learn"), "passed" if passed else "FAILED")
    finish(
        {
            "autoencoder_gaps": {name: round(gap, 4) for name, gap in gaps.items()},
            "contrastive_r10": {way: round(contrast[way], 4) for way in directions},
            "contrastive_minus_cca": {way: round(gap, 4) for way, gap in against.items()},
            "shuffled": {
                "autoencoder": {key: round(by["shuffled autoencoder"][key], 4) for key in gaps},
                "contrastive_r10": {way: round(by["shuffled contrastive"][way], 4) for way in directions},
            },
            "accuracy": {key: round(auto[key], 4) for key in gaps}
            | {name: round(by[name]["alone"], 4) for name in ("text", "image")},
            "passed": passed,
        }
    )


def _mean(parts: list[dict[str, Any]]) -> dict[str, Any]:
    numbers = {
        key: float(np.mean([p[key] for p in parts])) for key in parts[0] if key not in ("contender", "fold", "n")
    }
    return {"contender": parts[0]["contender"], "n": sum(p["n"] for p in parts), **numbers}


if __name__ == "__main__":
    main()
