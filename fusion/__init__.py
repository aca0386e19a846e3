"""The library: embeddings of paired inputs, aligned, averaged, read and learned from; without Ray or a job file.

Start with :class:`FusedDataset`, which reads what a run wrote, and :class:`Fuser`, which makes the same vectors of new
rows. :class:`AlignmentSearch` fits the alignment that held-out rows prefer; ``CCA``, ``Joint`` and the others are
alignments by name. :class:`LinearHead` and :class:`NeuralHead` learn from fused vectors. All that is fitted are
scikit-learn estimators. A name is imported when it is first asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from barycenter.fusion.alignment import (
        CCA,
        PCA,
        AlignmentSearch,
        Autoencoder,
        Contrastive,
        Identity,
        Joint,
        KernelCCA,
        Procrustes,
    )
    from barycenter.fusion.dataset import FusedDataset, FusedRows
    from barycenter.fusion.fuser import Fuser
    from barycenter.fusion.heads import LinearHead, NeuralHead
    from barycenter.fusion.moments import FoldMoments, Moments

__all__ = [
    "CCA",
    "PCA",
    "AlignmentSearch",
    "Autoencoder",
    "Contrastive",
    "FoldMoments",
    "FusedDataset",
    "FusedRows",
    "Fuser",
    "Identity",
    "Joint",
    "KernelCCA",
    "LinearHead",
    "Moments",
    "NeuralHead",
    "Procrustes",
]

_MODULES = {
    "dataset": ("FusedDataset", "FusedRows"),
    "fuser": ("Fuser",),
    "heads": ("LinearHead", "NeuralHead"),
    "moments": ("FoldMoments", "Moments"),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"barycenter.fusion.{_HOMES.get(name, 'alignment')}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
