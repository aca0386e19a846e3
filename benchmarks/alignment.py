"""Do moments cost little more than the matrix product they need, and what do the alignments made of them reach?

- 2,000,000 rows of 384 + 512: moments against the bare float32 products of the same blocks, on the same cores, chunk by
  chunk in turn; peak memory of a process at two sizes.
- Cross-validation from fold moments against refitting on the raw rows of the other folds.
- Split MNIST: the sum of held-out correlations of each method; the same fit by cca-zoo, and by scikit-learn at the size
  that its iterations allow.
"""

import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks import harness

if __name__ == "__main__" and len(sys.argv) == 1:
    harness.with_peers("cca-zoo==4.0.1")

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from barycenter.fusion.alignment import CCA, KernelCCA, LinearAlignment
from barycenter.fusion.arrays import BLOCK_ROWS
from barycenter.fusion.moments import FoldMoments, Moments
from benchmarks.harness import finish, in_new_process, interleaved, median, note, table, versions
from benchmarks.mnist import COMPONENTS, correlations, halves, score

ROWS, CHUNKS = 2_000_000, 5
DIMS = {"text": 384, "image": 512}
POOL_ROWS = 16 * BLOCK_ROWS
Views = dict[str, NDArray[np.float32]]


def pool() -> Views:
    """Rows to draw blocks from, again and again."""
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal((POOL_ROWS, dim), np.float32) + 1 for name, dim in DIMS.items()}


def blocks(views: Views, rows: int) -> Iterator[Views]:
    """So many rows, a pool at a time."""
    for start in range(0, rows, POOL_ROWS):
        yield {name: values[: min(POOL_ROWS, rows - start)] for name, values in views.items()}


def gather(views: Views, rows: int) -> Moments:
    """Moments of so many rows."""
    moments = Moments(DIMS)
    for part in blocks(views, rows):
        moments.update(part)
    return moments


def multiply(joined: NDArray[np.float32], rows: int) -> NDArray[np.float32]:
    """The products alone: blocks of stacked inputs with themselves, in float32."""
    total = np.zeros((joined.shape[1],) * 2, np.float32)
    for start in range(0, rows, BLOCK_ROWS):
        block = joined[start % POOL_ROWS :][: min(BLOCK_ROWS, rows - start)]
        total += block.T @ block
    return total


def moments_against_products() -> float:
    """The share of the bare product's rate, the median over chunks."""
    views = pool()
    joined = np.hstack(list(views.values()))
    each = ROWS // CHUNKS
    gather(views, BLOCK_ROWS), multiply(joined, BLOCK_ROWS)
    seconds = interleaved({"moments": lambda: gather(views, each), "product": lambda: multiply(joined, each)}, CHUNKS)
    table(
        [
            {"contender": name, "n": each * CHUNKS, "rows/s (median chunk)": each / median(s), "seconds": sum(s)}
            for name, s in seconds.items()
        ]
    )
    return float(np.median([b / a for a, b in zip(seconds["moments"], seconds["product"], strict=True)]))


def peak_megabytes(rows: int) -> float:
    """Peak memory of this process once it has gathered so many rows."""
    gather(pool(), rows)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def refit_error() -> float:
    """The largest difference between held-out correlations from moments and those of refitting on the raw folds."""
    rng = np.random.default_rng(0)
    shared = rng.standard_normal((6000, 20))
    views = {
        name: shared @ rng.standard_normal((20, dim)) + 3 * rng.standard_normal((6000, dim)) + 10
        for name, dim in {"a": 48, "b": 64}.items()
    }
    folds = FoldMoments.of(views, 5, precision="float64")
    from barycenter.fusion.splits import fold_of

    number, worst = fold_of(range(6000), 5), 0.0
    for ridge in (0.0, 1e-3, 0.1, 1.0):
        found = CCA(dim=10, regularization=ridge, precision="float64").fit_moments(folds).heldout_correlations_
        refitted = np.mean([_refit(views, number == k, ridge) for k in range(5)], axis=0)
        worst = max(worst, float(np.abs(found - refitted).max()))
    return worst


def _refit(views: dict[str, NDArray[np.float64]], held: NDArray[np.bool_], ridge: float) -> NDArray[np.float64]:
    """Ridge CCA of the raw training rows by the SVD of the data, scored on the raw held-out rows."""
    bases, means, scalings = [], [], []
    for values in views.values():
        means.append(values[~held].mean(axis=0))
        centered = (values[~held] - means[-1]) / np.sqrt((~held).sum() - 1)
        left, singular, right = scipy.linalg.svd(centered, full_matrices=False)
        shrunk = np.sqrt(singular**2 + ridge * (singular**2).sum() / len(singular))
        bases.append(left * (singular / shrunk))
        scalings.append(right.T / shrunk)
    a, _, b = scipy.linalg.svd(bases[0].T @ bases[1])
    turned = [scalings[0] @ a[:, :10], scalings[1] @ b[:10].T]
    x, y = ((v[held] - m) @ w for v, m, w in zip(views.values(), means, turned, strict=True))
    return correlations(x, y)


