"""Contenders for pictures: MobileNetV2 over photographs of groceries, and the decoding of large ones."""

import io
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader, Dataset
from torchvision.models import mobilenet_v2
from torchvision.transforms._presets import ImageClassification

from barycenter.fusion.encoders import EncoderSpec, load
from barycenter.fusion.encoders.image.decoding import decode
from benchmarks import harness
from benchmarks.embed_bare import Run, a_core_each, batching
from benchmarks.embed_ray_data import best_way, embed_files, picture_ways
from benchmarks.embed_stage import Stage

ROWS = 480
BATCHES = (1, 2, 4, 8, 16, 32)
COMPILED_BATCHES = (8, 16)
LOADER_BATCHES = (4, 16, 32)
_OWN_BATCH = 16
_SECONDS = 6.0
_TRIAL_SECONDS = 1.0
_STEPS = 4 * (os.cpu_count() or 1)


class Photographs(Dataset[torch.Tensor]):
    """Decoded and preprocessed by torchvision, as its weights ask."""

    def __init__(self, paths: list[str]) -> None:
        self._paths, self._transform = paths, ImageClassification(crop_size=224)

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> torch.Tensor:
        pixels: torch.Tensor = self._transform(Image.open(self._paths[number]).convert("RGB"))
        return pixels


