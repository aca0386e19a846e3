"""What autoencoder and contrastive share: a start from a linear alignment, training by batches, then moments."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from barycenter.fusion.alignment.eigenproblems import Weights, mean_variance
from barycenter.fusion.alignment.features import FeatureAlignment
from barycenter.fusion.alignment.imputation import choose_regularization
from barycenter.fusion.alignment.linear_base import LinearAlignment
from barycenter.fusion.arrays import FloatArray
from barycenter.fusion.moments import FoldMoments, Moments, Precision, merge_all
from barycenter.fusion.parameters import check_whole
from barycenter.fusion.splits import fold_of, stable_hash
from barycenter.fusion.validation import Views, common_rows

if TYPE_CHECKING:
    from torch import nn

    from barycenter.fusion.alignment.networks import AlignmentNetwork, Projection
    from barycenter.fusion.training.context import Checkpoint
    from barycenter.fusion.training.loop import TrainingSettings

HELD_OUT_FOLD = 0


@dataclass(frozen=True)
class Layer:
    """The learned features of one input; see :class:`barycenter.fusion.alignment.networks.LearnedFeatures`."""

    mean: NDArray[np.floating]
    scale: float
    hidden: NDArray[np.floating]
    bias: NDArray[np.floating]

    def __call__(self, values: FloatArray) -> FloatArray:
        """(n, d) to (n, d + width)."""
        dtype = values.dtype
        standard = (values - self.mean.astype(dtype)) / dtype.type(self.scale)
        return np.hstack([standard, np.maximum(standard @ self.hidden.astype(dtype) + self.bias.astype(dtype), 0)])


@dataclass(eq=False, repr=False)
class TrainedAlignment(FeatureAlignment):
    """Base of the alignments that are trained by gradient descent.

    The features of an input are itself and a hidden layer; the weights on them start as a linear alignment. How many
    epochs improve on that start is found on a held-out fold; then all rows are trained on for as many, none if training
    adds nothing. What is learned is treated as any linear alignment of those features: means, missing inputs and
    averages come from moments.

    Args:
        dim: Number of components.
        regularization: Ridge of the linear start and of missing inputs, relative to the mean variance of each input.
        folds: Of the rows; the first one is held out to find the number of epochs.
        precision: Type in which moments are multiplied.
        width: Hidden units for each input.
        epochs: Passes over the rows, at most.
        patience: Epochs without a better held-out loss before training stops.
        batch_size: Rows in a step.
        learning_rate: Of AdamW.
        weight_decay: Of AdamW.
        feature_dropout: Probability with which a feature is withheld in training.
        seed: Of parameters, order and dropout.
        device: Where :meth:`fit` trains; ``auto`` is a GPU where there is one. Mixed precision on a GPU.
        widths: See :class:`LinearAlignment`.

    Attributes:
        history_: Held-out loss of the linear start and after every epoch.
        heldout_correlations_: On the held-out fold, of what was trained without it.
    """

    dim: int | None = 256
    regularization: float | Literal["auto"] = "auto"
    folds: int = 5
    precision: Precision = "float32"
    width: int = 512
    epochs: int = 50
    patience: int = 5
    batch_size: int = 256
    learning_rate: float = 3e-4
    weight_decay: float = 1e-2
    feature_dropout: float = 0.1
    seed: int = 0
    device: str = "auto"
    widths: Mapping[str, int] | None = None

    start_method: ClassVar[type[LinearAlignment]]
    fill_ridges = None

    @abstractmethod
    def _network(self, heads: "list[Projection]", weights: Weights, moments: Moments) -> "AlignmentNetwork":
        """The network around heads that are at the linear start."""

    def _start_weights(self, start: LinearAlignment) -> Weights:
        return start.weights_

    @classmethod
    def dim_limit(cls, widths: Sequence[int]) -> int:
        """As the linear alignment that it starts from."""
        return cls.start_method.dim_limit(widths)

    def _fit(self, views: Views, _y: object, groups: Sequence[object] | None) -> None:
        """Starts from moments, trains, and takes the moments of what was learned."""
        from barycenter.fusion.alignment.network_training import batches_of, train_alignment_network
        from barycenter.fusion.training.context import LocalContext

        keys = list(range(common_rows(views))) if groups is None else list(groups)
        moments = FoldMoments.of(views, self.folds, keys, self.precision)
        fold, codes = fold_of(keys, self.folds), stable_hash(keys).view(np.int64)
        held = np.flatnonzero(fold == HELD_OUT_FOLD)

        def run(
            network: "AlignmentNetwork", settings: "TrainingSettings", rows: NDArray[np.int64], validate: bool
        ) -> "Checkpoint":
            return train_alignment_network(
                LocalContext(device=self._device()),
                network,
                settings,
                lambda epoch: batches_of(views, codes, rows, self.batch_size, [self.seed, epoch]),
                (lambda: batches_of(views, codes, held, self.batch_size)) if validate else None,
                max(1, round(len(rows) / self.batch_size)),
            )

        found = run(self.start(self.inner(moments)), self.settings(), np.flatnonzero(fold != HELD_OUT_FOLD), True)
        self.take(found, run(self.start(moments), self.settings(found), np.arange(len(keys)), False))
        self.fit_moments(self.feature_moments(views, keys))

    def inner(self, moments: FoldMoments) -> FoldMoments:
        """All folds but the one held out.

        Raises:
            ValueError: On wrong parameters, or too few rows.
        """
        self._check_params()
        held, total = moments[HELD_OUT_FOLD].n, moments.total.n
        if held < 2 or total - held < 4:
            raise ValueError(
                f"{total} rows have every input, {held} of them held out; {self.method} cannot be trained on so few"
            )
        return FoldMoments(moments[HELD_OUT_FOLD + 1 :])

    def start(self, moments: FoldMoments) -> "AlignmentNetwork":
        """The network at its linear start, fitted on these folds."""
        from barycenter.fusion.alignment.networks import LearnedFeatures, Projection
        from barycenter.fusion.training.context import preserve_random_state, reseed

        total = moments.total
        start = self.start_method(self.dim, self.regularization, self.folds, self.precision).fit_moments(moments)
        weights = self._start_weights(start)
        self.n_features_in_ = dict(total.dims)
        self.feature_dims_ = {name: width + self.width for name, width in self.n_features_in_.items()}
        with preserve_random_state("cpu"):
            reseed(self.seed)
            heads = []
            for name, columns in total.columns.items():
                features = LearnedFeatures(total.mean[columns], mean_variance(total, name) ** 0.5, self.width)
                heads.append(Projection(features, weights[name]))
            return self._network(heads, weights, total)

    def settings(self, found: "Checkpoint | None" = None) -> "TrainingSettings":
        """What the training loop is to do: find the number of epochs, or run as many as it found."""
        from barycenter.fusion.training.loop import TrainingSettings

        epochs, patience = self.epochs, self.patience
        if found is not None:
            epochs = int(np.nanargmin(found.state["history"]))
            patience = epochs + 1
        return TrainingSettings(epochs, patience, self.learning_rate, self.weight_decay, self.seed)

    def take(self, found: "Checkpoint", trained: "Checkpoint") -> None:
        """Takes the outcome of training, held-out figures and parameters; the moments of the features come next."""
        self.history_ = found.state["history"]
        self.heldout_correlations_ = np.array(found.state["heldout_correlations"])
        self.layers_, self._weights = {}, {}
        for i, name in enumerate(self.n_features_in_):
            prefix = f"heads.{i}."
            arrays = {k.removeprefix(prefix): v.numpy() for k, v in trained.tensors.items() if k.startswith(prefix)}
            mean, scale, hidden, bias = (arrays[f"features.{key}"] for key in ("mean", "scale", "hidden", "bias"))
            self.layers_[name] = Layer(mean, float(scale), hidden, bias)
            self._weights[name] = arrays["weights"].astype(np.float64)
        if not all(np.isfinite(block).all() for block in self._weights.values()):
            raise ValueError(f"{self.method}: training diverged to weights that are not finite; lower learning_rate")

    def _device(self) -> str:
        import torch

        if self.device != "auto":
            return self.device
        return "cuda" if torch.cuda.is_available() else "cpu"

    def _check_params(self) -> None:
        super()._check_params()
        if self.folds < 2:
            raise ValueError(f"folds must be at least 2 for {self.method}, which holds one out, not {self.folds}")
        for key in ("width", "epochs", "patience", "batch_size"):
            check_whole(key, getattr(self, key))
        if not 0 <= self.feature_dropout < 1:
            raise ValueError(f"feature_dropout must be from 0 to below 1, not {self.feature_dropout}")

    def _clipped_dim(self, _total: Moments) -> int:
        return int(next(iter(self._weights.values())).shape[1])

    def _rank(self, moments: Moments, name: str) -> int:
        return min(moments.dims[name], max(moments.n - 1, 0))

    def _solve(self, moments: Moments, ridge: float, dim: int) -> Weights:  # noqa: ARG002
        return self._weights

    solve = _solve

    def _choose(self, folds: FoldMoments) -> None:
        if len(folds.total.names) > 1:
            without = self.dim_ - len(self.heldout_correlations_)
            self.heldout_correlations_ = np.pad(self.heldout_correlations_, (0, max(0, without)))[: self.dim_]
        if self.regularization == "auto":
            halves = [merge_all(self.inner(folds)), folds[HELD_OUT_FOLD]]
            self.regularization_ = choose_regularization(FoldMoments(halves))
        else:
            self.regularization_ = float(self.regularization)

    def _features(self, name: str, values: FloatArray) -> FloatArray:
        return self.layers_[name](values)

    def _feature_modules(self) -> "dict[str, nn.Module]":
        from barycenter.fusion.alignment.networks import LearnedFeatures

        made = {name: LearnedFeatures(x.mean, x.scale, 0, x.hidden, x.bias) for name, x in self.layers_.items()}
        return {name: module.requires_grad_(False) for name, module in made.items()}

    def _state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        values, arrays = super()._state()
        for i, layer in enumerate(self.layers_.values()):
            arrays |= {f"layer.{i}.mean": layer.mean, f"layer.{i}.hidden": layer.hidden, f"layer.{i}.bias": layer.bias}
        scales = [layer.scale for layer in self.layers_.values()]
        return values | {"history": self.history_, "scales": scales}, arrays

    def _restore(self, values: dict[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        super()._restore(values, arrays)
        self.history_ = values["history"]
        self.layers_ = {
            name: Layer(arrays[f"layer.{i}.mean"], scale, arrays[f"layer.{i}.hidden"], arrays[f"layer.{i}.bias"])
            for i, (name, scale) in enumerate(zip(self.n_features_in_, values["scales"], strict=True))
        }
        self.feature_dims_ = {name: width + self.width for name, width in self.n_features_in_.items()}
