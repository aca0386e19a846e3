"""What follows the transformer in a sentence encoder, as sentence-transformers have it: pooling, dense layers, ...

Modules hand on features by name: ``token_embeddings`` (n, length, width) and ``sentence_embedding`` (n, width).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import nn

from barycenter.fusion.encoders.batch_check import ROWS_FILLED_TO
from barycenter.fusion.encoders.sentence_config import (
    SENTENCE_EMBEDDING,
    TOKEN_EMBEDDINGS,
    SentenceConfig,
    read_json,
    read_pooling,
)
from barycenter.fusion.errors import JobError

Features = dict[str, torch.Tensor]

MASK = "mask"
"""(n, length), 1 where a token counts; ``POOLED_MASK``: without the prompt's tokens."""
POOLED_MASK = "pooled_mask"


def pool_tokens(tokens: torch.Tensor, mask: torch.Tensor, modes: tuple[str, ...]) -> torch.Tensor:
    """Pools token states to one vector a text.

    Args:
        tokens: (n, length, width), padded at the end.
        mask: (n, length), 1 where a token counts.
        modes: ``cls``, ``max``, ``mean``, ``mean_sqrt_len_tokens``, ``weightedmean`` (by position) or ``lasttoken``.

    Returns:
        (n, width x number of modes) float32.

    >>> tokens = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> pool_tokens(tokens, torch.tensor([[1, 1, 0]]), ("mean", "max", "cls", "lasttoken")).tolist()
    [[2.0, 3.0, 1.0, 3.0]]
    """
    states, weights = tokens.float(), mask.unsqueeze(-1).float()
    rows = torch.arange(len(states), device=states.device)
    positions = torch.arange(mask.shape[1], device=mask.device)
    pooled = []
    for mode in modes:
        if mode == "cls":
            pooled.append(states[rows, mask.int().argmax(dim=1)])
        elif mode == "lasttoken":
            pooled.append(states[rows, (mask * positions).argmax(dim=1)])
        elif mode == "max":
            pooled.append(states.masked_fill(weights == 0, float("-inf")).amax(dim=1))
        else:
            w = weights * (positions + 1).view(1, -1, 1) if mode == "weightedmean" else weights
            total = w.sum(dim=1).clamp(min=1e-9)
            sums = _sums(states, w, mode == "weightedmean")
            pooled.append(sums / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total))
    return torch.cat(pooled, dim=-1)


def _sums(states: torch.Tensor, weights: torch.Tensor, weighted: bool) -> torch.Tensor:
    """Weighted sums over tokens: (n, width).

    On a CPU token after token, each text by itself: torch splits a sum by how many texts and threads there are. Tokens
    that count stand together.
    """
    if states.device.type != "cpu":
        return (states * weights).sum(dim=1)
    counted = weights[..., 0].numpy() > 0
    starts, lengths = counted.argmax(axis=1).tolist(), counted.sum(axis=1).tolist()
    values = (states * weights if weighted else states).numpy()
    sums = np.empty((len(values), values.shape[2]), np.float32)
    for row, (start, length) in enumerate(zip(starts, lengths, strict=True)):
        np.add.reduce(values[row, start : start + length], axis=0, out=sums[row])
    return torch.from_numpy(sums)


