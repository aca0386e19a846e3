"""Linear layers on a CPU through oneDNN, their weights laid out for its kernels once, and GELU in the same pass.

torch multiplies by the weights as they lie, with the BLAS that it was built with; oneDNN is ahead of that on the small
products of an encoder's layers, and does not write the hidden layer twice to apply the activation.
"""

import platform
from collections.abc import Callable, Sequence
from types import SimpleNamespace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from barycenter.fusion.torch_compat import onednn_linear_operators

_TOKENS = 1024
_TOLERANCE = 1e-4


class OneDNNLinear(nn.Module):
    """A linear layer of an eval model, perhaps with the exact GELU after it.

    Args:
        linear: What it replaces; float32, on the CPU.
        gelu: Whether GELU follows.
    """

    def __init__(self, linear: nn.Linear, gelu: bool) -> None:
        super().__init__()
        operators = onednn_linear_operators()
        if operators is None:
            raise RuntimeError("this torch has no oneDNN linear operators")
        reorder_weight, self._multiply = operators
        self._packed = reorder_weight(linear.weight.detach(), _TOKENS)
        self._bias = None if linear.bias is None else linear.bias.detach()
        self._activation: tuple[str, list[float], str] = ("gelu", [], "none") if gelu else ("none", [], "")
        # Code that looks at these sees type and shape; they are no tensors, for torch computes rubbish with meta ones.
        self.weight, self.bias = (
            _type_and_shape(linear.weight),
            None if linear.bias is None else _type_and_shape(linear.bias),
        )

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., out)."""
        return self._multiply(values, self._packed, self._bias, *self._activation)


def _type_and_shape(tensor: torch.Tensor) -> SimpleNamespace:
    return SimpleNamespace(dtype=tensor.dtype, device=tensor.device, shape=tensor.shape)


def use_onednn_linear(model: nn.Module, trial: Callable[[], NDArray[np.floating]]) -> bool:
    """Replaces the linear layers of a model in place, or leaves it as it was where that cannot be.

    Args:
        model: In eval mode, its weights loaded.
        trial: Runs it once; where that fails afterwards, or gives something else, everything is put back.

    Returns:
        Whether they were replaced.
    """
    linear = _linear_layers(model)
    if not _are_replaceable([child for _, _, child in linear]):
        return False
    before = trial()
    replaced: list[tuple[nn.Module, str, nn.Module]] = []
    with torch.inference_mode():
        for parent, name, child in linear:
            gelu = name == "dense" and _is_gelu(getattr(parent, "intermediate_act_fn", None))
            if gelu:
                replaced.append((parent, "intermediate_act_fn", parent.get_submodule("intermediate_act_fn")))
                parent.intermediate_act_fn = nn.Identity()
            replaced.append((parent, name, child))
            setattr(parent, name, OneDNNLinear(child, gelu))
    try:
        same = np.allclose(trial(), before, atol=_TOLERANCE * float(np.abs(before).max(initial=0.0)), equal_nan=True)
    except Exception:  # noqa: BLE001 - a model that does more with its layers than to call them
        same = False
    for parent, name, module in () if same else replaced:
        setattr(parent, name, module)
    return same


def has_onednn_layers(encoder: object) -> bool:
    """Whether the model of an encoder has layers that run through oneDNN."""
    model = _model_of(encoder)
    return model is not None and any(isinstance(module, OneDNNLinear) for module in model.modules())


def has_replaceable_layers(encoder: object) -> bool:
    """Whether the model of an encoder has layers that could run through oneDNN and do not."""
    model = _model_of(encoder)
    return model is not None and _are_replaceable([child for _, _, child in _linear_layers(model)])


def _model_of(encoder: object) -> nn.Module | None:
    model = getattr(getattr(encoder, "_encoder", encoder), "model", None)
    return model if isinstance(model, nn.Module) else None


def _linear_layers(model: nn.Module) -> list[tuple[nn.Module, str, nn.Linear]]:
    """(parent, name in it, layer) of each."""
    children = [(parent, name, child) for parent in model.modules() for name, child in parent.named_children()]
    return [(parent, name, child) for parent, name, child in children if type(child) is nn.Linear]


def _are_replaceable(layers: Sequence[nn.Linear]) -> bool:
    plain = all(layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32 for layer in layers)
    supported = onednn_linear_operators() is not None and platform.machine() in ("x86_64", "AMD64")
    return bool(layers) and plain and supported


def _is_gelu(module: object) -> bool:
    """Whether it is the exact GELU, torch's or that of transformers, not an approximation of it."""
    if isinstance(module, nn.GELU):
        return module.approximate == "none"
    return getattr(module, "act", None) is nn.functional.gelu
