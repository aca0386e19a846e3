"""Models trained on fused features."""

from fusion.heads.linear import LinearHead

__all__ = ["LinearHead"]
