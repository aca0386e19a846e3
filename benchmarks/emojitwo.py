"""The emoji set as paired embeddings, MiniLM and MobileNetV2, embedded once and kept under ``out/bench``."""

import json
import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.encoders import EncoderSpec, load
from barycenter.fusion.encoders.pipeline import embed
from benchmarks.harness import ROOT, minilm, missing, note, shared

_FOLDER = ROOT / "out" / "bench"
Views = dict[str, NDArray[np.float32]]


def emojitwo() -> tuple[Views, NDArray[np.object_], list[str]]:
    """Text (384) and picture (1280) vectors, labels (empty where there is none) and groups of near-copies."""
    data = shared("data/emojitwo")
    rows = [json.loads(line) for line in (data / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    kept = _FOLDER / "emojitwo.npz"
    if not kept.exists():
        _embed(data, rows, kept)
    with np.load(kept) as arrays:
        views: Views = {name: arrays[name] for name in ("text", "image")}
    labels = np.array([row["label"] or None for row in rows], dtype=object)
    return views, labels, [row["base"] for row in rows]


def _embed(data: Path, rows: list[dict[str, str]], kept: Path) -> None:
    weights = str(shared("weights/mobilenet_v2/mobilenet_v2.safetensors"))
    note("embedding", len(rows), "rows, once")
    text = embed(load(EncoderSpec("text", str(minilm()))), [row["text"] for row in rows], batch_size=2048, threads=1)
    pictures = [(data / "images" / row["image"]).read_bytes for row in rows]
    image = embed(
        load(EncoderSpec("image", "torchvision/mobilenet_v2", weights=weights)), pictures, batch_size=16, threads=1
    )
    if not (text.ok.all() and image.ok.all()):
        missing(f"{int((~text.ok).sum())} texts and {int((~image.ok).sum())} pictures cannot be embedded")
    half_done = kept.with_name(f"{kept.stem}.{os.getpid()}.npz")
    np.savez(half_done, text=text.vectors, image=image.vectors)
    half_done.replace(kept)
