"""Does a row get the same bytes alone, in twos, shuffled, in full batches, on one and two threads, and at what price?

The encoders: the built-in ones, MiniLM, MobileNetV2, torchvision's usual networks and small models of the sweep's
architectures with random weights. The price is process CPU seconds of the encoder as it is loaded now against one with
``reproducible: false`` (texts padded, pictures in the best of several batches), medians of interleaved rounds, and for
MiniLM also of skewed lengths and of shards of 64 rows. Where bytes differ: the greatest difference of a number.
"""

import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}

import barycenter.fusion.torch_compat  # noqa: F401 - before torchvision and transformers
from benchmarks import harness

# isort: split

import numpy as np
import torch
from safetensors.torch import save_file
from torchvision import models

from barycenter.fusion.encoders import Encoder, EncoderSpec, load
from barycenter.fusion.encoders.pipeline import Pipeline, embed
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import drawn, encoded
from tests.sweep import sizes, tiny, tiny_vision

ROUNDS = 5
SHARD = 64
TOKENS, PICTURES = (1024, 2048), (2, 4, 8, 16)
TEXT_TYPES = ("albert", "bert", "deberta-v2", "distilbert", "electra", "gpt2", "llama", "mistral", "modernbert",
              "mpnet", "qwen2", "roberta", "t5", "xlm-roberta", "xlnet", "clip", "siglip", "mamba")  # fmt: skip
PICTURE_TYPES = ("clip_vision_model", "convnext", "deit", "dinov2", "resnet", "siglip_vision_model", "swin", "vit")
TORCHVISION = ("resnet18", "resnet50", "vit_b_16")


