"""Do heads that weigh the inputs row by row beat the linear head on their average?

On emojitwo (MiniLM, MobileNetV2) and on the demo corpus (built-in encoders), as they are and with every picture
replaced, with probability one half, in training and in test: by a picture of uniform noise (whose vectors all look much
alike), or its vector by Gaussian noise of the same mean and deviation in every column. Five seeds; each divides the
groups anew into four fifths and one fifth and fits the alignment on the training part. ``text alone`` is the linear
head on the text's own vectors: where pictures lie, a head that did not listen to them would score that. The last line
of stdout is JSON: mean accuracy of every head less that of the linear head on the average, in points.
"""

import io
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from barycenter.fusion.alignment import Joint
from barycenter.fusion.encoders import EncoderSpec, load
from barycenter.fusion.encoders.pipeline import embed
from barycenter.fusion.heads import LinearHead, NeuralHead
from barycenter.fusion.splits import stable_hash
from barycenter.infra.demo import write_demo_corpus
from benchmarks.emojitwo import emojitwo
from benchmarks.harness import ROOT, finish, note, sample, shared, table, versions

SEEDS = 5
DIM = 256
KINDS = ("mlp", "gated", "attention")
_NOISE = 0.5
_DEMO_ROWS = 2000

Views = dict[str, NDArray[np.float32]]
Corpus = tuple[Views, NDArray[np.object_], list[str]]


def main() -> None:
    corpora = {"emojitwo": (emojitwo(), mobilenet_noise), "demo": (demo(), descriptor_noise)}
    rows, figures = [], {}
    for name, (corpus, noise) in corpora.items():
        n = len(corpus[2])
        for called, lies in (
            (name, None),
            (f"{name}, noise pictures", noise(n)),
            (f"{name}, noise vectors", noise_vectors(corpus[0]["image"])),
        ):
            scores = [one_seed(corpus, seed, lies) for seed in range(SEEDS)]
            for score in scores:
                for head, accuracy in score.items():
                    sample(f"{called}, {head}", round(accuracy, 4))
            mean = {head: statistics.fmean(score[head] for score in scores) for head in scores[0]}
            spread = {head: statistics.stdev(score[head] - score["linear"] for score in scores) for head in KINDS}
            rows.append({"corpus": called, **mean})
            figures[called] = {
                "linear": round(100 * mean["linear"], 2),
                "text alone": round(100 * mean["text alone"], 2),
                "gain": {head: round(100 * (mean[head] - mean["linear"]), 2) for head in KINDS},
                "sd of gain": {head: round(100 * spread[head], 2) for head in KINDS},
            }
            note(called, figures[called])
    table(rows)
    note(versions("torch", "numpy", "scikit-learn"), f"{SEEDS} seeds, dim {DIM}")
    finish(figures)


def one_seed(corpus: Corpus, seed: int, lies: NDArray[np.float32] | None) -> dict[str, float]:
    """Accuracy of every head on the held-out fifth."""
    views, labels, groups = corpus
    if lies is not None:
        views = dict(views)
        replaced = (np.random.default_rng(seed).random(len(labels)) < _NOISE) & ~np.isnan(views["image"][:, 0])
        views["image"] = np.where(replaced[:, None], lies, views["image"])
    known = np.array([label is not None for label in labels])
    test = stable_hash(groups, f"seed {seed}") < np.uint64(0.2 * 2.0**64)
    train_rows, test_rows = np.flatnonzero(known & ~test), np.flatnonzero(known & test)
    fitting = {name: view[~test] for name, view in views.items()}
    alignment = Joint(dim=DIM).fit(fitting, groups=[g for g, held in zip(groups, test, strict=True) if not held])
    fused, aligned = alignment.fuse(views), alignment.transform(views)
    keys = [groups[row] for row in train_rows]
    linear = LinearHead(seed=seed).fit(fused[train_rows], labels[train_rows], groups=keys)
    scores = {"linear": linear.score(fused[test_rows], labels[test_rows]), "text alone": text_alone(corpus, test, seed)}
    for kind in KINDS:
        head = NeuralHead(kind, tuple(views), seed=seed)
        head.fit(fused[train_rows], labels[train_rows], _take(aligned, train_rows), groups=keys)
        scores[kind] = head.score(fused[test_rows], labels[test_rows], _take(aligned, test_rows))
    return scores


