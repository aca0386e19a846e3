"""Which encoder is proposed for a kind of input: one that is on this machine and can be used, else a built-in one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from barycenter.fusion.encoders import EncoderSpec
from barycenter.fusion.encoders.builtin import DESCRIPTOR, HASHING
from barycenter.fusion.encoders.local_models import LocalModel, cached_models, models_near
from barycenter.fusion.errors import JobError
from barycenter.tasks.run.encoder_cache import cached_description

BUILT_IN: dict[str, str] = {"text": HASHING, "image": DESCRIPTOR}
FROM_THE_HUB = {"text": "sentence-transformers/all-MiniLM-L6-v2", "image": "google/siglip-base-patch16-224"}
"""Pretrained models that are better than a built-in one, for a comment."""

_SHOWN = 3


@dataclass(frozen=True)
class ChosenEncoder:
    """An encoder as the job file names it, and why."""

    encoder: str
    weights: str | None
    why: str


class LocalEncoders:
    """The encoders on this machine: in the hub's cache and near some folders; looked for once, when first needed."""

    def __init__(self, places: Iterable[Path]) -> None:
        self._places = list(places)
        self._models: Sequence[LocalModel] | None = None
        self._chosen: dict[str, ChosenEncoder] = {}

    def choose(self, kind: Literal["text", "image"]) -> ChosenEncoder:
        """The encoder for a kind of input; of several the one made for sentences, then the smallest."""
        if kind not in self._chosen:
            self._chosen[kind] = self._choose(kind)
        return self._chosen[kind]

    def _choose(self, kind: Literal["text", "image"]) -> ChosenEncoder:
        if self._models is None:
            self._models = [*models_near(self._places), *cached_models()]
        models = [model for model in self._models if kind in model.kinds]
        models.sort(key=lambda model: (kind == "text" and not model.sentences, len(model.kinds), model.bytes))
        unusable: list[str] = []
        for number, model in enumerate(models):
            try:
                cached_description(_spec(kind, model))
            except JobError as error:
                unusable.append(f"{model.encoder}: {error.problem}")
                continue
            others = [other.encoder for other in models[number + 1 :]]
            return ChosenEncoder(model.encoder, str(model.weights) if model.weights else None, _why(model, others))
        found_none = "no model is in the hub's cache or in a folder near"
        return ChosenEncoder(BUILT_IN[kind], None, f"built in; {unusable[0] if unusable else found_none}")


def _spec(kind: Literal["text", "image"], model: LocalModel) -> EncoderSpec:
    if model.weights is not None:
        return EncoderSpec(kind, model.encoder, weights=str(model.weights))
    return EncoderSpec(kind, str(model.folder))


def _why(model: LocalModel, others: list[str]) -> str:
    where = "in the hub's cache" if model.weights is None and model.encoder != str(model.folder) else "on this machine"
    also = f"; also there: {', '.join(others[:_SHOWN])}" if others else ""
    return f"{where}, {model.bytes / 1e6:,.1f} MB{also}"
