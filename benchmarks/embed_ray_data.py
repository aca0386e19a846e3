"""Ray Data's recipes for batch inference, as its documentation has them: actors that hold the model, map_batches.

Rates leave out start-up: each batch notes when the model began and ended it, and the rate is over the span of all. What
was preprocessed while the model was loading counts for nothing, in the recipe's favor.
"""

import time
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy

import barycenter.fusion.torch_compat  # noqa: F401 - actors import this module before torchvision and transformers

TEXT_BATCH = 128
PICTURE_BATCH = 16

ray.data.DataContext.get_current().enable_progress_bars = False


class EmbedTexts:
    def __init__(self, model: str) -> None:
        from sentence_transformers import SentenceTransformer

        self._model = SentenceTransformer(model, device="cpu")

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        begun = time.time()
        vectors = self._model.encode(list(batch["text"]), show_progress_bar=False)
        return {"vector": vectors, "begun": [begun] * len(vectors), "ended": [time.time()] * len(vectors)}


class EmbedPictures:
    def __init__(self, weights: str) -> None:
        import torch
        from safetensors.torch import load_file
        from torchvision.models import mobilenet_v2

        model = mobilenet_v2(weights=None)
        model.load_state_dict(load_file(weights))
        model.classifier = torch.nn.Identity()
        self._model = model.eval()

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import torch

        begun = time.time()
        with torch.inference_mode():
            vectors = self._model(torch.as_tensor(batch["pixels"])).numpy()
        return {"vector": vectors, "begun": [begun] * len(vectors), "ended": [time.time()] * len(vectors)}


def preprocess(row: dict[str, Any]) -> dict[str, Any]:
    from PIL import Image
    from torchvision.transforms._presets import ImageClassification

    return {"pixels": ImageClassification(crop_size=224)(Image.fromarray(row["image"])).numpy()}


def _rate(embedded: Any) -> float:
    times = embedded.select_columns(["begun", "ended"]).to_pandas()
    return float(len(times) / (times["ended"].max() - times["begun"].min()))


def embed_column(texts: list[str], model: str, cores: int) -> float:
    """Rows a second of an actor a core, each with one thread."""
    rows = ray.data.from_items([{"text": text} for text in texts], override_num_blocks=4 * cores)
    pool = ActorPoolStrategy(size=cores)
    options: dict[str, Any] = {"fn_constructor_args": (model,), "batch_size": TEXT_BATCH, "compute": pool}
    return _rate(rows.map_batches(EmbedTexts, **options))


def embed_files(paths: list[str], weights: str, cores: int) -> float:
    """Rows a second: pictures read and preprocessed by tasks, embedded by actors, half of the cores for each."""
    pictures = ray.data.read_images(paths, mode="RGB", override_num_blocks=4 * cores)
    pool = ActorPoolStrategy(size=max(1, cores // 2))
    options: dict[str, Any] = {"fn_constructor_args": (weights,), "batch_size": PICTURE_BATCH, "compute": pool}
    return _rate(pictures.map(preprocess).map_batches(EmbedPictures, **options))