def text_alone(corpus: Corpus, test: NDArray[np.bool_], seed: int) -> float:
    """The linear head on the text's own vectors; the majority class where there is none."""
    views, labels, groups = corpus
    known = np.array([label is not None for label in labels])
    there = ~np.isnan(views["text"][:, 0])
    train_rows, test_rows = np.flatnonzero(known & there & ~test), np.flatnonzero(known & test)
    keys = [groups[row] for row in train_rows]
    head = LinearHead(seed=seed).fit(views["text"][train_rows], labels[train_rows], groups=keys)
    classes, counts = np.unique(labels[train_rows].astype(str), return_counts=True)
    guess = np.full(len(labels), classes[counts.argmax()], dtype=object)
    guess[there] = head.predict(views["text"][there])
    return float((guess[test_rows] == labels[test_rows]).mean())


def demo() -> Corpus:
    """The demo corpus through its own encoders, missing and broken inputs included."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_demo_corpus(Path(folder))
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        values = {
            "text": [row["text"] for row in rows],
            "image": [_content(path.parent / str(row["image"])) for row in rows],
        }
        views = {}
        for kind, encoder in (("text", "builtin/hashing"), ("image", "builtin/descriptor")):
            made = embed(load(EncoderSpec(kind, encoder)), values[kind], batch_size=256, threads=1)
            views[kind] = np.where(made.ok[:, None], made.vectors, np.nan).astype(np.float32)
    some = np.flatnonzero(~np.isnan(views["text"][:, 0]) | ~np.isnan(views["image"][:, 0]))
    labels = np.array([row["label"] or None for row in rows], dtype=object)
    return _take(views, some), labels[some], [str(rows[row]["design"]) for row in some]


def _content(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


def mobilenet_noise(n: int) -> NDArray[np.float32]:
    """MobileNetV2's vectors of n pictures of uniform noise, made once."""
    kept = ROOT / "out" / "bench" / "noise.npy"
    if not kept.exists():
        note("embedding", n, "pictures of noise, once")
        weights = str(shared("weights/mobilenet_v2/mobilenet_v2.safetensors"))
        encoder = load(EncoderSpec("image", "torchvision/mobilenet_v2", weights=weights))
        kept.parent.mkdir(parents=True, exist_ok=True)
        np.save(kept, embed(encoder, _noise(n), batch_size=16, threads=1).vectors)
    found: NDArray[np.float32] = np.load(kept)
    return found


def descriptor_noise(n: int) -> NDArray[np.float32]:
    """The built-in descriptor's vectors of n pictures of uniform noise."""
    return embed(load(EncoderSpec("image", "builtin/descriptor")), _noise(n), batch_size=256, threads=1).vectors


def noise_vectors(real: NDArray[np.float32]) -> NDArray[np.float32]:
    """Gaussian vectors with the mean and the deviation of the real ones in every column."""
    rng = np.random.default_rng(0)
    mean, deviation = np.nanmean(real, axis=0), np.nanstd(real, axis=0)
    return (mean + deviation * rng.normal(size=real.shape)).astype(np.float32)


def _noise(n: int) -> list[bytes]:
    rng = np.random.default_rng(0)
    return [_png(rng.integers(0, 256, (72, 72, 3), dtype=np.uint8)) for _ in range(n)]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def _take(aligned: Any, rows: NDArray[np.int64]) -> Views:
    return {name: values[rows] for name, values in aligned.items()}


if __name__ == "__main__":
    with threadpool_limits(1):
        main()
