"""Text models of transformers: sentence encoders, plain transformers, and the text towers of CLIP and SigLIP."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from barycenter.fusion.encoders.base import Description, Encoder, EncoderSpec, Vectors
from barycenter.fusion.encoders.batch_check import TOLERANCE, check_independence, depends_on_batch
from barycenter.fusion.encoders.device import Launched, moved, returned
from barycenter.fusion.encoders.fingerprint import versions
from barycenter.fusion.encoders.hub import (
    changes_itself,
    encoder_errors,
    fits_memory,
    load_model,
    model_digest,
    model_folder,
    read_config,
    rotary_kinds,
    starts_anew,
    unloaded_width,
)
from barycenter.fusion.encoders.onednn_linear import prepack
from barycenter.fusion.encoders.sentence_config import TOKENS, Recipe, read_recipe
from barycenter.fusion.encoders.sentence_modules import MASK, POOLED_MASK, Features, mean_pooling, read_steps
from barycenter.fusion.encoders.text.architecture import Reader, auto_class, reading_of
from barycenter.fusion.encoders.text.tokens import Tokens
from barycenter.fusion.encoders.values import checked_text
from barycenter.fusion.errors import JobError

if TYPE_CHECKING:
    from barycenter.fusion.encoders.text.unpadded import Packed

_WINDOW = 2048
_HALF_TOLERANCE = 0.1
_PROBES = ("a boat", "red crab", "the sun sets over 3 small houses", "a", "one, two: " * 7 + "and the rest of it.")

log = logging.getLogger(__name__)


def _fills_length(config: Any) -> bool:
    """SigLIP was trained on texts padded to full length with the padding attended to."""
    return str(config.model_type).startswith("siglip")


def _read(spec: EncoderSpec) -> tuple[Path, Recipe, Any]:
    """The folder of a text model, how it wants to be used, and its configuration."""
    folder = model_folder(spec)
    with encoder_errors("encoder", f"{spec.encoder} has settings that cannot be read"):
        recipe = read_recipe(folder)
    if recipe.refusal is not None:
        raise JobError("encoder", f"{spec.encoder} cannot be used for texts: {recipe.refusal}")
    return folder, recipe, read_config(recipe.transformer, spec)


def describe(spec: EncoderSpec) -> Description:
    """Width and fingerprint of a transformers text encoder, found by running it on a few texts.

    A model that does not fit half of this machine's free memory is not run: its width is taken from its configuration,
    and a warning says that its vectors were not checked.

    Raises:
        JobError: The folder or hub id cannot be used for texts, or a text's vector depends on chance or on the texts
            that are encoded with it.
    """
    folder, recipe, config = _read(spec)
    if fits_memory(recipe.transformer):
        encoder = _load(replace(spec, dtype="float32"), recipe, config, "cpu")
        with encoder_errors("encoder", f"{spec.encoder} does not read texts"):
            check_independence(encoder, encoder.probes, str(spec.encoder))
        pooled, width, limit, together = encoder.pooled, encoder.dim, encoder.tokens.limit, encoder.together
    else:
        log.warning("%s: does not fit this machine's memory: not checked whether its vectors depend on the batch",
                    spec.encoder)  # fmt: skip
        model, width = unloaded_width(auto_class(config, recipe), spec, config)
        pooled, together = reading_of(recipe, model, config).pooled, "padded"
        limit = Tokens(recipe, config, spec, model).limit
    return Description.of(
        width,
        {
            "kind": "text",
            "model": config.model_type,
            "files": model_digest(folder, spec.trust_remote_code),
            "pooling": ["tower"] if pooled else list(recipe.modes or ("mean",)),
            "then": [kind for kind, _ in recipe.steps if kind != "Pooling"],
            "prompt": recipe.prompt,
            "max_length": limit,
            "dtype": spec.dtype,
            **({} if spec.long_text == "truncate" else {"long_text": spec.long_text}),
            **({} if together == "padded" else {"together": together}),
            "libraries": versions("torch", "transformers", "tokenizers"),
        },
    )


def load(spec: EncoderSpec, device: str) -> Encoder:
    """A transformers text model with its tokeniser, ready to encode.

    A sentence-transformers folder is used as its ``modules.json`` says. A plain folder's last hidden states are
    averaged over the tokens, without normalisation. CLIP and SigLIP give their projected text embedding.

    Raises:
        JobError: As :func:`describe`, or weights are missing.
    """
    _, recipe, config = _read(spec)
    encoder = _load(spec, recipe, config, device)
    if spec.long_text == "truncate":
        return encoder
    from barycenter.fusion.encoders.text.windows import Windowed

    return Windowed(encoder)


def _load(spec: EncoderSpec, recipe: Recipe, config: Any, device: str) -> "TextEncoder":
    model, _ = load_model(auto_class(config, recipe), recipe.transformer, spec, optional=("pooler.", "position_ids"))
    tower = reading_of(recipe, model, config).method == "get_text_features"
    if tower and hasattr(model, "vision_model"):
        del model.vision_model
    with encoder_errors("encoder", f"{spec.encoder} does not read texts"):
        return TextEncoder(model, config, recipe, spec, device)


def _packed(model: nn.Module, tokens: Tokens) -> "Packed | None":
    """Imported here: torch's attention of variable length brings its compiler along, seconds that a CPU never needs."""
    from barycenter.fusion.encoders.text.unpadded import Packed

    return Packed.of(model, tokens.pad_id)


