"""A corpus of 24 rows, tiny models and the job that reads them: every key of a job file has something to bite on."""

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.fusion.encoders.conftest import WORDS, save_tokenizer

ROWS = 24


def write_everything(folder: Path) -> None:
    """``rows/`` with pictures, ``moved/`` the same elsewhere, ``grown/`` with more rows, ``mixed/`` with other types.

    Beside them the table ``own.parquet`` and another of it, the models ``bert`` and ``vit``, and torchvision weights.
    """
    rng = np.random.default_rng(5)
    rows = [_row(number, rng) for number in range(ROWS)]
    _write_lines(folder / "rows" / "a.jsonl", rows)
    for number in range(ROWS):
        side = 80 if number == 3 else 24
        name = f"{number}.bmp" if number == 4 else f"{number}.png"
        _picture(folder / "rows" / name, side, rng)
    _picture(folder / "outside.png", 24, rng)
    for name, added in (("moved", None), ("grown", 0), ("mixed", 0.5)):
        shutil.copytree(folder / "rows", folder / name)
        if added is not None:
            more = [row | {"number": row["number"] + added} for row in (_row(ROWS + n, rng) for n in range(6))]
            _write_lines(folder / name / "b.jsonl", more)
    _write_own(folder / "own.parquet", rng)
    _write_own(folder / "other.parquet", rng)
    _write_models(folder)


def job(folder: Path) -> dict[str, Any]:
    """The job that the keys are changed in, one at a time."""
    return {
        "name": "identity",
        "corpus": {
            "path": str(folder / "rows"),
            "key": "sku",
            "keep": ["label", "other", "side", "group"],
            "rows_per_shard": 8,
        },
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": str(folder / "bert"), "batch": 512},
            "image": {
                "kind": "image",
                "column": "image",
                "encoder": str(folder / "vit"),
                "preprocessing": {"resize": 40, "crop": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
                "batch": 8,
            },
            "vec": {"kind": "vector", "column": "vec", "batch": 16},
        },
        "alignment": {"method": "joint", "dim": 6, "regularization": 0.1, "folds": 2},
        "average": {"method": "mean"},
        "output": {"path": str(folder / "out")},
        "limits": {"max_bad_fraction": 0.9, "max_pixels": 10_000},
        "train": {"target": "label"},
        "ray": {"workers": 1, "threads_per_worker": 1},
    }


def _row(number: int, rng: np.random.Generator) -> dict[str, Any]:
    label = number % 3
    words = rng.choice(WORDS.split()[8 * label : 8 * label + 9], 4)
    image = f"{number}.bmp" if number == 4 else f"{number % ROWS}.png"
    vectors = rng.normal(label, 1.0, (2, 3)).round(4).tolist()
    return {
        "sku": f"s{number:03d}",
        "isbn": f"i{number:03d}",
        "text": " ".join(words),
        "title": f"{words[0]} {words[-1]}",
        "image": {6: "../outside.png", 7: "http://a b/x.png", 8: "gone.png"}.get(number, image),
        "vec": vectors,
        "back": vectors[::-1],
        "shares": [1.0, 1.0 + number],
        "label": f"class {label}",
        "other": f"kind {number % 2}",
        "side": "test" if number % 4 == 0 else "train",
        "group": f"g{number // 2}",
        "price": float(number),
        "number": number,
    }


def _write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _picture(path: Path, side: int, rng: np.random.Generator) -> None:
    out = io.BytesIO()
    pixels = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "BMP" if path.suffix == ".bmp" else "PNG")
    path.write_bytes(out.getvalue())


def _write_own(path: Path, rng: np.random.Generator) -> None:
    keys = [f"s{number:03d}" for number in range(ROWS)]
    vectors = pa.array(rng.normal(size=(ROWS, 3)).round(4).tolist(), pa.list_(pa.float32()))
    pq.write_table(pa.table({"sku": keys, "ref": keys[::-1], "own": vectors}), path)


def _write_models(folder: Path) -> None:
    import torch
    import torchvision
    from safetensors.torch import save_file
    from transformers import BertConfig, BertModel, ViTConfig, ViTImageProcessor, ViTModel

    import barycenter.fusion.torch_compat  # noqa: F401 - first: transformers' import needs it

    torch.manual_seed(0)
    size = save_tokenizer(folder / "bert")
    bert = BertConfig(
        vocab_size=size, hidden_size=12, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=48, initializer_range=0.3,
    )  # fmt: skip
    BertModel(bert).eval().save_pretrained(folder / "bert")
    vit = ViTConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=32, patch_size=16
    )
    ViTModel(vit).eval().save_pretrained(folder / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(folder / "vit")
    for name in ("first", "second"):
        model = torchvision.models.get_model("squeezenet1_1", num_classes=3)
        save_file(model.state_dict(), folder / f"{name}.safetensors")
