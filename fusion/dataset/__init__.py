"""Fused features on disk: schema, manifest and readers. Start with :class:`FusedDataset`, which needs torch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from barycenter.fusion.dataset.torch_dataset import FusedDataset, FusedRows

__all__ = ["FusedDataset", "FusedRows"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from barycenter.fusion.dataset import torch_dataset

    return getattr(torch_dataset, name)
