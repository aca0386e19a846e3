"""Gradient descent: the context that a loop runs in, and the one loop with early stopping.

Start with :func:`train`, in a :class:`LocalContext` where no cluster is.
"""

from barycenter.fusion.training.context import Checkpoint, LocalContext, TrainingContext
from barycenter.fusion.training.loop import EarlyStopping, TrainingSettings, train

__all__ = ["Checkpoint", "EarlyStopping", "LocalContext", "TrainingContext", "TrainingSettings", "train"]