class TextEncoder(Encoder):
    """A text model; batches are measured in tokens, padding included.

    Attributes:
        model: The transformer in eval mode on its device.
        tokens: Its tokeniser.
        packed: Runs the model without padding; None where it cannot be, or on a CPU, where sorted batches have little.
        pooled: Whether the model itself gives one vector a text.
        together: Which texts of a batch the model is run on at once, so that no vector depends on the others:
            ``padded`` (all), ``equal lengths`` (without padding), ``alone``.
        probes: A few prepared texts, on which it was found.
    """

    def __init__(self, model: nn.Module, config: Any, recipe: Recipe, spec: EncoderSpec, device: str) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.tokens = Tokens(recipe, config, spec, model)
        self._read = Reader(model, reading_of(recipe, model, config))
        self.pooled = self._read.pooled
        self._fill = _fills_length(config) and (recipe.reading is None or recipe.fill)
        steps = mean_pooling() if recipe.reading is None and not self.pooled else read_steps(recipe)
        self._steps = steps.to(self.device)
        self._anew = starts_anew(model)
        cpu = self.device.type == "cpu"
        self.parallel = cpu and not changes_itself(model, spec) and self._anew is None
        self.trials = (256, 512, 1024, 2048, 4096, 8192) if cpu else (8192, 16384, 32768, 65536, 131072)
        self.packed: Packed | None = None
        lengthy = self._anew is not None or "longrope" in rotary_kinds(model)
        self.together = "equal lengths" if lengthy or not self._read.masked else "padded"
        self.probes = self._readable(self.tokens(_PROBES))
        if not self._fill:
            self._read.settle(torch.tensor(self.probes[:1], device=self.device))
        self.dim = int(self.encode(self.probes[:1]).shape[1])
        if cpu:
            prepack(self.model, lambda: self.encode(self.probes[:1]))
        half = next(self.model.parameters()).dtype != torch.float32
        self._find_together(_HALF_TOLERANCE if half else TOLERANCE)
        if half and not cpu and not self.pooled and self.together == "padded":
            self.packed = _packed(self.model, self.tokens)

    def _readable(self, probes: list[list[int]]) -> list[list[int]]:
        """Those of the probes that are long enough; shorter texts are refused row by row from now on.

        Models that shorten their sequence on the way (Funnel, CANINE) fail on texts of fewer tokens.
        """
        if self._fill:
            return probes
        ordered = sorted(probes, key=len)
        first = next((number for number, ids in enumerate(ordered) if self._reads(ids)), None)
        if first:
            failed, read = len(ordered[first - 1]), ordered[first]
            self.tokens.least = next(n for n in range(failed + 1, len(read) + 1) if self._reads(read[:n]))
        return [ids for ids in probes if len(ids) >= self.tokens.least]

    @torch.inference_mode()
    def _reads(self, ids: list[int]) -> bool:
        given = torch.tensor([ids], device=self.device)
        try:
            self._read(given, torch.ones_like(given))
        except Exception:  # noqa: BLE001 - a model's own code fails in any way
            return False
        return True

    def _find_together(self, tolerance: float) -> None:
        """Tries what is fastest first; where nothing helps, texts go alone, and the caller's check says why."""
        ways = ("padded", "equal lengths", "alone")
        for way in ways[ways.index(self.together) :]:
            self.together = way
            if not depends_on_batch(self, self.probes, tolerance):
                return

    def prepare(self, value: object) -> list[int]:
        """One text's token ids.

        Raises:
            BadInputError: As :func:`barycenter.fusion.encoders.values.checked_text`.
        """
        return self.tokens([checked_text(value)])[0]

    def cost(self, prepared: list[int]) -> int:
        """Tokens the model will read."""
        return self.tokens.limit if self._fill else len(prepared)

    def window(self, batch: int) -> int:
        """Rows sorted by length together: enough that neighbours are nearly equally long."""
        del batch
        return _WINDOW

    @torch.inference_mode()
    def launch(self, batch: Sequence[list[int]]) -> Launched:
        """Starts the model on token ids."""
        if self.together == "padded" or len(batch) == 1:
            return returned(self._vectors(batch))
        vectors: torch.Tensor | None = None
        for rows in _groups(batch, self.together == "alone"):
            part = self._vectors([batch[row] for row in rows])
            vectors = part.new_empty(len(batch), part.shape[1]) if vectors is None else vectors
            vectors[rows] = part
        assert vectors is not None
        return returned(vectors)

    def _vectors(self, batch: Sequence[list[int]]) -> torch.Tensor:
        ids, mask = self._padded(batch)
        if self._anew is not None:
            self._anew(ids.shape[1])
        if self.packed is not None and mask is not None:
            states = self.packed.states(ids, mask.bool())
        else:
            states = self._read(ids, None if self._fill else mask)
        if self.pooled:
            return self._steps(states)  # type: ignore[no-any-return]
        counted = torch.ones_like(ids) if mask is None else mask
        features: Features = {TOKENS: states, MASK: counted, POOLED_MASK: counted}
        if self.tokens.prompt_length:
            features[POOLED_MASK] = counted.clone()
            features[POOLED_MASK][:, : self.tokens.prompt_length] = 0
        return self._steps.run(features)

    def _padded(self, batch: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids padded to the longest, and their mask; no mask where nothing was padded.

        Padding that is attended to stands where the tokeniser puts it, any other at the end.
        """
        lengths = np.fromiter(map(len, batch), np.int64, len(batch))
        longest = self.tokens.limit if self._fill else max(int(lengths.max()), 1)
        places = np.arange(longest)[None, :]
        ahead = self._fill and self.tokens.pads_ahead
        mask = places >= longest - lengths[:, None] if ahead else places < lengths[:, None]
        ids = np.full(mask.shape, self.tokens.pad_id, np.int64)
        ids[mask] = np.concatenate([np.asarray(row, np.int64) for row in batch])
        return moved(ids, self.device), None if mask.all() else moved(mask.astype(np.int64), self.device)

    def fetch(self, launched: Launched) -> Vectors:
        """Waits for the vectors: (n, dim) float32."""
        return launched.vectors()

    def encode(self, batch: Sequence[list[int]]) -> Vectors:
        """Encodes token ids: (n, dim) float32."""
        return self.fetch(self.launch(batch)) if len(batch) else np.zeros((0, self.dim), np.float32)


def _groups(batch: Sequence[list[int]], alone: bool) -> Iterator[list[int]]:
    """Rows that the model is run on at once.

    >>> list(_groups([[1, 2], [3], [4, 5]], False)), list(_groups([[1], [2]], True))
    ([[0, 2], [1]], [[0], [1]])
    """
    lengths: dict[int, list[int]] = {}
    for row, ids in enumerate(batch):
        lengths.setdefault(row if alone else len(ids), []).append(row)
    yield from lengths.values()