class Pictures:
    """The contenders and what they share."""

    def __init__(self, folder: Path, cores: int) -> None:
        self._cores = cores
        self._weights = str(harness.shared("weights/mobilenet_v2/mobilenet_v2.safetensors"))
        found = sorted(harness.shared("data/grocery/images").glob("*.jpg"))
        self._paths = [str(path) for path in found[:: len(found) // ROWS][:ROWS]]
        self.rows = len(self._paths)
        corpus = folder / "pictures.jsonl"
        corpus.write_text("".join(json.dumps({"id": str(n), "image": p}) + "\n" for n, p in enumerate(self._paths)))
        given = {"kind": "image", "column": "image", "encoder": "torchvision/mobilenet_v2", "weights": self._weights}
        self.stage = Stage(folder, {"path": str(corpus), "key": "id", "rows_per_shard": 120}, given, outside=True)
        self._spec = EncoderSpec("image", "torchvision/mobilenet_v2", weights=self._weights)
        self._encoder: Any = load(self._spec)
        self._model = mobilenet_v2(weights=None)
        self._model.load_state_dict(load_file(self._weights))
        self._model.classifier = torch.nn.Identity()
        self._model = self._model.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.compile_seconds: float | None = None
        self._eager_batch = _best_batch("bare model", self._model, BATCHES, batching)
        self._own_core = a_core_each(cores)
        self._core_batch = _best_batch("bare model, a batch a core", self._model, BATCHES, self._own_core)
        self._compiled, self._compiled_batch = self._compile()
        self._encoded = [Path(path).read_bytes() for path in self._paths[:64]]
        self._own = [self._encoder.prepare(data) for data in self._encoded]
        self._loader = self._best_loader()
        some = self._paths[::4]
        self._way = best_way("ray data", picture_ways(cores), lambda way: embed_files(some, self._weights, cores, way))
        self.settings = {
            "barycenter": "batch by its trial, decoding",
            "bare model, eager": f"batches of {self._eager_batch}, all cores together",
            "bare model, a batch a core": f"batches of {self._core_batch}",
            "bare model, compiled": f"batches of {self._compiled_batch}",
            "own model": f"the stage's model, batches of {_OWN_BATCH}, a batch a core",
            "decode, one core": "no model",
            "dataloader": f"batches of {self._loader[0]}, {self._loader[1]} workers, decoding",
            "ray data": f"{self._way}, decoding in tasks",
        }

    def contenders(self) -> dict[str, Callable[[], float]]:
        """Rows a second of each."""
        compiled = self._compiled
        bare = {
            "bare model, eager": lambda: _model_rate(self._model, self._eager_batch, _SECONDS, batching),
            "bare model, a batch a core": lambda: _model_rate(self._model, self._core_batch, _SECONDS, self._own_core),
        }
        if compiled is not None:
            bare["bare model, compiled"] = lambda: _model_rate(compiled, self._compiled_batch, _SECONDS, batching)
        return bare | {
            "own model": self._own_model,
            "decode, one core": lambda: _decode_rate(self._encoder.prepare, self._encoded, _SECONDS / 2),
            "barycenter": self.stage.rate,
            "dataloader": lambda: self._dataloader(self._paths, *self._loader),
            "ray data": lambda: embed_files(self._paths, self._weights, self._cores, self._way),
        }

    def large_jpegs(self) -> dict[str, float]:
        """How much faster 12-megapixel JPEGs decode at a reduced scale, and how near the vectors stay."""
        encoded, transform = [], self._encoder.transform
        for path in sorted(harness.shared("data/smoke_photos").glob("*.jpg")):
            out = io.BytesIO()
            Image.open(path).convert("RGB").resize((4000, 3000), Image.Resampling.LANCZOS).save(out, "JPEG", quality=90)
            encoded.append(out.getvalue())

        def full(data: bytes) -> Any:
            return transform.pixels(decode(data, formats=("JPEG",), max_pixels=50_000_000))

        draft, whole = (_decode_rate(step, encoded, 3.0) for step in (self._encoder.prepare, full))
        a = self._encoder.encode([self._encoder.prepare(data) for data in encoded])
        b = self._encoder.encode([full(data) for data in encoded])
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        harness.note(f"12-megapixel JPEGs: {draft:.1f}/s reduced, {whole:.1f}/s whole, cosine from {cosine.min():.4f}")
        return {"reduced_per_s": draft, "whole_per_s": whole, "speedup": draft / whole, "cosine": float(cosine.min())}

    def _compile(self) -> tuple[Any, int]:
        """The compiled model and its best batch; None where it cannot be compiled."""
        begun = time.perf_counter()
        try:
            compiled = torch.compile(self._model, dynamic=False)
            batch = _best_batch("bare model, compiled", compiled, COMPILED_BATCHES, batching)
        except Exception as error:  # noqa: BLE001 - the compiler's own
            harness.note(f"the model cannot be compiled here: {str(error).splitlines()[0][:160]}")
            return None, 0
        self.compile_seconds = time.perf_counter() - begun
        return compiled, batch

    def _own_model(self) -> float:
        """The stage's model, on rows already decoded, a batch a core; it runs a batch four pictures at a time."""
        batch = self._own[:_OWN_BATCH]
        return _repeated(lambda: self._encoder.encode(batch), len(batch), _SECONDS, self._own_core)

    def _best_loader(self) -> tuple[int, int]:
        """Pictures a batch and workers at which the DataLoader feeds the model fastest."""
        ways = [(batch, workers) for batch in LOADER_BATCHES for workers in sorted({1, self._cores})]
        rates = {way: self._dataloader(self._paths[::4], *way) for way in ways}
        best = max(rates, key=lambda way: rates[way])
        harness.note(f"dataloader, (batch, workers): { ({way: round(r) for way, r in rates.items()}) }; {best} taken")
        return best

    @torch.inference_mode()
    def _dataloader(self, paths: list[str], batch: int, workers: int) -> float:
        loader = DataLoader(Photographs(paths), batch_size=batch, num_workers=workers)
        rows, begun = 0, 0.0
        for pictures in loader:
            self._model(pictures.to(memory_format=torch.channels_last))
            rows, begun = (0, time.perf_counter()) if not begun else (rows + len(pictures), begun)
        return rows / (time.perf_counter() - begun)


def _best_batch(name: str, model: Any, batches: tuple[int, ...], run: Run) -> int:
    rates = {batch: _model_rate(model, batch, _TRIAL_SECONDS, run) for batch in batches}
    best = max(rates, key=lambda batch: rates[batch])
    harness.note(f"{name}, pictures a batch: { ({b: round(r) for b, r in rates.items()}) }; {best} taken")
    return best


def _model_rate(model: Any, batch: int, seconds: float, run: Run) -> float:
    pictures = torch.rand(batch, 3, 224, 224).to(memory_format=torch.channels_last)
    step = torch.inference_mode()(lambda: model(pictures))
    step()
    return _repeated(step, batch, seconds, run)


def _repeated(step: Callable[[], object], rows: int, seconds: float, run: Run) -> float:
    steps, done, begun = [step] * _STEPS, 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        run(steps)
        done += rows * len(steps)
    return done / (time.perf_counter() - begun)


def _decode_rate(step: Callable[[bytes], object], encoded: list[bytes], seconds: float) -> float:
    done, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        step(encoded[done % len(encoded)])
        done += 1
    return done / (time.perf_counter() - begun)
