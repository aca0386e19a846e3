"""Alignments: embedding spaces brought into one.

Start with :class:`AlignmentSearch`, which chooses an alignment and the weights of its average by held-out rows, or with
:class:`Joint` or :class:`CCA` by name. All are scikit-learn transformers of views, ``{name: (n, d)}``:

>>> import numpy as np
>>> rng = np.random.default_rng(0)
>>> shared = rng.normal(size=(200, 2))
>>> views = {name: shared @ rng.normal(size=(2, 5)) + 0.1 * rng.normal(size=(200, 5)) for name in ("text", "image")}
>>> alignment = Joint(dim=2).fit(views)
>>> alignment.n_features_in_, alignment.fuse({"text": views["text"]}).shape
({'text': 5, 'image': 5}, (200, 2))

With ``widths`` they take one matrix of all inputs and give the fused vectors, as a step of a pipeline does:

>>> from sklearn.base import clone
>>> from sklearn.model_selection import GridSearchCV, cross_val_score
>>> from sklearn.pipeline import Pipeline
>>> from barycenter.fusion.heads import LinearHead
>>> X, y = np.hstack(list(views.values())), shared[:, 0] > 0
>>> steps = [("align", Joint(folds=1, widths={"text": 5, "image": 5})), ("head", LinearHead())]
>>> search = GridSearchCV(Pipeline(steps), {"align__dim": [1, 4], "head__ridge": [0.01, 1.0]}, cv=3).fit(X, y)
>>> search.best_params_["align__dim"], bool(search.best_score_ > 0.9)
(4, True)
>>> bool(cross_val_score(clone(search.best_estimator_), X, y, cv=3).mean() > 0.9)
True

Data frames go in and, where ``set_output`` asks for them, out:

>>> import pandas as pd
>>> frame = pd.DataFrame(X, columns=[f"{name}{i}" for name in views for i in range(5)])
>>> clone(steps[0][1]).set_params(dim=2).set_output(transform="pandas").fit_transform(frame).columns.tolist()
['joint0', 'joint1']
"""

from barycenter.fusion.alignment._stepwise import CHOICES
from barycenter.fusion.alignment.autoencoder import Autoencoder
from barycenter.fusion.alignment.base import METHODS, Alignment, load
from barycenter.fusion.alignment.contrastive import Contrastive
from barycenter.fusion.alignment.features import FeatureAlignment
from barycenter.fusion.alignment.joint import Joint
from barycenter.fusion.alignment.kernel import KernelCCA
from barycenter.fusion.alignment.linear import CCA, PCA, Identity, Procrustes
from barycenter.fusion.alignment.linear_base import ClippedDimWarning, LinearAlignment
from barycenter.fusion.alignment.retrieval import RetrievalSpace, best_space
from barycenter.fusion.alignment.sample import Sample
from barycenter.fusion.alignment.search import AlignmentSearch, labeled_moments
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
    "ClippedDimWarning",
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
    "labeled_moments",
    "load",
    "significance",
]
