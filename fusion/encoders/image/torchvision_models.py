"""Any classification architecture of torchvision, cut before its classifier."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlparse

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode
from torchvision import models

from barycenter.fusion.encoders.base import Description, EncoderSpec
from barycenter.fusion.encoders.fingerprint import file_digest
from barycenter.fusion.encoders.image.encoder import ImageEncoder
from barycenter.fusion.encoders.image.transforms import Transform
from barycenter.fusion.errors import JobError

_PREFIX = "torchvision/"
_NESTED = ("state_dict", "model_state_dict", "model")
_PARALLEL_PREFIX = "module."


class _EmptyOnMeta(TorchFunctionMode):
    """Puts what ``torch.empty`` makes (the weights of layers) on the meta device, and nothing else.

    Some architectures compute with tensors while they are built, which a whole model on the meta device cannot.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        options = dict(kwargs or {})
        if func is torch.empty:
            options["device"] = "meta"
        return func(*args, **options)


@dataclass(frozen=True, slots=True)
class ClassifierLayer:
    """The layer of an architecture that gives the class scores, and what is cut off with it.

    Attributes:
        name: Path of the layer that produces the class scores.
        dim: Width of what reaches it, as the network without it returns.
        unused: Top-level parts that inference never runs (auxiliary classifiers).
    """

    name: str
    dim: int
    unused: tuple[str, ...]


def _build_without_weights(architecture: str, classes: int, size: tuple[int, int]) -> nn.Module:
    options: dict[str, Any] = {"init_weights": False} if architecture in ("googlenet", "inception_v3") else {}
    if architecture.startswith("vit_"):
        options["image_size"] = size[0]
    with _EmptyOnMeta():
        model: nn.Module = models.get_model(architecture, weights=None, num_classes=classes, **options)
    return model.eval()


def _without_normalizations(model: nn.Module) -> nn.Module:
    """The identity in place of every batch and layer normalization, for a run without data.

    They change no shape, and without data they are most of its time: torch runs each as a dozen operations in Python.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
            model.set_submodule(name, nn.Identity())
    return model


@lru_cache(maxsize=64)
def find_classifier(architecture: str, size: tuple[int, int]) -> ClassifierLayer:
    """Finds the classifier of an architecture by running it once without data.

    The last linear or convolutional layer that runs gives the class scores; put the identity in its place and the
    network returns its penultimate features.

    Args:
        architecture: Its name.
        size: (height, width) of its input.

    Raises:
        JobError: The layer that runs last does not give one score a class.
    """
    classes = 1000
    model = _without_normalizations(_build_without_weights(architecture, classes, size).to("meta"))
    executed: list[str] = []
    for name, module in model.named_modules():
        module.register_forward_hook(lambda _m, _i, _o, name=name: executed.append(name))
    blank = torch.empty(1, 3, *size, device="meta")
    model(blank)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    classifier = [name for name in executed if name in layers][-1]
    layer = layers[classifier]
    if classes not in (getattr(layer, "out_features", None), getattr(layer, "out_channels", None)):
        raise JobError(
            "encoder", f"torchvision/{architecture} does not end in a classifier that can be cut off; take another"
        )
    ran = {name.partition(".")[0] for name in executed}
    unused = tuple(child for child, _ in model.named_children() if child not in ran)
    model.set_submodule(classifier, nn.Identity())
    features: torch.Tensor = model(blank)
    return ClassifierLayer(classifier, int(features.flatten(1).shape[1]), unused)


@dataclass(frozen=True, slots=True)
class _Resolved:
    architecture: str
    file: Path
    transform: Transform
    classifier: ClassifierLayer


def _resolve(spec: EncoderSpec) -> _Resolved:
    architecture = (spec.encoder or "").removeprefix(_PREFIX)
    known = models.list_models(module=models)
    if architecture not in known:
        close = " or ".join(get_close_matches(architecture, known, n=3, cutoff=0.5))
        hint = f"; did you mean {close}?" if close else ""
        raise JobError("encoder", f"torchvision has no classification architecture {architecture!r}{hint}")
    library = models.get_model_weights(architecture)
    if spec.weights is None:
        preset = library.DEFAULT
        file = _downloaded(architecture, preset)
    else:
        preset = library["IMAGENET1K_V1"] if "IMAGENET1K_V1" in library.__members__ else library.DEFAULT
        file = Path(spec.weights).expanduser()
        if not file.is_file():
            raise JobError("weights", f"no such file: {spec.weights}; correct the path")
    transform = _from_preset(preset.transforms()).with_overrides(spec.preprocessing)
    try:
        return _Resolved(architecture, file, transform, find_classifier(architecture, transform.crop))
    except (RuntimeError, AssertionError, ValueError) as error:
        size = "x".join(map(str, transform.crop))
        raise JobError(
            "preprocessing", f"{spec.encoder} cannot read {size} pictures ({_first_line(error)}); choose another crop"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _from_preset(preset: Any) -> Transform:
    resample = {"nearest": 0, "bilinear": 2, "bicubic": 3}[preset.interpolation.value]
    resize, crop = int(preset.resize_size[0]), int(preset.crop_size[0])
    return Transform((resize, resize), False, (crop, crop), resample, tuple(preset.mean), tuple(preset.std))


def _downloaded(architecture: str, preset: Any) -> Path:
    """The library's weights file, fetched into torch's own cache when it is not there."""
    name = Path(urlparse(preset.url).path).name
    file = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            digest = name.rpartition("-")[2].partition(".")[0]
            torch.hub.download_url_to_file(preset.url, str(file), digest, progress=False)
        except (URLError, OSError, RuntimeError) as error:
            raise JobError(
                "weights",
                f"cannot download {preset.url} for torchvision/{architecture} ({_first_line(error)}); "
                "give a local .safetensors or .pth file",
            ) from None
    return file


def _read(file: Path, *, shapes_only: bool) -> dict[str, torch.Tensor]:
    """A weights file's tensors; with ``shapes_only`` on the meta device, reading headers alone."""
    try:
        if file.suffix == ".safetensors":
            if not shapes_only:
                return dict(load_file(file))
            with safe_open(file, framework="pt") as opened:
                return {key: torch.empty(opened.get_slice(key).get_shape(), device="meta") for key in opened.keys()}  # noqa: SIM118
        if file.suffix not in (".pth", ".pt"):
            raise JobError("weights", f"{file.name} is neither .safetensors nor .pth/.pt; give such a file")
        where = "meta" if shapes_only else "cpu"
        return _unwrapped(torch.load(file, map_location=where, weights_only=True), file)
    except JobError:
        raise
    except Exception as error:  # noqa: BLE001 - torch.load raises whatever its zip and pickle readers raise
        raise JobError(
            "weights", f"{file.name} cannot be read as weights ({_first_line(error)}); download it again"
        ) from None


