"""What is used of torch beyond its public interface, and why; each with a way to do without.

:func:`onednn_linear_operators`: torch has no public way to lay out the weights of a linear layer for oneDNN
once, nor to apply the activation in the same pass; its own compiler calls these two operators.

:func:`declare_missing_operators` makes torchvision importable beside a torch that its compiled operators were not built
for.

A torchvision wheel built for CUDA cannot load its native library beside a CPU-only torch, and its import then
fails because it registers fake kernels for operators nobody declared; transformers imports torchvision and fails
with it. Declaring the two missing schemas is enough: classification models and transforms never call them. Import
this module before torchvision or transformers.
"""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path

import torch

_ONEDNN_OPERATORS = ("_reorder_linear_weight", "_linear_pointwise")

_MISSING_OPERATORS = ("nms", "qnms")
_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def _native_library_loads() -> bool:
    spec = importlib.util.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return True
    libraries = sorted(Path(spec.origin).parent.glob("_C*.*"))
    try:
        for library in libraries:
            torch.ops.load_library(str(library))  # type: ignore[no-untyped-call]
    except OSError:
        return False
    return bool(libraries)


def onednn_linear_operators() -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]] | None:
    """The operators that lay out a weight for oneDNN, and multiply by it; None where this torch has not both."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None
    found = [getattr(torch.ops.mkldnn, name, None) for name in _ONEDNN_OPERATORS]
    return None if None in found else (found[0], found[1])  # type: ignore[return-value]


def declare_missing_operators() -> None:
    """Declares ``torchvision::nms`` and ``qnms`` when, and only when, torchvision cannot load its own."""
    if "torchvision" in sys.modules or _native_library_loads():
        return
    for name in _MISSING_OPERATORS:
        torch.library.define(f"torchvision::{name}", _SCHEMA)


declare_missing_operators()
