"""Alignments: embedding spaces brought into one."""

from barycenter.fusion.alignment._stepwise import CHOICES
from barycenter.fusion.alignment.autoencoder import Autoencoder
from barycenter.fusion.alignment.base import METHODS, Alignment, load
from barycenter.fusion.alignment.contrastive import Contrastive
from barycenter.fusion.alignment.features import FeatureAlignment
from barycenter.fusion.alignment.joint import Joint
from barycenter.fusion.alignment.kernel import KernelCCA
from barycenter.fusion.alignment.linear import CCA, PCA, Identity, Procrustes
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.alignment.retrieval import RetrievalSpace, best_space
from barycenter.fusion.alignment.sample import Sample
from barycenter.fusion.alignment.search import AlignmentSearch, labelled_moments
from barycenter.fusion.alignment.significance import Significance, significance
from barycenter.fusion.alignment.target_fill import head_fill_ridges
from barycenter.fusion.alignment.trained import TrainedAlignment

__all__ = [
    "CHOICES",
    "METHODS",
    "CCA",
    "PCA",
    "Alignment",
    "AlignmentSearch",
    "Autoencoder",
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
    "head_fill_ridges",
    "labelled_moments",
    "load",
    "significance",
]
