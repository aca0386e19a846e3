"""Alignments: embedding spaces brought into one."""

from fusion.alignment.base import METHODS, Alignment, load
from fusion.alignment.kernel import KernelCCA
from fusion.alignment.linear import CCA, PCA, Identity, Joint, LinearAlignment, Procrustes
from fusion.alignment.significance import Significance, significance

__all__ = [
    "METHODS",
    "CCA",
    "PCA",
    "Alignment",
    "Identity",
    "Joint",
    "KernelCCA",
    "LinearAlignment",
    "Procrustes",
    "Significance",
    "load",
    "significance",
]
