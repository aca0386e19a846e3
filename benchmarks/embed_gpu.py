"""How much of a GPU the encoders use: fusion alone, without Ray, on models of real size with random weights.

Texts have as many tokens as banking77's questions and recipes'; pictures come as pixels and as JPEG files. MFU is the
model's floating-point operations, padding left out, over the peak of a large bf16 matrix product on the same device.
Peers are those that are installed: sentence-transformers in fp32 and fp16. Without a GPU everything runs on small
models, to show that it runs.
"""

import io
import json
import os
import random
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import barycenter.fusion.torch_compat  # noqa: F401 - before torchvision and transformers
from benchmarks import harness

# isort: split

os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torchvision import models as pictures
from transformers import (
    BertConfig,
    BertModel,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTModel,
)

from barycenter.fusion.encoders import EncoderSpec, Preprocessing, load
from barycenter.fusion.encoders.batch_size import find_batch_size
from barycenter.fusion.encoders.pipeline import Pipeline

GPU = torch.cuda.is_available()
DEVICE, DTYPE = ("cuda", "bfloat16") if GPU else ("cpu", "float32")
THREADS = os.cpu_count() or 1
ROUNDS = 3
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = 30_000 if GPU else 2_000
# Deciles of tokens a text, by MiniLM's tokenizer.
LENGTHS = {
    "banking77": (9, 10, 11, 12, 13, 14, 16, 18, 24, 60),
    "recipes": (140, 210, 270, 330, 390, 450, 512, 512, 512, 512),
}
TEXTS = {"banking77": 200_000, "recipes": 20_000} if GPU else {"banking77": 400, "recipes": 20}
PIXELS = 20_000 if GPU else 32
JPEGS = 20_000 if GPU else 64
BERT = {} if GPU else {"num_hidden_layers": 2, "hidden_size": 128, "num_attention_heads": 2, "intermediate_size": 256}
VIT = {} if GPU else {"num_hidden_layers": 2, "hidden_size": 96, "num_attention_heads": 3, "intermediate_size": 192}
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}


def peak() -> float:
    """Floating-point operations a second of a large bf16 (on a CPU fp32) matrix product."""
    size = 8192 if GPU else 1024
    a, b = (torch.randn(size, size, device=DEVICE, dtype=getattr(torch, DTYPE)) for _ in range(2))
    seconds = min(timed(lambda: a @ b) for _ in range(20))
    return 2 * size**3 / seconds


def timed(step: Callable[[], object]) -> float:
    if GPU:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    step()
    if GPU:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def rate(rows: int, step: Callable[[], object]) -> float:
    return rows / harness.median([timed(step) for _ in range(ROUNDS)])


def transformer_operations(config: Any, length: int) -> float:
    """Multiplications and additions of one row of ``length`` tokens through an encoder's layers."""
    width, inner = config.hidden_size, config.intermediate_size
    dense = 2 * length * (4 * width**2 + 2 * width * inner)
    return float(config.num_hidden_layers * (dense + 4 * length**2 * width))


def bert(folder: Path) -> BertConfig:
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *(f"w{n}" for n in range(WORDS))])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        model_max_length=512,
    ).save_pretrained(folder)  # fmt: skip
    config = BertConfig(vocab_size=len(vocabulary), **BERT)
    BertModel(config).save_pretrained(folder)
    return config


def synthetic_texts(lengths: tuple[int, ...], count: int) -> list[str]:
    rng = random.Random(0)
    return [" ".join(f"w{rng.randrange(WORDS)}" for _ in range(rng.choice(lengths) - 2)) for _ in range(count)]


def texts(folder: Path, top: float) -> dict[str, Any]:
    config = bert(folder)
    encoder: Any = load(EncoderSpec("text", str(folder), dtype=DTYPE), device=DEVICE)
    harness.note(f"texts run {'without' if encoder.unpadded else 'with'} padding")
    found: dict[str, Any] = {}
    for name, lengths in LENGTHS.items():
        rows = synthetic_texts(lengths, TEXTS[name])
        with Pipeline(encoder, THREADS) as pipeline:
            batch = find_batch_size(pipeline, rows[:512])
            pipeline.embed(rows[:256], batch_size=batch)
            speed = rate(len(rows), lambda p=pipeline, r=rows, b=batch: p.embed(r, batch_size=b))
        operations = sum(transformer_operations(config, length) for length in lengths) / len(lengths)
        figures = {"rows_per_s": speed, "batch": batch, "mfu": speed * operations / top}
        found[name] = figures | {f"vs_{peer}": speed / theirs for peer, theirs in peers(folder, rows).items()}
        harness.note(f"bert, lengths of {name}: {found[name]}")
    return found


