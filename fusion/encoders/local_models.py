"""Pretrained models that lie on this machine, found by the files of their folders: neither torch nor a network."""

import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin", "*/*.safetensors", "*/pytorch_model*.bin")
_TEXT_MODELS = frozenset(
    {"albert", "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "modernbert", "mpnet",
     "nomic_bert", "roberta", "xlm-roberta", "xlm-roberta-xl"}
)  # fmt: skip
_IMAGE_MODELS = frozenset(
    {"beit", "clip_vision_model", "convnext", "convnextv2", "data2vec-vision", "deit", "dinov2",
     "dinov2_with_registers", "dinov3_convnext", "dinov3_vit", "resnet", "siglip_vision_model", "swin", "swinv2", "vit"}
)  # fmt: skip
_MODELS_OF_BOTH = frozenset({"clip", "siglip", "siglip2"})
_ARCHITECTURE = re.compile(
    r"(alexnet|convnext|densenet|efficientnet|googlenet|inception|maxvit|mnasnet|mobilenet|regnet|resnet|resnext"
    r"|shufflenet|squeezenet|swin|vgg|vit|wide_resnet)\w*"
)


@dataclass(frozen=True, slots=True)
class LocalModel:
    """A model on this machine.

    Attributes:
        kinds: What it encodes.
        encoder: Hub id, absolute folder, or ``torchvision/<architecture>``.
        folder: Where its files lie.
        weights: Weights file of a torchvision architecture, else None.
        bytes: Size of its weights.
        sentences: Whether it was made to give one vector a text (sentence-transformers).
    """

    kinds: frozenset[Literal["text", "image"]]
    encoder: str
    folder: Path
    weights: Path | None
    bytes: int
    sentences: bool = False


def cached_models() -> list[LocalModel]:
    """Models in the Hugging Face hub's cache whose newest snapshot is there, in the order of their names."""
    from huggingface_hub import constants

    found: list[LocalModel] = []
    for repository in sorted(Path(constants.HF_HUB_CACHE).glob("models--*")):
        try:
            commit = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            continue
        name = repository.name.removeprefix("models--").replace("--", "/")
        found += filter(None, [_model(repository / "snapshots" / commit, name)])
    return found


def models_near(places: Iterable[Path]) -> list[LocalModel]:
    """Models in folders right below some places or below their ``models`` and ``weights`` folders, by path.

    A file of weights named like an architecture of torchvision counts, too: ``weights/mobilenet_v2.safetensors``.
    """
    found: dict[Path, LocalModel] = {}
    for place in dict.fromkeys(path.absolute() for path in places):
        for folder in [*_folders(place), *_below(place / "models"), *_below(place / "weights")]:
            if (model := _model(folder, str(folder))) is not None:
                found.setdefault(folder, model)
            else:
                found |= {weights.weights or folder: weights for weights in _torchvision_weights(folder)}
    return [found[path] for path in sorted(found)]


def _below(folder: Path) -> Iterator[Path]:
    """Yields a folder and those one and two levels below it, as many as are there."""
    yield folder
    for child in _folders(folder):
        yield child
        yield from _folders(child)


def _folders(place: Path) -> list[Path]:
    try:
        with os.scandir(place) as found:
            return sorted(Path(entry.path) for entry in found if entry.is_dir() and not entry.name.startswith("."))
    except OSError:
        return []


def _model(folder: Path, encoder: str) -> LocalModel | None:
    """The transformers or sentence-transformers model in a folder; None where none is, or not all of it."""
    modules, config = _read_json(folder / "modules.json"), _read_json(folder / "config.json")
    if isinstance(modules, list) and modules:
        first = str(modules[0].get("type", "")) if isinstance(modules[0], dict) else ""
        kinds = _kinds("clip" if first.endswith("CLIPModel") else "bert")
    elif isinstance(config, dict):
        kinds = _kinds(str(config.get("model_type")))
    else:
        return None
    size = sum(path.stat().st_size for pattern in _WEIGHTS for path in folder.glob(pattern) if path.is_file())
    if not kinds or not size:
        return None
    return LocalModel(kinds, encoder, folder, None, size, sentences=bool(modules))


def _kinds(model_type: str) -> frozenset[Literal["text", "image"]]:
    if model_type in _MODELS_OF_BOTH:
        return frozenset({"text", "image"})
    if model_type in _TEXT_MODELS:
        return frozenset({"text"})
    return frozenset({"image"}) if model_type in _IMAGE_MODELS else frozenset()


def _torchvision_weights(folder: Path) -> Iterator[LocalModel]:
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.pth")]):
        architecture = path.stem.partition("-")[0]
        if _ARCHITECTURE.fullmatch(architecture) and path.is_file():
            yield LocalModel(frozenset({"image"}), f"torchvision/{architecture}", folder, path, path.stat().st_size)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
