"""Heads trained by gradient descent: ``mlp``, ``gated`` and ``attention``, each starting from the linear head."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray

from barycenter.fusion.arrays import Float64, FloatArray
from barycenter.fusion.average import resolve
from barycenter.fusion.heads._calibration import CalibratedScores
from barycenter.fusion.heads._training import HeadRows, predict_logits, steps_per_epoch, train_head_network
from barycenter.fusion.heads.base import Aligned, Head
from barycenter.fusion.heads.checks import as_targets
from barycenter.fusion.heads.linear import LinearHead
from barycenter.fusion.heads.networks import ATTENTION_HEADS, KINDS, Gated, LinearOnAverage
from barycenter.fusion.heads.targets import Targets, Task, as_objects
from barycenter.fusion.parameters import check_number, check_whole
from barycenter.fusion.serialization import load_estimator, save_estimator
from barycenter.fusion.splits import fold_of
from barycenter.fusion.training.context import LocalContext, TrainingContext, preserve_random_state, reseed
from barycenter.fusion.training.loop import TrainingSettings
from barycenter.fusion.validation import as_matrix, check_views, present_rows

Kind = Literal["mlp", "gated", "attention"]


@dataclass(eq=False, repr=False)
class NeuralHead(Head):
    """A head on the fused vector and on the aligned inputs that it is the average of.

    It begins as the linear head and is trained twice: on part of the rows, to see after how many steps the loss on the
    rest is least (perhaps none) and to calibrate on that rest; then on all rows, for as many steps. Missing inputs are
    masked. In one process the same seed gives the same weights; several ranks differ in rounding.

    Args:
        kind: ``mlp`` (a hidden layer on the average and on what is missing), ``gated`` (the same on an average of
            its own, weighted row by row) or ``attention`` (over the aligned inputs and the average).
        inputs: Names of the inputs, in order; by default those of ``aligned``.
        shares: Weight of each input in the average; equal where not given.
        task: ``classification``, ``multilabel`` or ``regression``; ``auto`` follows from the targets.
        class_weight: ``balanced``, or ``{class: weight}``; classification only.
        hidden: Width of the hidden layer.
        batch_size: Rows of a step, over all ranks.
        learning_rate: Of Adam.
        weight_decay: Of what the linear head does not have.
        epochs: At most.
        patience: Epochs without a better held-out loss before stopping.
        held_out: Share of the groups held out for that.
        seed: Of everything random.

    Attributes:
        steps_: Steps that were best.
        heldout_score_: :meth:`score` of the held-out rows; NaN where there were none.

    Examples:
        >>> rng = np.random.default_rng(0)
        >>> y = np.array(["in", "out"] * 100)
        >>> X = rng.normal(size=(200, 2)) * np.where(y == "in", 0.5, 3.0)[:, None]
        >>> head = NeuralHead("mlp", hidden=16, epochs=10).fit(X, y)
        >>> head.predict(X[:2]).shape, head.score(X, y) > 0.7
        ((2,), True)
    """

    FORMAT = "barycenter-neural-head"

    kind: Kind = "mlp"
    inputs: Sequence[str] | None = None
    shares: Mapping[str, float] | None = None
    task: Task | Literal["auto"] = "auto"
    class_weight: Literal["balanced"] | Mapping[Any, float] | None = None
    hidden: int = 128
    batch_size: int = 256
    learning_rate: float = 1e-3
    weight_decay: float = 1e-2
    epochs: int = 60
    patience: int = 8
    held_out: float = 0.15
    seed: int = 0

    def _check_params(self, names: Sequence[str]) -> None:
        """Refuses parameters that are out of range; ``names`` are the inputs where the parameters name none."""
        if self.kind not in KINDS:
            raise ValueError(f"unknown head {self.kind!r}; expected one of {', '.join(KINDS)}")
        if not 0 < self.held_out <= 0.5:
            raise ValueError(f"held_out must be above 0 and at most 0.5, not {self.held_out}")
        for key in ("hidden", "batch_size", "epochs", "patience"):
            check_whole(key, getattr(self, key))
        check_number("learning_rate", self.learning_rate, above_zero=True)
        check_number("weight_decay", self.weight_decay)
        check_whole("seed", self.seed, least=0)
        inputs = names if self.inputs is None else self.inputs
        if isinstance(inputs, str) or not inputs:
            raise ValueError(f"inputs must be a list of at least one name, not {inputs!r}")
        if len(set(inputs)) < len(inputs):
            raise ValueError(f"inputs names one twice: {', '.join(map(str, inputs))}")
        if self.kind == "attention" and self.hidden % ATTENTION_HEADS:
            raise ValueError(f"hidden must be a multiple of {ATTENTION_HEADS} for attention, not {self.hidden}")
        self.inputs_ = tuple(inputs)
        self.shares_ = resolve("auto", self.shares, self.inputs_)[1]

    def fit(
        self,
        X: FloatArray,
        y: Any,
        aligned: Aligned | None = None,
        *,
        groups: Iterable[object] | None = None,
        context: TrainingContext | None = None,
        save_every: int = 200,
    ) -> Self:
        """Trains the head, from the context's newest checkpoint.

        Args:
            X: (n, dim) fused vectors.
            y: n targets.
            aligned: ``{input: (n, dim)}``, all-NaN rows where it is missing, as is an absent name; ``mlp`` reads only
                that, so any width will do, and without it takes all inputs for present.
            groups: n values; rows with equal ones fall on one side of the held-out part.
            context: Where it runs; by default this process. Each of several ranks is given all the rows.
            save_every: Steps between checkpoints.

        Raises:
            ValueError: If rows differ in number, there are none, a feature is not finite, or an aligned row is partly
                NaN or infinite.
        """
        self._check_params(list(aligned or ["fused"]))
        context = context or LocalContext()
        with preserve_random_state(context.device):
            X = self._features(X, reset=True)
            given = None if groups is None else list(groups)
            keys: list[object] = list(range(len(X))) if given is None else given
            y = as_targets(y)
            y = y if isinstance(y, np.ndarray) else as_objects(y)
            linear = LinearHead(self.task, class_weight=self.class_weight, seed=self.seed).fit(X, y, groups=given)
            self.task_ = linear.task_
            targets = linear.scores_.targets
            rows = self._rows(X, aligned, targets.encode(y), targets)
            out = fold_of(keys, max(2, round(1 / self.held_out))) == 0
            self._device = context.device
            second_training = self.epochs * steps_per_epoch(len(rows), self.batch_size) + 1
            found: dict[str, Any] | None = None
            if (saved := context.latest_checkpoint()) is not None and saved.step >= second_training:
                found = saved.state["searched"]
            elif out.any() and not out.all():
                found = self._search((X, y, keys), rows, out, linear.ridge_, targets, context, save_every)
            if found is None:
                self.steps_, self.scores_, self.heldout_score_ = 0, linear.scores_, linear.heldout_score_
            else:
                self.steps_, self.heldout_score_ = found["steps"], found["score"]
                self.scores_ = CalibratedScores(targets, np.array(found["slope"]), np.array(found["offset"]))
            self._module = self._started(linear, rows)
            if self.steps_:
                options = {"first_checkpoint": second_training, "extra_state": {"searched": found}}
                self._train(rows, context, save_every, steps=self.steps_, **options)
            self._module.cpu().eval()
        return self

    def raw_scores(self, X: FloatArray, aligned: Aligned | None = None) -> Float64:
        """See :meth:`Head.raw_scores`."""
        X = self._features(X)
        rows = self._rows(X, aligned, np.zeros((len(X), 0)), None)
        found = [part for _, part in predict_logits(self._module, rows, torch.arange(len(rows)), torch.device("cpu"))]
        scores = torch.cat(found) if found else torch.zeros(0, len(self._offset))
        return np.asarray(scores.double().numpy() * self._unit + self._offset)

    def gates(self, aligned: Aligned) -> dict[str, NDArray[np.float32]]:
        """The weight that a ``gated`` head gives each input in each row.

        Raises:
            ValueError: For another kind.
        """
        if not isinstance(self._module, Gated):
            raise ValueError(f"a head of kind {self.kind} has no gates")
        values, present = self._stacked(aligned, 0)
        with torch.no_grad():
            gates = self._module.gates(torch.from_numpy(values), torch.from_numpy(present)).numpy()
        return {name: gates[:, place] for place, name in enumerate(self.inputs_)}

    def state(self) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        """What JSON can hold and what safetensors can hold of a trained head."""
        arrays = {"slope": self.scores_.slope, "offset": self.scores_.offset, "unit": self._unit, "mean": self._offset}
        tensors = {name: torch.from_numpy(np.array(array, dtype=np.float64)) for name, array in arrays.items()}
        tensors |= {f"module.{name}": value.contiguous() for name, value in self._module.state_dict().items()}
        own = {"dim": self._module.output.in_features, "steps": self.steps_}
        return self._header(own, inputs=self.inputs_, shares=self.shares_), tensors

    @classmethod
    def restore(cls, about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Self:
        """The head whose :meth:`state` this is."""
        arrays = {name: value.numpy() for name, value in tensors.items() if not name.startswith("module.")}
        head = cls._of_header(about, arrays["slope"], arrays["offset"])
        head._check_params(())
        head.n_features_in_, head.steps_ = about["dim"], about["steps"]
        head._unit, head._offset = arrays["unit"], arrays["mean"]
        head._module = head._new(about["dim"], len(arrays["slope"]))
        weights = {name.removeprefix("module."): value for name, value in tensors.items() if name.startswith("module.")}
        head._module.load_state_dict(weights)
        head._module.eval()
        return head

    def save(self, folder: str | Path) -> None:
        """Writes ``head.safetensors`` and ``head.json``."""
        about, tensors = self.state()
        save_estimator(folder, "head", about, {name: tensor.numpy() for name, tensor in tensors.items()})

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """The head that :meth:`save` wrote.

        Raises:
            ValueError: If the folder holds something else.
        """
        about, arrays = load_estimator(folder, "head", cls.FORMAT, 1)
        return cls.restore(about, {name: torch.from_numpy(array) for name, array in arrays.items()})

    def _search(
        self,
        given: tuple[FloatArray, NDArray[Any], list[object]],
        rows: HeadRows,
        out: NDArray[np.bool_],
        ridge: float,
        targets: Targets,
        context: TrainingContext,
        save_every: int,
    ) -> dict[str, Any]:
        """Trains on the rows that are not held out; how many steps are best, and the calibration on the held-out."""
        X, y, keys = given
        kept, rest = np.flatnonzero(~out), np.flatnonzero(out)
        part = LinearHead(self.task_, ridge, class_weight=self.class_weight, seed=self.seed)
        part.fit(X[kept], y[kept], groups=[keys[row] for row in kept])
        within, without = rows.take(torch.from_numpy(kept)), rows.take(torch.from_numpy(rest))
        self._module = self._started(part, rows, targets)
        steps = self._train(within, context, save_every, held_out=without)
        found = [block for _, block in predict_logits(self._module, without, torch.arange(len(rest)), context.device)]
        scores = torch.cat(found).double().numpy() * self._unit + self._offset
        read = CalibratedScores.calibrated(targets, scores, targets.encode(y[rest]), without.weight.double().numpy())
        found_steps = {"steps": round(steps * len(rows) / len(within)), "score": read.score(scores, y[rest])}
        return found_steps | {"slope": read.slope.tolist(), "offset": read.offset.tolist()}

    def _started(self, linear: LinearHead, rows: HeadRows, targets: Targets | None = None) -> LinearOnAverage:
        """A new module that says what the linear head says, its classes put where ``targets`` has them."""
        slope, offset = linear.scores_.slope, linear.scores_.offset
        coefficients, intercepts = linear.coef_ * slope, linear.intercept_ * slope + offset
        outputs_ = rows.target.shape[1]
        if targets is not None and targets.classes != linear.scores_.targets.classes:
            place = [targets.classes.index(name) for name in linear.scores_.targets.classes]
            wide, low = np.zeros((len(coefficients), outputs_)), np.full(outputs_, float(intercepts.min()) - 2.0)
            wide[:, place], low[place] = coefficients, intercepts
            coefficients, intercepts = wide, low
        coefficients, intercepts = coefficients / self._unit, (intercepts - self._offset) / self._unit
        reseed(self.seed, self._device)
        module = self._new(rows.fused.shape[1], outputs_)
        scale = float(rows.fused.square().mean().sqrt().clamp_min(1e-12).reciprocal())
        as_tensor = [torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)) for a in (coefficients, intercepts)]
        module.start(as_tensor[0], as_tensor[1], scale)
        return module

    def _new(self, dim: int, outputs_: int) -> LinearOnAverage:
        return KINDS[self.kind](
            dim, outputs_, inputs=len(self.inputs_), hidden=self.hidden, shares=[self.shares_[n] for n in self.inputs_]
        )

    def _train(self, rows: HeadRows, context: TrainingContext, save_every: int, **options: Any) -> int:
        settings = TrainingSettings(self.epochs, self.patience, self.learning_rate, self.weight_decay, self.seed)
        options |= {"batch_size": self.batch_size, "save_every": save_every}
        return train_head_network(self._module, rows, self.task_, settings, context, **options)

    def _rows(self, X: FloatArray, aligned: Aligned | None, Y: Float64, targets: Targets | None) -> HeadRows:
        """Rows as tensors; with ``targets``, also what turns outputs into values (regression)."""
        values, present = self._stacked(aligned, len(X))
        if len(values) != len(X):
            raise ValueError(f"{len(values)} rows of aligned inputs for {len(X)} fused vectors")
        if self.kind != "mlp" and values.shape[::2] != X.shape:
            raise ValueError(f"aligned inputs of shape {values.shape[::2]} for fused vectors of shape {X.shape}")
        weight = np.ones(len(X))
        if targets is not None:
            weight = targets.row_weights(Y, self.class_weight)
            self._unit, self._offset = np.ones(Y.shape[1]), np.zeros(Y.shape[1])
            if self.task_ == "regression":
                self._unit, self._offset = np.maximum(Y.std(axis=0), 1e-12), Y.mean(axis=0)
                Y = (Y - self._offset) / self._unit
        arrays = (X.astype(np.float32, copy=False), values, present, Y.astype(np.float32), weight.astype(np.float32))
        return HeadRows(*(torch.from_numpy(np.require(array, requirements=["C", "W"])) for array in arrays))

    def _stacked(self, aligned: Aligned | None, n: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """(n, inputs, dim) values, zeros where missing, and (n, inputs) presence."""
        if aligned is None:
            if self.kind != "mlp":
                raise ValueError(f"a head of kind {self.kind} needs the aligned inputs")
            shape = (n, len(self.inputs_))
            return np.zeros((*shape, 1), dtype=np.float32), np.ones(shape, dtype=bool)
        given = check_views(aligned)
        if unknown := [name for name in given if name not in self.inputs_]:
            raise ValueError(f"{', '.join(unknown)}: unknown input; the head reads {', '.join(self.inputs_)}")
        arrays = {name: as_matrix(name, values) for name, values in given.items()}
        widths = {name: values.shape[1] for name, values in arrays.items()}
        if len(set(widths.values())) > 1:
            raise ValueError(f"aligned inputs differ in width: {widths}")
        shape = next(iter(arrays.values())).shape
        values = np.zeros((shape[0], len(self.inputs_), shape[1]), dtype=np.float32)
        present = np.zeros(values.shape[:2], dtype=bool)
        for place, name in enumerate(self.inputs_):
            if name in arrays:
                there = present_rows(name, arrays[name])
                present[:, place], values[there, place] = there, arrays[name][there]
        return values, present