def by_rows(compute: Callable[[torch.Tensor], torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """What a layer makes of (..., width); on a CPU of so many rows that none depends on how many there are.

    >>> by_rows(lambda rows: rows.new_full(rows.shape, len(rows)), torch.zeros(2, 3))[:, 0].tolist()
    [16.0, 16.0]
    """
    if values.device.type != "cpu":
        return compute(values)
    rows = values.flatten(0, -2)
    filled = nn.functional.pad(rows, (0, 0, 0, -len(rows) % ROWS_FILLED_TO))
    made = compute(filled)[: len(rows)]
    return made.reshape(*values.shape[:-1], made.shape[-1])


class _Pooling(nn.Module):
    def __init__(self, modes: tuple[str, ...], include_prompt: bool) -> None:
        super().__init__()
        self.modes, self.mask = modes, MASK if include_prompt else POOLED_MASK

    def forward(self, features: Features) -> None:
        tokens, mask = features[TOKEN_EMBEDDINGS], features[self.mask]
        if mask.shape[1] != tokens.shape[1]:  # the model gives more or fewer states than it read tokens
            mask = mask.new_ones(tokens.shape[:2])
        features[SENTENCE_EMBEDDING] = pool_tokens(tokens, mask, self.modes)


class _NamedModule(nn.Module):
    """A module that reads one feature and writes one; a feature that is not there is an error of the folder."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.source = config.get("module_input_name") or SENTENCE_EMBEDDING
        self.target = config.get("module_output_name") or self.source

    def forward(self, features: Features) -> None:
        features[self.target] = by_rows(self.compute, features[self.source].float())

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


class _Normalize(_NamedModule):
    def forward(self, features: Features) -> None:
        if self.source in features:
            super().forward(features)

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(values, dim=-1)


class _Dense(_NamedModule):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config)
        width, out = config["in_features"], config["out_features"]
        self.linear = nn.Linear(width, out, bias=config.get("bias", True))
        self.activation = _activation(config.get("activation_function", "torch.nn.modules.activation.Tanh"))
        self.use_residual = bool(config.get("use_residual"))
        if self.use_residual and width != out:
            self.residual = nn.Linear(width, out, bias=False)

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        activated: torch.Tensor = self.activation(self.linear(values))
        if not self.use_residual:
            return activated
        return activated + (self.residual(values) if hasattr(self, "residual") else values)


class _LayerNorm(_NamedModule):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__({})
        self.norm = nn.LayerNorm(config["dimension"])

    def compute(self, values: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(values)
        return normed


def _activation(path: str) -> nn.Module:
    found = getattr(nn, path.rpartition(".")[2], None)
    if not path.startswith("torch.nn.") or not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise JobError(
            "encoder", f"activation {path!r} of a Dense module is not one of torch.nn's; take another encoder"
        )
    activation: nn.Module = found()
    return activation


class ModuleSequence(nn.Module):
    """The modules after the transformer, in order.

    Args:
        modules: Each reads and writes features.
        truncate_dim: Numbers kept of each vector at the end; None: all.
    """

    def __init__(self, modules: list[nn.Module], truncate_dim: int | None) -> None:
        super().__init__()
        self.steps = nn.ModuleList(modules)
        self.truncate_dim = truncate_dim

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """From one vector a row, (n, width), to the folder's vectors, (n, dim)."""
        return self.run({SENTENCE_EMBEDDING: vectors})

    def run(self, features: Features) -> torch.Tensor:
        """From what the transformer gives to the folder's vectors, (n, dim)."""
        for step in self.steps:
            step(features)
        return features[SENTENCE_EMBEDDING][:, : self.truncate_dim]


def load_modules(settings: SentenceConfig) -> ModuleSequence:
    """The modules after the transformer with their weights; mean pooling where a plain folder has none.

    Raises:
        JobError: A module's settings or weights are not supported or missing.
    """
    modules = [_module(kind, path) for kind, path in settings.steps]
    return ModuleSequence(modules, settings.truncate_dim).eval().requires_grad_(False)


def mean_pooling() -> ModuleSequence:
    """What a folder of a transformer alone gets: the mean over its tokens."""
    return ModuleSequence([_Pooling(("mean",), include_prompt=True)], None)


def _module(kind: str, path: Path) -> nn.Module:
    config = read_json(path / "config.json")
    if kind == "Pooling":
        return _Pooling(*read_pooling(path))
    if kind == "Normalize":
        return _Normalize(config)
    module = _Dense(config) if kind == "Dense" else _LayerNorm(config)
    try:
        module.load_state_dict(_weights(path))
    except (RuntimeError, KeyError) as error:
        raise JobError(
            "encoder", f"the {kind} module in {path.name} cannot be read: {str(error).splitlines()[0]}"
        ) from None
    return module


def _weights(path: Path) -> dict[str, torch.Tensor]:
    if (path / "model.safetensors").is_file():
        stored: dict[str, torch.Tensor] = load_file(path / "model.safetensors")
        return stored
    if (path / "pytorch_model.bin").is_file():
        loaded: dict[str, torch.Tensor] = torch.load(path / "pytorch_model.bin", map_location="cpu", weights_only=True)
        return loaded
    raise JobError("encoder", f"{path.name} has no model.safetensors; download the model again")
