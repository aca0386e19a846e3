"""What follows the transformer in a sentence encoder: pooling, dense layers, normalisation, read from its folder."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from fusion.errors import JobError

_LEGACY_MODES = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_MODES = frozenset(_LEGACY_MODES.values())


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file, empty when the file is not there."""
    if not path.is_file():
        return {}
    loaded = json.loads(path.read_text("utf-8"))
    return loaded if isinstance(loaded, dict) else {}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a text folder wants to be used.

    Attributes:
        transformer: Folder of the transformer itself.
        max_length: Its own limit in tokens, or None to use the tokeniser's and the model's.
        lowercase: Whether texts are lower-cased first.
        modes: Poolings over tokens, concatenated; empty when the folder names none.
        prompt: Put before every text.
        pool_prompt: Whether the prompt's tokens take part in pooling.
        steps: (module type, its folder) after pooling, in order.
    """

    transformer: Path
    max_length: int | None
    lowercase: bool
    modes: tuple[str, ...]
    prompt: str
    pool_prompt: bool
    steps: tuple[tuple[str, Path], ...]


def read_recipe(folder: Path) -> Recipe:
    """Reads ``modules.json`` and what it refers to; a folder without it is pooled by mean.

    Raises:
        JobError: A module of a type that is not supported, or an unknown pooling.
    """
    listing = folder / "modules.json"
    if not listing.is_file():
        return Recipe(folder, None, False, (), "", True, ())
    modules = [(str(m["type"]).rpartition(".")[2], folder / m["path"]) for m in json.loads(listing.read_text("utf-8"))]
    modes: tuple[str, ...] = ()
    steps: list[tuple[str, Path]] = []
    transformer, pool_prompt = folder, True
    for kind, path in modules:
        if kind in ("Transformer", "CLIPModel"):
            transformer = path
        elif kind == "Pooling":
            modes, pool_prompt = _pooling(path)
        elif kind in ("Dense", "Normalize", "LayerNorm"):
            steps.append((kind, path))
        elif kind != "Dropout":
            raise JobError(
                "encoder",
                f"{folder.name} has a {kind} module; supported are Transformer, Pooling, Dense, LayerNorm, Normalize",
            )
    config = next((c for c in (read_json(p) for p in sorted(transformer.glob("sentence_*_config.json"))) if c), {})
    prompts = read_json(folder / "config_sentence_transformers.json")
    prompt = (prompts.get("prompts") or {}).get(prompts.get("default_prompt_name") or "", "")
    return Recipe(
        transformer,
        config.get("max_seq_length"),
        bool(config.get("do_lower_case")),
        modes,
        prompt,
        pool_prompt,
        tuple(steps),
    )


def _pooling(path: Path) -> tuple[tuple[str, ...], bool]:
    config = read_json(path / "config.json")
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _LEGACY_MODES.items() if config.get(key)] or ["mean"]
    chosen = (modes,) if isinstance(modes, str) else tuple(modes)
    if unknown := [mode for mode in chosen if mode not in _MODES]:
        raise JobError("encoder", f"pooling {unknown[0]!r} is not supported; there are {', '.join(sorted(_MODES))}")
    return chosen, bool(config.get("include_prompt", True))


def pool(tokens: torch.Tensor, mask: torch.Tensor, modes: tuple[str, ...]) -> torch.Tensor:
    """Pools token states to one vector a text.

    Args:
        tokens: (n, length, width), padded at the end.
        mask: (n, length), 1 where a token counts.
        modes: ``cls``, ``max``, ``mean``, ``mean_sqrt_len_tokens``, ``weightedmean`` (by position) or ``lasttoken``.

    Returns:
        (n, width x number of modes) float32.

    >>> tokens = torch.tensor([[[1.0], [3.0], [9.0]]])
    >>> pool(tokens, torch.tensor([[1, 1, 0]]), ("mean", "max", "cls", "lasttoken")).tolist()
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
            pooled.append((states * w).sum(dim=1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total))
    return torch.cat(pooled, dim=-1)


class Normalise(nn.Module):
    """Rows to unit length."""

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        """(n, d) to (n, d) of length 1."""
        return nn.functional.normalize(vectors, dim=-1)


class _Dense(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(config["in_features"], config["out_features"], bias=config.get("bias", True))
        self.activation = _activation(config.get("activation_function", "torch.nn.modules.activation.Tanh"))

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        activated: torch.Tensor = self.activation(self.linear(vectors))
        return activated


class _LayerNorm(nn.Module):
    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config["dimension"])

    def forward(self, vectors: torch.Tensor) -> torch.Tensor:
        normed: torch.Tensor = self.norm(vectors)
        return normed


def _activation(path: str) -> nn.Module:
    found = getattr(nn, path.rpartition(".")[2], None)
    if not path.startswith("torch.nn.") or not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise JobError("encoder", f"activation {path!r} of a Dense module is not one of torch.nn's")
    activation: nn.Module = found()
    return activation


def read_steps(recipe: Recipe) -> nn.Sequential:
    """The modules after pooling with their weights.

    Raises:
        JobError: A module's settings or weights are not supported or missing.
    """
    modules: list[nn.Module] = []
    for kind, path in recipe.steps:
        if kind == "Normalize":
            modules.append(Normalise())
            continue
        config = read_json(path / "config.json")
        if config.get("use_residual") or config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
            raise JobError("encoder", f"the Dense module in {path.name} has settings that are not supported")
        module = _Dense(config) if kind == "Dense" else _LayerNorm(config)
        module.load_state_dict(_module_weights(path))
        modules.append(module)
    return nn.Sequential(*modules).eval().requires_grad_(False)


def _module_weights(path: Path) -> dict[str, torch.Tensor]:
    if (path / "model.safetensors").is_file():
        stored: dict[str, torch.Tensor] = load_file(path / "model.safetensors")
        return stored
    if (path / "pytorch_model.bin").is_file():
        loaded: dict[str, torch.Tensor] = torch.load(path / "pytorch_model.bin", map_location="cpu", weights_only=True)
        return loaded
    raise JobError("encoder", f"{path.name} has no model.safetensors")


def width_after(recipe: Recipe, width: int) -> int:
    """Width of the vectors after pooling and every later module."""
    width *= max(len(recipe.modes), 1)
    for kind, path in recipe.steps:
        if kind == "Dense":
            width = int(read_json(path / "config.json")["out_features"])
    return width
