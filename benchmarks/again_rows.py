"""What again_peers.py and its peers share: the rows of a folder, whatever its files are, and one encoder.

The encoder is the folder that ``$AGAIN_MODEL`` names, loaded with the first text, as in both peers' own embedders.
"""

import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

DIMENSIONS = 384


def parsed(name: str, content: bytes) -> list[dict[str, Any]]:
    """Rows of a JSONL or Parquet file."""
    if name.endswith(".parquet"):
        import pyarrow as pa

        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(content)).to_pylist()
        return rows
    return [json.loads(line) for line in content.decode().splitlines()]


def corpus(folder: Path) -> dict[str, str]:
    """Texts by id of all files of a folder."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return {row["id"]: row["text"] for path in files for row in parsed(path.name, path.read_bytes())}


def encode(texts: list[str]) -> list[Any]:
    """Vectors of texts, the mean over tokens."""
    import torch

    tokenizer, model = _loaded(Path(os.environ["AGAIN_MODEL"]))
    with torch.inference_mode():
        tokens = tokenizer(texts, padding=True, truncation=True, max_length=256, return_tensors="pt")
        hidden, mask = model(**tokens).last_hidden_state, tokens["attention_mask"][..., None]
        vectors: np.ndarray = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return list(vectors)


def timed(work: Callable[[], object]) -> dict[str, float]:
    """When a call was done, and what this process has taken of the processor until then, imports included."""
    work()
    return {"until": time.time(), "processor": time.process_time()}


@functools.cache
def _loaded(folder: Path) -> tuple[Any, Any]:
    import barycenter.fusion.torch_compat  # noqa: F401 - before transformers

    # isort: split

    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(folder, trust_remote_code=True)
    return AutoTokenizer.from_pretrained(folder), model.eval()
