"""Models trained on fused features, as scikit-learn estimators.

Start with :class:`LinearHead`; :class:`NeuralHead` begins as one and may read the aligned inputs beside the fused
vectors. Either is imported, with scikit-learn or torch, when it is first asked for.

>>> import numpy as np
>>> from sklearn.model_selection import GridSearchCV, cross_val_score
>>> from barycenter.fusion.heads import LinearHead
>>> rng = np.random.default_rng(0)
>>> y = np.array(["cat", "dog"] * 60)
>>> X = rng.normal(size=(120, 3)) + (y == "dog")[:, None] * 2
>>> search = GridSearchCV(LinearHead(), {"ridge": [1e-3, 1.0], "class_weight": [None, "balanced"]}, cv=3).fit(X, y)
>>> bool(search.best_score_ > 0.9), sorted(search.best_params_)
(True, ['class_weight', 'ridge'])
>>> bool(cross_val_score(LinearHead(), X, y, cv=3, scoring="roc_auc").mean() > 0.9)
True
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from barycenter.fusion.serialization import load_header

if TYPE_CHECKING:
    from barycenter.fusion.heads.linear import LinearHead
    from barycenter.fusion.heads.neural import NeuralHead

    Head = LinearHead | NeuralHead

__all__ = ["LinearHead", "NeuralHead", "load"]

_HOMES = {"LinearHead": "linear", "NeuralHead": "neural"}


def load(folder: str | Path) -> "Head":
    """The head saved in a folder, of whatever kind.

    Raises:
        ValueError: If the folder holds no head.
    """
    from barycenter.fusion.heads.linear import LinearHead

    if load_header(folder, "head").get("format") == LinearHead.FORMAT:
        return LinearHead.load(folder)
    from barycenter.fusion.heads.neural import NeuralHead

    return NeuralHead.load(folder)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
