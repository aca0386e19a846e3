"""Models trained on fused features. ``NeuralHead`` needs torch, which is imported when it is asked for."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.serialization import load_header

if TYPE_CHECKING:
    from barycenter.fusion.heads.neural import NeuralHead

    Head = LinearHead | NeuralHead

__all__ = ["LinearHead", "NeuralHead", "load"]


def load(folder: str | Path) -> "Head":
    """The head saved in a folder, of whatever kind.

    Raises:
        ValueError: If the folder holds no head.
    """
    if load_header(folder, "head").get("format") == LinearHead.FORMAT:
        return LinearHead.load(folder)
    from barycenter.fusion.heads.neural import NeuralHead

    return NeuralHead.load(folder)


def __getattr__(name: str) -> Any:
    if name != "NeuralHead":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from barycenter.fusion.heads.neural import NeuralHead

    return NeuralHead
