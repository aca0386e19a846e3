"""Ray Data's recipes for batch inference, as its documentation has them: actors that hold the model, map_batches.

Rates leave out start-up: each batch notes when the model began and ended it, and the rate is over the span of all. What
was preprocessed while the model was loading counts for nothing, in the recipe's favor. How many actors and rows a batch
is found by a trial of each on a part of the rows.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray.data import ActorPoolStrategy

import barycenter.fusion.torch_compat  # noqa: F401 - actors import this module before torchvision and transformers
from benchmarks import harness

ray.data.DataContext.get_current().enable_progress_bars = False


@dataclass(frozen=True)
class Way:
    """How a recipe runs."""

    actors: int
    batch: int

    def __str__(self) -> str:
        return f"{self.actors} actor{'s' * (self.actors > 1)}, batches of {self.batch}"


def text_ways(cores: int) -> list[Way]:
    """One actor with all cores, or an actor a core."""
    return [Way(actors, batch) for actors in sorted({1, cores}) for batch in (32, 128)]


def picture_ways(cores: int) -> list[Way]:
    """Actors on half of the cores; the other half decodes."""
    return [Way(actors, batch) for actors in sorted({1, cores}) for batch in (4, 16, 32)]


def best_way(name: str, ways: Iterable[Way], rate: Callable[[Way], float]) -> Way:
    """The fastest."""
    rates = {way: rate(way) for way in ways}
    best = max(rates, key=lambda way: rates[way])
    harness.note(f"{name}: { ({str(way): round(each) for way, each in rates.items()}) }; {best} taken")
    return best


class EmbedTexts:
    def __init__(self, model: str, batch: int) -> None:
        from sentence_transformers import SentenceTransformer

        self._model, self._batch = SentenceTransformer(model, device="cpu"), batch

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        begun = time.time()
        vectors = self._model.encode(list(batch["text"]), batch_size=self._batch, show_progress_bar=False)
        return {"vector": vectors, "begun": [begun] * len(vectors), "ended": [time.time()] * len(vectors)}


class EmbedPictures:
    def __init__(self, weights: str) -> None:
        import torch
        from safetensors.torch import load_file
        from torchvision.models import mobilenet_v2

        model = mobilenet_v2(weights=None)
        model.load_state_dict(load_file(weights))
        model.classifier = torch.nn.Identity()
        self._model = model.eval().to(memory_format=torch.channels_last)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        import torch

        begun = time.time()
        with torch.inference_mode():
            pixels = torch.as_tensor(batch["pixels"]).to(memory_format=torch.channels_last)
            vectors = self._model(pixels).numpy()
        return {"vector": vectors, "begun": [begun] * len(vectors), "ended": [time.time()] * len(vectors)}


def preprocess(row: dict[str, Any]) -> dict[str, Any]:
    from PIL import Image
    from torchvision.transforms._presets import ImageClassification

    return {"pixels": ImageClassification(crop_size=224)(Image.fromarray(row["image"])).numpy()}


def _rate(embedded: Any) -> float:
    times = embedded.select_columns(["begun", "ended"]).to_pandas()
    return float(len(times) / (times["ended"].max() - times["begun"].min()))


def embed_column(texts: list[str], model: str, cores: int, way: Way) -> float:
    """Rows a second; the actors share the cores."""
    rows = ray.data.from_items([{"text": text} for text in texts], override_num_blocks=4 * cores)
    options: dict[str, Any] = {"fn_constructor_args": (model, min(way.batch, 32)), "batch_size": way.batch}
    options |= {"compute": ActorPoolStrategy(size=way.actors), "num_cpus": cores / way.actors}
    return _rate(rows.map_batches(EmbedTexts, **options))


def embed_files(paths: list[str], weights: str, cores: int, way: Way) -> float:
    """Rows a second: pictures read and preprocessed by tasks, embedded by actors, half of the cores for each."""
    pictures = ray.data.read_images(paths, mode="RGB", override_num_blocks=4 * cores)
    options: dict[str, Any] = {"fn_constructor_args": (weights,), "batch_size": way.batch}
    options |= {"compute": ActorPoolStrategy(size=way.actors), "num_cpus": cores / 2 / way.actors}
    return _rate(pictures.map(preprocess).map_batches(EmbedPictures, **options))