def fits_against_peers() -> tuple[float, dict[str, Any]]:
    """How much faster than cca-zoo's fit ours is at ridge 0 on split MNIST, and how far the correlations differ."""
    from cca_zoo.linear import CCA as ZooCCA  # noqa: N811
    from sklearn.cross_decomposition import CCA as SklearnCCA  # noqa: N811

    train, dev = halves()
    exact = {name: values.astype(np.float64) for name, values in train.items()}
    pair, single = list(exact.values()), list(train.values())
    fitted: dict[str, Any] = {}

    def fit(name: str, make: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            fitted[name] = make()

        return run

    contenders = {
        "barycenter": fit("barycenter", lambda: CCA(COMPONENTS, 0.0, folds=1, precision="float64").fit(exact)),
        "cca-zoo": fit("cca-zoo", lambda: ZooCCA(n_components=COMPONENTS).fit(pair)),
        "barycenter, float32": fit("barycenter, float32", lambda: CCA(COMPONENTS, 0.0, folds=1).fit(train)),
        "cca-zoo, float32": fit("cca-zoo, float32", lambda: ZooCCA(n_components=COMPONENTS).fit(single)),
    }

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        seconds = interleaved(contenders, 3)
        few, start = 5000, time.perf_counter()
        SklearnCCA(n_components=2).fit(pair[0][:few], pair[1][:few])
        sklearn_seconds = time.perf_counter() - start
        start = time.perf_counter()
        CCA(2, 0.0, folds=1).fit({name: values[:few] for name, values in train.items()})
        ours_few = time.perf_counter() - start
    found = {
        name: [correlations(*_pair(model.transform(_input(name, views)))) for views in (train, dev)]
        for name, model in fitted.items()
    }
    differ = [float(np.abs(a - b).max()) for a, b in zip(found["barycenter"], found["cca-zoo"], strict=True)]
    rows = [
        {
            "fit": name,
            "n": len(pair[0]),
            "components": COMPONENTS,
            "seconds": median(s),
            "rows/s": len(pair[0]) / median(s),
            "sum of r, fitted rows": float(found[name][0].sum()),
            "sum of r, dev": float(found[name][1].sum()),
        }
        for name, s in seconds.items()
    ]
    rows += [
        {"fit": name, "n": few, "components": 2, "seconds": s, "rows/s": few / s}
        for name, s in (("barycenter", ours_few), ("scikit-learn", sklearn_seconds))
    ]
    table(rows)
    note(f"correlations differ from cca-zoo's by {differ[0]:.1e} on the rows fitted, {differ[1]:.1e} on dev")
    figures = {"correlation_difference": differ[0], "correlation_difference_dev": differ[1]}
    figures |= {"seconds": {name: round(median(s), 3) for name, s in seconds.items()}}
    figures |= {"sum_dev": {name: round(float(r[1].sum()), 3) for name, r in found.items()}}
    return median(seconds["cca-zoo"]) / median(seconds["barycenter"]), figures


def _input(name: str, views: Views) -> Any:
    return list(views.values()) if name.startswith("cca-zoo") else views


def _pair(aligned: Any) -> Any:
    return aligned.values() if isinstance(aligned, dict) else aligned


def split_mnist() -> dict[str, float]:
    """Sum of held-out correlations of every method, with its defaults unless its name says otherwise."""
    train, dev = halves()
    found, rows = {}, []

    def fit(name: str, alignment: LinearAlignment) -> LinearAlignment:
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            alignment.fit(train)
        seconds = time.perf_counter() - start
        found[name] = round(score(alignment, dev), 3)
        rows.append({"method": name, "sum of r": found[name], "seconds": seconds, "ridge": alignment.regularization_})
        note(rows[-1])
        return alignment

    fit("cca ridge 0", CCA(COMPONENTS, 0.0))
    fit("cca", CCA(COMPONENTS))
    ridge = fit("kernel-cca", KernelCCA(dim=COMPONENTS)).regularization_
    fit("kernel-cca, 6000 features", KernelCCA(dim=COMPONENTS, n_features=6000, regularization=ridge, folds=1))
    table(rows)
    return found


def main() -> None:
    note(versions("numpy", "scipy", "cca-zoo", "scikit-learn"))
    share = moments_against_products()
    memory = {
        rows: in_new_process("alignment", "peak_megabytes(int(sys.argv[1]))", rows) for rows in (ROWS // 16, ROWS // 2)
    }
    table([{"rows": rows, "peak MB": peak} for rows, peak in memory.items()])
    error = refit_error()
    note(f"cross-validation from moments against refitting: {error:.1e}")
    faster, figures = fits_against_peers()
    finish(
        {
            "moments_vs_gemm": round(share, 3),
            "fit_vs_cca_zoo": round(faster, 2),
            "fit_vs_cca_zoo_float32": round(
                figures["seconds"]["cca-zoo, float32"] / figures["seconds"]["barycenter, float32"], 2
            ),
            "cv_vs_refit_max_error": error,
            "mnist_dev": split_mnist(),
            "peak_mb": {str(rows): round(peak) for rows, peak in memory.items()},
            "cca_zoo": figures,
        }
    )


if __name__ == "__main__":
    main()
