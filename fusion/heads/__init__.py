"""Models trained on fused features."""

import json
from pathlib import Path

from fusion.heads.linear import LinearHead
from fusion.heads.neural import FORMAT, NeuralHead

__all__ = ["Head", "LinearHead", "NeuralHead", "load"]

Head = LinearHead | NeuralHead


def load(folder: str | Path) -> Head:
    """The head saved in a folder, of whatever kind.

    Raises:
        ValueError: If the folder holds no head.
    """
    about = json.loads((Path(folder) / "head.json").read_text(encoding="utf-8"))
    return NeuralHead.load(folder) if about.get("format") == FORMAT else LinearHead.load(folder)
