"""What a user would pick to embed texts: sentence-transformers, ONNX Runtime, OpenVINO and fastembed.

Each runs with the batch at which it is fastest. The model is exported to ONNX once, from the same folder, for the last
three. A peer that is not installed, whose export fails here, or whose vectors differ is reported and left out.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from benchmarks import harness

BATCHES = (8, 16, 32, 64, 128)
PYTORCH, ONNX, OPENVINO, FASTEMBED = "sentence-transformers", "ONNX Runtime", "OpenVINO", "fastembed"
LENGTH = 256
_FAR = 1e-3
_CHECKED = ["a crab on a boat", "How do I top up my card by transfer? " * 3]

Encode = Callable[[Sequence[str], int], Any]


def encoders(folder: Path, scratch: Path) -> dict[str, Encode]:
    """The peers that run here.

    Args:
        folder: The sentence-transformers folder.
        scratch: Where the exported model goes.

    Returns:
        By name, a function of texts and a batch size that gives their vectors.
    """
    exported = scratch / "exported" / "model.onnx"
    made: dict[str, Callable[[], Encode]] = {
        PYTORCH: lambda: _sentence_transformers(folder),
        ONNX: lambda: _batched(folder, _onnx_runtime(_export(folder, exported))),
        OPENVINO: lambda: _batched(folder, _openvino(_export(folder, exported))),
        FASTEMBED: lambda: _fastembed(_export(folder, exported).parent),
    }
    found: dict[str, Encode] = {}
    expected: Any = None
    for name, make in made.items():
        try:
            encode = make()
            vectors = np.asarray(encode(_CHECKED, 2))
            expected = vectors if expected is None else expected
            if np.abs(vectors - expected).max() > _FAR:
                raise ValueError(f"its vectors differ by {np.abs(vectors - expected).max():.1e}")
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


def _sentence_transformers(folder: Path) -> Encode:
    model = SentenceTransformer(str(folder), device="cpu")
    return lambda texts, batch: model.encode(list(texts), batch_size=batch, show_progress_bar=False)


def _batched(folder: Path, run: Callable[[dict[str, Any]], Any]) -> Encode:
    """Texts sorted by length and padded in a batch, as sentence-transformers does it; the mean of the last states."""
    tokenizer = AutoTokenizer.from_pretrained(folder)

    def encode(texts: Sequence[str], batch: int) -> Any:
        order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
        vectors: list[Any] = [None] * len(texts)
        for start in range(0, len(texts), batch):
            rows = order[start : start + batch]
            options: dict[str, Any] = {"padding": True, "truncation": True, "max_length": LENGTH}
            tokens = tokenizer([texts[row] for row in rows], return_tensors="np", **options)
            given = {name: tokens[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
            mask = given["attention_mask"][:, :, None]
            summed = (run(given) * mask).sum(1)
            for row, vector in zip(rows, summed / np.linalg.norm(summed, axis=1, keepdims=True), strict=True):
                vectors[row] = vector
        return np.stack(vectors)

    return encode


def _export(folder: Path, path: Path) -> Path:
    """The model in ONNX beside its tokenizer, once."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        tokenizer.save_pretrained(path.parent)
        model = AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
        model.config.save_pretrained(path.parent)
        tokens = tokenizer(_CHECKED, padding=True, return_tensors="pt")
        names = ["input_ids", "attention_mask", "token_type_ids"]
        shape = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
        program = torch.onnx.export(
            _States(model),
            tuple(tokens[name] for name in names),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_shapes=(shape, shape, shape),
            dynamo=True,
        )
        assert program is not None
        program.save(str(path))
    return path


class _States(torch.nn.Module):
    """The last states alone."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = self.model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state
        return states


def _onnx_runtime(path: Path) -> Callable[[dict[str, Any]], Any]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda given: session.run(None, given)[0]


def _openvino(path: Path) -> Callable[[dict[str, Any]], Any]:
    import openvino

    compiled = openvino.Core().compile_model(str(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda given: compiled(given)[0]


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
        model_file="model.onnx",
    )
    model = TextEmbedding(name, specific_model_path=str(folder))
    return lambda texts, batch: list(model.embed(list(texts), batch_size=batch))