def _unwrapped(loaded: Any, file: Path) -> dict[str, torch.Tensor]:
    """A state dict out of the wrappings that training scripts save it in."""
    for key in _NESTED:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(key), Mapping):
            loaded = loaded[key]
            break
    if not isinstance(loaded, Mapping) or not all(isinstance(value, torch.Tensor) for value in loaded.values()):
        raise JobError("weights", f"{file.name} holds no state dict; save the model's state_dict() and give that file")
    return {key.removeprefix(_PARALLEL_PREFIX): value for key, value in loaded.items()}


def _match_weights(resolved: _Resolved, state: dict[str, torch.Tensor]) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """A skeleton with the checkpoint's number of classes, and the part of the checkpoint that inference reads."""
    scores = state.get(f"{resolved.classifier.name}.weight")
    classes = int(scores.shape[0]) if scores is not None and scores.ndim else 1000
    model = _build_without_weights(resolved.architecture, classes, resolved.transform.crop)
    for part in resolved.classifier.unused:
        model.set_submodule(part, nn.Identity())
    kept = {key: value for key, value in state.items() if key.split(".")[0] not in resolved.classifier.unused}
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    optional = {key for key in expected if key.endswith("num_batches_tracked")}
    problems = [f"lacks {key}" for key in expected if key not in kept and key not in optional]
    problems += [f"has unknown {key}" for key in kept if key not in expected]
    problems += [
        f"{key} is {tuple(value.shape)} instead of {expected[key]}"
        for key, value in kept.items()
        if key in expected and tuple(value.shape) != expected[key]
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise JobError(
            "weights",
            f"{resolved.file.name} does not fit torchvision/{resolved.architecture}: {', '.join(problems[:3])}{more}; "
            "give weights of that architecture",
        )
    return model, kept


def describe(spec: EncoderSpec) -> Description:
    """Width and fingerprint of a torchvision encoder, from the weights file's header and a run without data.

    Raises:
        JobError: Unknown architecture, or weights that are missing, unreadable or do not fit.
    """
    resolved = _resolve(spec)
    _match_weights(resolved, _read(resolved.file, shapes_only=True))
    if spec.reproducible:
        load(spec, "cpu")
    return Description.of(
        resolved.classifier.dim,
        {
            "kind": "image",
            "encoder": spec.encoder,
            "weights": file_digest(resolved.file),
            "transform": resolved.transform.as_json(),
            "features": "penultimate",
            "dtype": spec.dtype,
            "engine": spec.engine,
            **({} if spec.reproducible is None else {"reproducible": spec.reproducible}),
        },
    )


def load_classifier(spec: EncoderSpec) -> tuple[nn.Module, Transform, ClassifierLayer]:
    """The whole network with its weights, classifier included, and its preprocessing."""
    resolved = _resolve(spec)
    model, state = _match_weights(resolved, _read(resolved.file, shapes_only=False))
    ready = OrderedDict((k, v.float() if v.is_floating_point() else v) for k, v in state.items())
    ready._metadata = model.state_dict()._metadata  # type: ignore[attr-defined] # layers read their version from it
    model.load_state_dict(ready, strict=False, assign=True)
    return model.requires_grad_(False), resolved.transform, resolved.classifier


def load(spec: EncoderSpec, device: str) -> ImageEncoder:
    """A torchvision network without its classifier, ready to encode."""
    model, transform, found = load_classifier(spec)
    model.set_submodule(found.name, nn.Identity())
    encoder = ImageEncoder(nn.Sequential(model, nn.Flatten(1)), transform, found.dim, spec, device)
    return encoder.make_reproducible(spec)
