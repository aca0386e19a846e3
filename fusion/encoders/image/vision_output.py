"""One vector a picture out of what a vision model of transformers returns."""

import inspect
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import nn

from barycenter.fusion.encoders.image.patches import as_patches
from barycenter.fusion.encoders.sentence_config import TOKEN_EMBEDDINGS, SentenceConfig
from barycenter.fusion.encoders.sentence_modules import MASK, POOLED_MASK, load_modules
from barycenter.fusion.errors import JobError

_CLASS_TOKENS = ("cls_token", "class_embedding", "class_token")


class VisionModel(nn.Module):
    """A vision model that returns one vector a picture.

    Towers give their projected embedding. Other models give their pooled output where the checkpoint has all its
    weights, else the last state of the class token if they have and use one, else the mean over patches or the
    feature map.
    A model that hides patches at random (masked autoencoders) is shown all of them, in order.

    Attributes:
        used_output: After a run, which part of the model's output the vectors were.

    Args:
        model: A vision model, or one with a picture tower (``get_image_features``), in eval mode.
        trust_pooler: Whether the pooled output is made of stored weights.
    """

    def __init__(self, model: nn.Module, *, trust_pooler: bool) -> None:
        super().__init__()
        self.model = model
        self.used_output = ""
        self.tower = hasattr(model, "get_image_features")
        self.trust_pooler = trust_pooler or self.tower
        self.class_token = _has_class_token(model)
        self.mean_pooling = bool(getattr(getattr(model, "config", None), "use_mean_pooling", False))
        self.patches = _disable_random_masking(model)
        self.takes_patches = reads_patches(model)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, dim)."""
        return self._vector(self._run(pictures))

    def tokens(self, pictures: torch.Tensor) -> torch.Tensor:
        """The last states, (n, 3, h, w) to (n, tokens, width), for a Pooling module; JobError where there are none."""
        output = self._run(pictures)
        states = output.pooler_output if self.tower else output.last_hidden_state
        if not isinstance(states, torch.Tensor) or states.ndim != 3:
            raise JobError(
                "encoder",
                f"its Pooling module needs tokens and {type(self.model).__name__} gives none; take another encoder",
            )
        self.used_output = "tokens"
        return states

    def _run(self, pictures: torch.Tensor) -> Any:
        run: Any = self.model.get_image_features if self.tower else self.model
        if self.takes_patches:
            return run(**as_patches(pictures))
        if self.patches is None:
            return run(pixel_values=pictures)
        order = torch.arange(self.patches, dtype=torch.float32, device=pictures.device)
        return run(pixel_values=pictures, noise=order.expand(pictures.shape[0], -1))

    def _choose_output(self, output: Any) -> str:
        """Which part of a model's output is its vector, a fixed word."""
        if isinstance(output, torch.Tensor) or getattr(output, "image_embeds", None) is not None:
            return "embedding"
        if getattr(output, "cls_token_value", None) is not None:
            return "class token beside the map"
        states = getattr(output, "last_hidden_state", None)
        pooled = getattr(output, "pooler_output", None) if self.trust_pooler else None
        if isinstance(pooled, torch.Tensor):
            every_state = states is not None and states.ndim == 3 and pooled.shape[:2] == states.shape[:2]
            return "pooled class token" if every_state and pooled.ndim == 3 and self.class_token else "pooled"
        if states is None and getattr(output, "feature_maps", None):
            return "mean of the last map"
        if not isinstance(states, torch.Tensor):
            raise JobError(
                "encoder",
                f"{type(self.model).__name__} returns neither pooled nor last states; take another encoder",
            )
        if states.ndim != 3 or not self.class_token:
            return "mean"
        return "mean without class token" if self.mean_pooling else "class token"

    def _vector(self, output: Any) -> torch.Tensor:
        self.used_output = kind = self._choose_output(output)
        if kind == "embedding":
            return _to_one_vector(output if isinstance(output, torch.Tensor) else output.image_embeds)
        if kind == "class token beside the map":
            return _to_one_vector(output.cls_token_value)
        if kind == "mean of the last map":
            return _to_one_vector(output.feature_maps[-1])
        values: torch.Tensor = output.pooler_output if kind.startswith("pooled") else output.last_hidden_state
        if kind == "pooled" and values.ndim == 4:
            return values.flatten(1)
        if kind == "mean without class token":
            return values[:, 1:].mean(dim=1)
        return values[:, 0] if kind.endswith("class token") else _to_one_vector(values)


class VisionModelWithModules(nn.Module):
    """Features of a picture followed by the modules of a sentence encoder's folder, which compute in float32."""

    def __init__(self, features: VisionModel, settings: SentenceConfig) -> None:
        super().__init__()
        self.features = features
        self.steps = load_modules(settings)
        self.pooling = bool(settings.pooling_modes)

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> "VisionModelWithModules":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self.steps.float()
        return self

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(n, 3, h, w) to (n, dim)."""
        if not self.pooling:
            return cast(torch.Tensor, self.steps(self.features(pictures)))
        tokens = self.features.tokens(pictures)
        mask = torch.ones(tokens.shape[:2], dtype=torch.long, device=tokens.device)
        if self.features.takes_patches:
            mask = as_patches(pictures)["pixel_attention_mask"]
        return self.steps.run({TOKEN_EMBEDDINGS: tokens, MASK: mask, POOLED_MASK: mask})


def reads_patches(model: nn.Module) -> bool:
    """Whether a model reads rows of patches with the shape of each picture (SigLIP 2's NaFlex)."""
    run: Any = getattr(model, "get_image_features", model.forward)
    return {"pixel_attention_mask", "spatial_shapes"} <= set(inspect.signature(run).parameters)


def _has_class_token(model: nn.Module) -> bool:
    """Whether the first of the last states is a class token; that of a detector's backbone is not among them."""
    names = [name.split(".") for name, _ in model.named_parameters()]
    return any(parts[-1] in _CLASS_TOKENS and "backbone" not in parts for parts in names)


def _to_one_vector(values: torch.Tensor) -> torch.Tensor:
    """(n, dim) as it is, the mean over tokens of (n, t, dim), the mean over the map of (n, dim, h, w)."""
    if not isinstance(values, torch.Tensor) or values.ndim not in (2, 3, 4):
        raise JobError(
            "encoder",
            "the model gives neither one vector a picture nor states that have a mean; take another encoder",
        )
    if values.ndim == 3:
        return values.mean(dim=1)
    return values.mean(dim=(2, 3)) if values.ndim == 4 else values


def _disable_random_masking(model: nn.Module) -> int | None:
    """How many patches there are, in a model that hides some at random; it is set to hide none. Else None."""
    config: Any = getattr(model, "config", None)
    if getattr(config, "mask_ratio", None) is None or "noise" not in inspect.signature(model.forward).parameters:
        return None
    patches: Any = getattr(getattr(model, "embeddings", None), "patch_embeddings", None)
    if not isinstance(getattr(patches, "num_patches", None), int):
        return None
    config.mask_ratio = 0.0
    return int(patches.num_patches)