def bytes_equal(encoder: Encoder, rows: Sequence[object]) -> tuple[bool, float]:
    """Whether rows get the same bytes in every way they come, and the greatest difference of a number."""

    def vectors(chosen: Sequence[int], size: int, threads: int) -> Any:
        return embed(encoder, [rows[row] for row in chosen], batch_size=size, threads=threads).vectors

    largest = encoder.batch_sizes[-1]
    everything = list(range(len(rows)))
    whole = vectors(everything, largest, 1)
    shuffled = random.Random(0).sample(everything, len(rows))
    few = everything[:: max(1, len(rows) // 8)]
    found = [(vectors([row], largest, 1), [row]) for row in few]
    found += [(vectors([row, (row + 1) % len(rows)], largest, 1), [row, (row + 1) % len(rows)]) for row in few]
    found += [(vectors(shuffled, size, threads), shuffled) for size in encoder.batch_sizes[::3] for threads in (1, 2)]
    gap = max(float(np.abs(vector - whole[places]).max()) for vector, places in found)
    return all(vector.tobytes() == whole[places].tobytes() for vector, places in found), gap


def price(
    new: Encoder, old: Encoder, rows: Sequence[object], batches: Sequence[int], shard: int | None = None
) -> float:
    """CPU seconds of one against the other's, each at its best batch: medians of interleaved rounds."""
    step = shard or len(rows)

    def seconds(pipeline: Pipeline, size: int) -> float:
        start = time.process_time()
        for first in range(0, len(rows), step):
            pipeline.embed(rows[first : first + step], batch_size=size)
        return time.process_time() - start

    with Pipeline(new, 1) as ours, Pipeline(old, 1) as theirs:
        taken: dict[tuple[int, int], list[float]] = {}
        for _ in range(ROUNDS):
            for number, pipeline in enumerate((ours, theirs)):
                for size in batches if number or len(new.batch_sizes) > 1 else new.batch_sizes:
                    taken.setdefault((number, size), []).append(seconds(pipeline, size))
    medians = {key: statistics.median(values) for key, values in taken.items()}
    best = [min(value for (number, _), value in medians.items() if number == side) for side in (0, 1)]
    return best[0] / best[1]


def figures(
    name: str, spec: Callable[[bool | None], EncoderSpec], rows: Sequence[object], batches: Sequence[int] = ()
) -> dict[str, Any]:
    """What is found of one encoder."""
    encoder = load(spec(None))
    equal, gap = bytes_equal(encoder, rows)
    row = {
        "encoder": name,
        "reproducible": encoder.reproducible,
        "equal": equal,
        "greatest difference": gap,
        "n": len(rows),
    }
    row["price"] = price(encoder, load(spec(False)), rows, batches) if batches else None
    row["asked for"] = None
    if not encoder.reproducible:
        try:
            asked = load(spec(True))
            row["asked for"] = "equal" if bytes_equal(asked, rows)[0] else "differs"
            row["price"] = price(asked, encoder, rows, batches) if batches else None
        except JobError:
            row["asked for"] = "refused"
    harness.note(row)
    return row


def skewed(texts: Sequence[str], n: int) -> list[str]:
    """Texts of which most are short and some fill the model."""
    words, draw = " ".join(texts).split(), np.random.default_rng(0)
    return [" ".join(draw.choice(words, int(min(300, 1 + draw.pareto(1.0) * 6)))) for _ in range(n)]


def minilm() -> Iterator[dict[str, Any]]:
    """MiniLM on questions, on skewed lengths, and on shards of 64 rows."""
    from benchmarks.embed_texts import mixed_texts

    def spec(asked: bool | None) -> EncoderSpec:
        return EncoderSpec("text", str(harness.minilm()), reproducible=asked)

    texts = mixed_texts()[:256]
    uneven = skewed(texts, 192)
    yield figures("MiniLM, questions and recipes", spec, texts, TOKENS)
    for name, rows, shard in (("skewed lengths", uneven, None), (f"skewed, shards of {SHARD}", uneven, SHARD)):
        ratio = price(load(spec(None)), load(spec(False)), rows, TOKENS, shard)
        yield {"encoder": f"MiniLM, {name}", "price": ratio, "n": len(rows)}
        harness.note(name, ratio)


def torchvision(folder: Path) -> Iterator[dict[str, Any]]:
    """MobileNetV2 with its weights, others with random ones."""
    pictures = [encoded(drawn(224, 224, number)) for number in range(32)]
    weights = {"mobilenet_v2": harness.shared("weights/mobilenet_v2/mobilenet_v2.safetensors")}
    for name in TORCHVISION:
        torch.manual_seed(0)
        weights[name] = folder / f"{name}.safetensors"
        save_file(models.get_model(name, weights=None).state_dict(), weights[name])
    for name, file in weights.items():

        def spec(asked: bool | None, name: str = name, file: Path = file) -> EncoderSpec:
            return EncoderSpec("image", f"torchvision/{name}", weights=str(file), reproducible=asked)

        rows = pictures if name != "vit_b_16" else pictures[:16]
        yield figures(name, spec, rows, PICTURES)


def small_models(folder: Path) -> Iterator[dict[str, Any]]:
    """Small models of the sweep's architectures; too small for a price."""
    from transformers import CONFIG_MAPPING, AutoModel

    words = ("a", "red", "crab", "boat", "near", "the", "house")
    texts = [" ".join(random.Random(n).choices(words, k=1 + n % 13)) for n in range(40)]
    pictures = [encoded(drawn(90, 80, number)) for number in range(13)]
    for kind, name in [*(("text", name) for name in TEXT_TYPES), *(("image", name) for name in PICTURE_TYPES)]:
        place = folder / f"{kind}-{name}"
        try:
            if kind == "image":
                tiny_vision.build(name, place)
            else:
                tiny.build(AutoModel, next(sizes.configs(CONFIG_MAPPING[name]))(), place)
                tiny.save_tokenizer(place)

            def spec(asked: bool | None, kind: Any = kind, place: Path = place) -> EncoderSpec:
                return EncoderSpec(kind, str(place), reproducible=asked)

            yield figures(f"{kind}: {name}", spec, texts if kind == "text" else pictures)
        except Exception as error:  # noqa: BLE001 - whatever a model's own code raises
            harness.note(f"{kind}: {name} is not built: {type(error).__name__}: {str(error)[:120]}")


def main() -> None:
    """Prints the table and the figures."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    pictures = [encoded(drawn(120, 90, number)) for number in range(13)]
    texts = [f"a red crab {number}" * (number % 5 + 1) for number in range(40)]
    with tempfile.TemporaryDirectory() as folder:
        rows = [
            figures("builtin/hashing", lambda _: EncoderSpec("text", "builtin/hashing"), texts),
            figures("builtin/descriptor", lambda _: EncoderSpec("image", "builtin/descriptor"), pictures),
            *small_models(Path(folder)),
            *minilm(),
            *torchvision(Path(folder)),
        ]
    names = ("encoder", "reproducible", "equal", "greatest difference", "price", "asked for", "n")
    harness.table([{name: row.get(name) for name in names} for row in rows])
    wrong = [row["encoder"] for row in rows if row.get("reproducible") and not row["equal"]]
    harness.finish({"rounds": ROUNDS, "wrong": wrong, "encoders": rows, **harness.versions("torch", "transformers")})


if __name__ == "__main__":
    main()
