"""Alignments: embedding spaces brought into one."""

from fusion.alignment.autoencoder import Autoencoder
from fusion.alignment.base import METHODS, Alignment, load
from fusion.alignment.choose import CHOICES, Choice, choose, labelled_moments
from fusion.alignment.contrastive import Contrastive
from fusion.alignment.features import FeatureAlignment
from fusion.alignment.fill import fill_for_target, head_fill_ridges
from fusion.alignment.joint import Joint
from fusion.alignment.kernel import KernelCCA
from fusion.alignment.linear import CCA, PCA, Identity, LinearAlignment, Procrustes
from fusion.alignment.retrieve import RetrievalSpace, best_space
from fusion.alignment.sample import Sample
from fusion.alignment.significance import Significance, significance
from fusion.alignment.trained import TrainedAlignment

__all__ = [
    "CHOICES",
    "METHODS",
    "CCA",
    "PCA",
    "Alignment",
    "Autoencoder",
    "Choice",
    "Contrastive",
    "FeatureAlignment",
    "Identity",
    "Joint",
    "KernelCCA",
    "LinearAlignment",
    "Procrustes",
    "RetrievalSpace",
    "Sample",
    "Significance",
    "TrainedAlignment",
    "best_space",
    "choose",
    "fill_for_target",
    "head_fill_ridges",
    "labelled_moments",
    "load",
    "significance",
]
