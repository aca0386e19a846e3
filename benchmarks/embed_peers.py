"""What a user would pick to embed texts: sentence-transformers by each of its back ends, and fastembed.

Each runs with the batch at which it is fastest. ONNX and OpenVINO models are exported from the same folder; a peer that
is not installed, or whose export fails here, is reported and left out.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sentence_transformers import SentenceTransformer

from benchmarks import harness

BATCHES = (8, 16, 32, 64, 128)
PYTORCH = "sentence-transformers"
ONNX, OPENVINO, FASTEMBED = f"{PYTORCH}, ONNX", f"{PYTORCH}, OpenVINO", "fastembed"
REQUIREMENTS = ("optimum-onnx[onnxruntime]", "optimum-intel[openvino]", "fastembed")
"""Each is installed by itself, where PyPI has a version that goes with ours."""

Encode = Callable[[Sequence[str], int], Any]


def encoders(folder: Path, scratch: Path) -> dict[str, Encode]:
    """The peers that run here.

    Args:
        folder: The sentence-transformers folder.
        scratch: Where exported models go.

    Returns:
        By name, a function of texts and a batch size that gives their vectors.
    """
    made = {
        PYTORCH: lambda: _sentence_transformers(folder, "torch"),
        ONNX: lambda: _sentence_transformers(folder, "onnx", scratch / "onnx-model"),
        OPENVINO: lambda: _sentence_transformers(folder, "openvino"),
        FASTEMBED: lambda: _fastembed(scratch / "onnx-model"),
    }
    found: dict[str, Encode] = {}
    for name, make in made.items():
        try:
            encode = make()
            encode(["one text"], 1)
            found[name] = encode
        except Exception as error:
            if name == PYTORCH:
                raise
            harness.note(f"{name} does not run here: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
    return found


def best_batch(name: str, encode: Encode, texts: Sequence[str]) -> int:
    """The batch at which a peer is fastest."""
    rates = {batch: rate(encode, texts, batch) for batch in BATCHES}
    best = max(rates, key=lambda batch: rates[batch])
    harness.note(f"{name}, texts a batch: { ({b: round(r) for b, r in rates.items()}) }; {best} taken")
    return best


def rate(encode: Encode, texts: Sequence[str], batch: int) -> float:
    """Rows a second."""
    begun = time.perf_counter()
    encode(texts, batch)
    return len(texts) / (time.perf_counter() - begun)


def _sentence_transformers(folder: Path, backend: Any, kept: Path | None = None) -> Encode:
    model = SentenceTransformer(str(folder), device="cpu", backend=backend)
    if kept is not None:
        model.save_pretrained(str(kept))
    return lambda texts, batch: model.encode(list(texts), batch_size=batch, show_progress_bar=False)


def _fastembed(folder: Path) -> Encode:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    name = "benchmark/minilm"
    TextEmbedding.add_custom_model(
        model=name,
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf=name),
        dim=384,
        model_file="onnx/model.onnx",
    )
    model = TextEmbedding(name, specific_model_path=str(folder))
    return lambda texts, batch: list(model.embed(texts, batch_size=batch))
