"""Every picture architecture of transformers that builds a small model, held against what the library itself gives."""

import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

import barycenter.fusion.torch_compat  # noqa: F401 - first: transformers' import needs it
from barycenter.fusion.encoders import EncoderSpec, Preprocessing, describe, load
from barycenter.fusion.encoders.image.encoder import ImageEncoder, Standardize
from barycenter.fusion.errors import JobError
from tests.fusion.encoders.conftest import drawn, encoded
from tests.sweep import tiny_vision

EQUAL, REFUSED, DIFFERS, NOT_BUILT = "equal", "refused", "differs", "not built"
TOLERANCE = 1e-4
_GIVEN = Preprocessing(72, 64, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
_PICTURES = tuple(drawn(90 + 9 * i, 140 - 9 * i, i) for i in range(4))


class Row(NamedTuple):
    """What came of one architecture."""

    name: str
    outcome: str
    detail: str


def transformers_row(kind: str, folder: Path) -> Row:
    """Builds, saves, loads and compares one model type."""
    try:
        tiny_vision.build(kind, folder)
    except Exception as error:  # noqa: BLE001 - whatever a model's own code raises
        return Row(kind, NOT_BUILT, _line(error))
    first = _compared(kind, folder, None)
    if first.outcome == REFUSED and first.detail.startswith(("preprocessing", "encoder: it does not read pictures of")):
        second = _compared(kind, folder, _GIVEN)
        if second.outcome != REFUSED:
            return second._replace(detail=f"{second.detail}; `preprocessing` must be given: {first.detail}")
        first = second
    if first.outcome == REFUSED and (cause := _library_fails(folder)):
        return Row(kind, NOT_BUILT, f"the library itself gives no vector: {cause}")
    return first


def _library_fails(folder: Path) -> str | None:
    """What the library says to two pictures, if it cannot encode them either."""
    try:
        _own_inputs(folder)
        return None
    except Exception:  # noqa: BLE001 - whatever a model's own code raises; then with pixels alone
        pass
    try:
        reference(folder, torch.rand(2, 3, tiny_vision.EDGE, tiny_vision.EDGE))
    except Exception as error:  # noqa: BLE001 - see above
        return _line(error)
    return None


@torch.inference_mode()
def _own_inputs(folder: Path) -> None:
    """Runs the model on what its own image processor makes of two pictures."""
    from transformers import AutoImageProcessor, AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    inputs = AutoImageProcessor.from_pretrained(folder)(
        images=[drawn(64, 64, 0), drawn(64, 64, 1)], return_tensors="pt"
    )
    getattr(model, "get_image_features", model)(**inputs)


def _compared(kind: str, folder: Path, given: Preprocessing | None) -> Row:
    spec = EncoderSpec("image", str(folder), preprocessing=given)
    try:
        described = describe(spec)
        encoder = load(spec)
    except JobError as error:
        return Row(kind, REFUSED, str(error).replace(str(folder), "it"))
    assert isinstance(encoder, ImageEncoder)
    prepared = [encoder.prepare(encoded(picture)) for picture in _PICTURES]
    ours = Standardize(encoder.transform)(torch.from_numpy(np.stack(prepared)))
    pixels = _pixels(folder) if given is None else ours
    theirs, part = reference(folder, pixels)
    part = f"{described.fingerprint['features']}" if part is None else part
    gaps = [
        gap(theirs, encoder.encode(prepared)),
        gap(theirs, np.concatenate([encoder.encode([p]) for p in prepared])),
    ]
    if described.dim != theirs.shape[1]:
        return Row(kind, DIFFERS, f"width {described.dim} instead of {theirs.shape[1]} ({part})")
    return Row(kind, EQUAL if max(gaps) <= TOLERANCE else DIFFERS, f"{part}, to {max(gaps):.0e}")


def _pixels(folder: Path) -> torch.Tensor:
    """(n, 3, h, w) that the model's own image processor makes of the pictures."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    return torch.cat([processor(images=picture, return_tensors="pt")["pixel_values"] for picture in _PICTURES])


def gap(theirs: "np.ndarray[Any, Any]", ours: "np.ndarray[Any, Any]") -> float:
    """Largest difference of two vectors of a picture, relative to its length."""
    if theirs.shape != ours.shape:
        return float("inf")
    lengths = np.maximum(np.linalg.norm(theirs, axis=1), 1e-12)
    return float((np.linalg.norm(theirs - ours, axis=1) / lengths).max())


@torch.inference_mode()
def reference(folder: Path, pixels: torch.Tensor) -> tuple["np.ndarray[Any, Any]", str | None]:
    """The library's own pooled features, each picture by itself, and what they are.

    The embedding of a picture tower; else the pooled output; else what the library's own classifier reads; else the
    mean of the last states.
    """
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder).eval()
    if model.config.model_type.startswith("siglip2"):
        return _of_patches(model, folder)
    found, parts = [], set()
    for picture in pixels:
        vector, part = _own(model, picture[None].contiguous(), folder)
        found.append(vector.flatten(1))
        parts.add(part)
    return torch.cat(found).float().numpy(), parts.pop()


def _of_patches(model: Any, folder: Path) -> tuple["np.ndarray[Any, Any]", str]:
    """What SigLIP 2 gives for the pictures of the sweep, each cut into patches by its own processor."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    run = getattr(model, "get_image_features", model)
    outputs = [run(**processor(images=picture, return_tensors="pt")).pooler_output for picture in _PICTURES]
    return torch.cat(outputs).numpy(), "picture tower"


def _own(model: Any, picture: torch.Tensor, folder: Path) -> tuple[torch.Tensor, str]:
    if hasattr(model, "get_image_features"):
        output = model.get_image_features(pixel_values=picture)
        vector = output if isinstance(output, torch.Tensor) else output.pooler_output
        if vector.ndim == 3 and model.config.model_type == "flava":
            return vector[:, 0], "picture tower"
        return (vector if vector.ndim == 2 else vector.mean(dim=1)), "picture tower"
    if model.config.model_type == "vit_mae":
        return _unmasked(model, picture), "class token of all patches"
    output = model(pixel_values=picture)
    if getattr(output, "pooler_output", None) is not None:
        return output.pooler_output, "pooled output"
    if getattr(output, "cls_token_value", None) is not None:
        return output.cls_token_value[:, 0], "class token"
    read = _read_by_classifier(model, folder, picture)
    if read is not None:
        return read, "what its classifier reads"
    if "feature_maps" in output:
        return output.feature_maps[-1].mean(dim=(2, 3)), "mean of the last feature map"
    states = output.last_hidden_state
    return states.mean(dim=1 if states.ndim == 3 else (2, 3)), "mean of the last states"


def _unmasked(model: Any, picture: torch.Tensor) -> torch.Tensor:
    """The encoder of a masked autoencoder run by its parts, without the step that hides patches."""
    embeddings = model.embeddings
    patches = embeddings.patch_embeddings(picture) + embeddings.position_embeddings[:, 1:]
    start = (embeddings.cls_token + embeddings.position_embeddings[:, :1]).expand(len(picture), -1, -1)
    states = torch.cat([start, patches], dim=1)
    for layer in model.encoder.layer if hasattr(model, "encoder") else model.layers:
        states = layer(states)
        states = states[0] if isinstance(states, tuple) else states
    return model.layernorm(states)[:, 0]


def _read_by_classifier(model: Any, folder: Path, picture: torch.Tensor) -> torch.Tensor | None:
    """Input of the last linear layer of the type's image classifier.

    None where there is no such classifier, or it has weights of its own before that layer, which the model lacks.
    """
    from transformers import AutoModelForImageClassification

    try:
        classifier = AutoModelForImageClassification.from_pretrained(folder).eval()
    except Exception:  # noqa: BLE001 - there is none
        return None
    own = [name for name, _ in classifier.named_parameters() if not name.startswith(f"{classifier.base_model_prefix}.")]
    if any(name.startswith("norm.") for name in own):
        return None
    seen: list[torch.Tensor] = []
    for module in classifier.modules():
        if isinstance(module, nn.Linear):
            module.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0]))
    classifier(pixel_values=picture)
    return seen[-1] if seen and seen[-1].ndim == 2 else None


def _line(error: Exception) -> str:
    text = next((line for line in str(error).strip().splitlines() if line.strip()), type(error).__name__)
    return text[:160]


def rows(kinds: list[str] | None = None) -> Iterator[Row]:
    """What came of each model type, in order.

    Args:
        kinds: Some of :func:`tests.sweep.tiny_vision.architectures`; None: all.
    """
    warnings.simplefilter("ignore")
    for kind in kinds or tiny_vision.architectures():
        with tempfile.TemporaryDirectory() as folder:
            try:
                yield transformers_row(kind, Path(folder))
            except Exception as error:  # noqa: BLE001 - shown in the table
                yield Row(kind, DIFFERS, f"fails: {type(error).__name__}: {_line(error)}")
