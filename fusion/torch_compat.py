"""Makes torchvision importable beside a torch that its compiled operators were not built for.

A torchvision wheel built for CUDA cannot load its native library beside a CPU-only torch, and its import then
fails because it registers fake kernels for operators nobody declared; transformers imports torchvision and fails
with it. Declaring the two missing schemas is enough: classification models and transforms never call them. Import
this module before torchvision or transformers.
"""

import importlib.util
import sys
from pathlib import Path

import torch

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


def declare_missing_operators() -> None:
    """Declares ``torchvision::nms`` and ``qnms`` when, and only when, torchvision cannot load its own."""
    if "torchvision" in sys.modules or _native_library_loads():
        return
    for name in _MISSING_OPERATORS:
        torch.library.define(f"torchvision::{name}", _SCHEMA)


declare_missing_operators()