def peers(folder: Path, rows: list[str]) -> dict[str, float]:
    """Rows a second of sentence-transformers: fp32, and on a GPU fp16 (its own batch of 32 and a larger one)."""
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        harness.note("sentence-transformers is not installed")
        return {}
    rows = rows[: len(rows) // 4]
    speeds = {}
    for name, dtype in {"sentence_transformers_fp32": "float32", "sentence_transformers_fp16": "float16"}.items():
        if dtype == "float16" and not GPU:
            continue
        model = SentenceTransformer(str(folder), device=DEVICE, model_kwargs={"dtype": getattr(torch, dtype)})
        sizes = (32, 256) if GPU else (32,)
        speeds[name] = max(
            rate(len(rows), lambda m=model, s=size: m.encode(rows, batch_size=s, show_progress_bar=False))
            for size in sizes
        )
    return speeds


def vit(folder: Path, large: bool) -> tuple[EncoderSpec, float]:
    """ViT-B/16, or CLIP's ViT-L/14 with its projection, and its operations a picture."""
    if large:
        sizes = {"patch_size": 14, "projection_dim": 768, **(LARGE if GPU else VIT)}
        config: Any = CLIPVisionConfig(**sizes)
        CLIPVisionModelWithProjection(config).save_pretrained(folder)
    else:
        config = ViTConfig(**VIT)
        ViTModel(config, add_pooling_layer=False).save_pretrained(folder)
    processor = {
        "image_processor_type": "CLIPImageProcessor", "size": {"shortest_edge": 224}, "do_center_crop": True,
        "crop_size": {"height": 224, "width": 224}, "resample": 3, "do_normalize": True, "do_rescale": True,
        "image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.5, 0.5], "do_resize": True, "do_convert_rgb": True,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    patches = (224 // config.patch_size) ** 2
    stem = 2 * patches * 3 * config.patch_size**2 * config.hidden_size
    return EncoderSpec("image", str(folder), dtype=DTYPE), transformer_operations(config, patches + 1) + stem


def resnet(folder: Path) -> tuple[EncoderSpec, float]:
    file = folder / "resnet50.pth"
    torch.save(pictures.resnet50(weights=None).state_dict(), file)
    usual = Preprocessing(256, 224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return EncoderSpec("image", "torchvision/resnet50", str(file), usual, dtype=DTYPE), 8.2e9


def images(folder: Path, top: float) -> dict[str, Any]:
    jpegs = synthetic_jpegs()
    found = {}
    made = {"vit_b_16": lambda f: vit(f, False), "clip_vit_l_14": lambda f: vit(f, True), "resnet50": resnet}
    for name, make in made.items():
        place = folder / name
        place.mkdir()
        spec, operations = make(place)
        encoder: Any = load(spec, device=DEVICE)
        sample = [encoder.prepare(data) for data in jpegs[:64]]
        with Pipeline(encoder, THREADS) as pipeline:
            batch = find_batch_size(pipeline, jpegs[:64])
            pixels = rate(PIXELS, lambda p=pipeline, b=batch, s=sample: from_pixels(p, s, b))
            values = [jpegs[i % len(jpegs)] for i in range(JPEGS)]
            files = rate(JPEGS, lambda p=pipeline, v=values, b=batch: p.embed(v, batch_size=b))
        decode = THREADS * 64 / timed(lambda e=encoder: [e.prepare(data) for data in jpegs[:64]])
        found[name] = {
            "from_pixels_per_s": pixels, "from_jpegs_per_s": files, "decode_per_s": decode, "batch": batch,
            "mfu": pixels * operations / top, "vs_lower_of_both": files / min(pixels, decode),
        }  # fmt: skip
        harness.note(f"{name}: {found[name]}")
    return found


def from_pixels(pipeline: Pipeline, sample: list[Any], batch: int) -> None:
    """All pixels through the model, two batches for each of its threads at a time."""
    rows, under_way = [sample[i % len(sample)] for i in range(batch)], deque()
    for _ in range(max(1, PIXELS // batch)):
        under_way.append(pipeline.launch(rows))
        while len(under_way) >= 2 * pipeline.model_threads:
            pipeline.encoder.fetch(under_way.popleft().result().value)
    for launched in under_way:
        pipeline.encoder.fetch(launched.result().value)


def synthetic_jpegs() -> list[bytes]:
    """A few hundred smooth pictures of 500 x 375 pixels, as photographs on the web are."""
    rng, found = np.random.default_rng(0), []
    for _ in range(256 if GPU else 16):
        small = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
        out = io.BytesIO()
        small.resize((500, 375), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
        found.append(out.getvalue())
    return found * (1 if GPU else 4)


def main() -> None:
    torch.manual_seed(0)
    device = torch.cuda.get_device_name() if GPU else "CPU (small models: only to show that it runs)"
    top = peak()
    harness.note(f"{device}: {top / 1e12:.2f} TFLOP/s in {DTYPE}")
    with tempfile.TemporaryDirectory() as scratch:
        (Path(scratch) / "bert").mkdir()
        text, image = texts(Path(scratch) / "bert", top), images(Path(scratch), top)
    versions = harness.versions("torch", "transformers", "torchvision")
    harness.finish({"device": device, "peak_tflops": top / 1e12, "text": text, "image": image, "versions": versions})


if __name__ == "__main__":
    main()
