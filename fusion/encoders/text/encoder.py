"""Text models of transformers: sentence encoders, plain transformers, and the text towers of CLIP and SigLIP."""

import logging
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from barycenter.fusion.encoders.base import Description, Encoder, EncoderSpec
from barycenter.fusion.encoders.batch_check import (
    ROWS_FILLED_TO,
    TOLERANCE,
    check_independence,
    check_reproducible,
    depends_on_batch,
    gives_same_bytes,
)
from barycenter.fusion.encoders.device import DeviceEncoder, PendingVectors, to_device, to_host_async
from barycenter.fusion.encoders.hub import (
    attention_reset,
    encoder_errors,
    fits_memory,
    hidden_size_without_weights,
    is_stateful,
    load_model,
    model_digest,
    model_folder,
    read_config,
    rope_types,
)
from barycenter.fusion.encoders.onednn_linear import use_onednn_linear
from barycenter.fusion.encoders.row_values import check_text
from barycenter.fusion.encoders.sentence_config import (
    LAST_HIDDEN_STATE,
    TOKEN_EMBEDDINGS,
    SentenceConfig,
    read_sentence_config,
)
from barycenter.fusion.encoders.sentence_modules import MASK, POOLED_MASK, Features, load_modules, mean_pooling
from barycenter.fusion.encoders.text.architecture import TextModel, auto_class, text_output
from barycenter.fusion.encoders.text.tokenizer import Tokenizer
from barycenter.fusion.errors import JobError

if TYPE_CHECKING:
    from barycenter.fusion.encoders.text.variable_length import VariableLengthModel

_WINDOW = 2048
_TRIED_LENGTHS = (1, 2, 3, 4, 5, 7, 8, 9, 11, 13, 14, 17)
_WAYS = ("padded", "equal lengths", "alone")
_HALF_TOLERANCE = 0.1
_SAMPLE_TEXTS = (
    "a boat",
    "red crab",
    "the sun sets over 3 small houses",
    "a",
    "one, two: " * 7 + "and the rest of it.",
)

log = logging.getLogger(__name__)


def _attends_to_padding(config: Any) -> bool:
    """SigLIP was trained on texts padded to full length with the padding attended to."""
    return str(config.model_type).startswith("siglip")


def _read_folder(spec: EncoderSpec) -> tuple[Path, SentenceConfig, Any]:
    """The folder of a text model, how it wants to be used, and its configuration."""
    folder = model_folder(spec)
    with encoder_errors("encoder", f"{spec.encoder} has settings that cannot be read"):
        settings = read_sentence_config(folder)
    if settings.unsupported is not None:
        raise JobError("encoder", f"{spec.encoder} cannot be used for texts: {settings.unsupported}")
    return folder, settings, read_config(settings.transformer, spec)


def describe(spec: EncoderSpec) -> Description:
    """Width and fingerprint of a transformers text encoder, found by running it on a few texts.

    A model that does not fit half of this machine's free memory is not run: its width is taken from its configuration,
    and a warning says that its vectors were not checked.

    Raises:
        JobError: The folder or hub id cannot be used for texts, or a text's vector depends on chance or on the texts
            that are encoded with it.
    """
    folder, settings, config = _read_folder(spec)
    if fits_memory(settings.transformer):
        encoder = _load(replace(spec, dtype="float32"), settings, config, "cpu")
        with encoder_errors("encoder", f"{spec.encoder} does not read texts"):
            check_independence(encoder, encoder.samples, str(spec.encoder))
        if spec.reproducible:
            run_as = encoder if spec.dtype == "float32" else _load(spec, settings, config, "cpu")
            check_reproducible(run_as, str(spec.encoder))
        pooled, batching = encoder.pooled, encoder.batching
        width, max_length = encoder.dim, encoder.tokenizer.max_length
    elif spec.reproducible:
        raise JobError(
            "reproducible",
            f"{spec.encoder} does not fit this machine's memory, so that it cannot be tried; leave the key out",
        )
    else:
        log.warning("%s: does not fit this machine's memory: not checked whether its vectors depend on the batch",
                    spec.encoder)  # fmt: skip
        model, width = hidden_size_without_weights(auto_class(config, settings), spec, config)
        pooled, batching = text_output(settings, model, config).pooled, "padded"
        max_length = Tokenizer(settings, config, spec, model).max_length
    return Description.of(
        width,
        {
            "kind": "text",
            "model": config.model_type,
            "files": model_digest(folder, spec.trust_remote_code),
            "pooling": ["tower"] if pooled else list(settings.pooling_modes or ("mean",)),
            "then": [kind for kind, _ in settings.steps if kind != "Pooling"],
            "prompt": settings.prompt,
            "max_length": max_length,
            "dtype": spec.dtype,
            **({} if spec.long_text == "truncate" else {"long_text": spec.long_text}),
            **({} if batching == "padded" else {"together": batching}),
            "engine": spec.engine,
            **({} if spec.reproducible is None else {"reproducible": spec.reproducible}),
        },
    )


def load(spec: EncoderSpec, device: str) -> Encoder:
    """A transformers text model with its tokenizer, ready to encode.

    A sentence-transformers folder is used as its ``modules.json`` says. A plain folder's last hidden states are
    averaged over the tokens, without normalization. CLIP and SigLIP give their projected text embedding.

    Raises:
        JobError: As :func:`describe`, or weights are missing.
    """
    _, settings, config = _read_folder(spec)
    encoder = _load(spec, settings, config, device)
    if spec.reproducible:
        check_reproducible(encoder, str(spec.encoder))
    if spec.long_text == "truncate":
        return encoder
    from barycenter.fusion.encoders.text.windows import WindowedTextEncoder

    return WindowedTextEncoder(encoder)


def _load(spec: EncoderSpec, settings: SentenceConfig, config: Any, device: str) -> "TextEncoder":
    model, _ = load_model(
        auto_class(config, settings), settings.transformer, spec, optional=("pooler.", "position_ids")
    )
    tower = text_output(settings, model, config).method == "get_text_features"
    if tower and hasattr(model, "vision_model"):
        del model.vision_model
    with encoder_errors("encoder", f"{spec.encoder} does not read texts"):
        return TextEncoder(model, config, settings, spec, device)


def _without_padding(model: nn.Module, tokenizer: Tokenizer) -> "VariableLengthModel | None":
    """The model run without padding; None where it cannot be."""
    from barycenter.fusion.encoders.text.variable_length import VariableLengthModel

    return VariableLengthModel.of(model, tokenizer.pad_id)


class TextEncoder(DeviceEncoder):
    """A text model; batches are measured in tokens, padding included.

    Attributes:
        model: The transformer in eval mode on its device.
        tokenizer: Its tokenizer.
        unpadded: Runs the model without padding (variable-length attention); None where it cannot.
        pooled: Whether the model itself gives one vector a text.
        batching: Which texts of a batch the model is run on at once, so that no vector depends on the others:
            ``padded`` (all, with padding unless ``unpadded``), ``equal lengths`` (without padding), ``alone``.
        samples: A few prepared texts, on which it was found.
    """

    def __init__(self, model: nn.Module, config: Any, settings: SentenceConfig, spec: EncoderSpec, device: str) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.tokenizer = Tokenizer(settings, config, spec, model)
        self._text_model = TextModel(model, text_output(settings, model, config))
        self.pooled = self._text_model.pooled
        self._pad_to_max_length = _attends_to_padding(config) and (
            settings.model_output is None or settings.pad_to_max_length
        )
        steps = mean_pooling() if settings.model_output is None and not self.pooled else load_modules(settings)
        self._steps = steps.to(self.device)
        self._reproducible_asked = spec.reproducible
        self._reset_attention = attention_reset(model)
        cpu = self.device.type == "cpu"
        self.parallel = cpu and not is_stateful(model, spec) and self._reset_attention is None
        self.batch_sizes = (256, 512, 1024, 2048, 4096, 8192) if cpu else (8192, 16384, 32768, 65536, 131072)
        self.unpadded: VariableLengthModel | None = None
        lengthy = self._reset_attention is not None or "longrope" in rope_types(model)
        self.batching = "equal lengths" if lengthy or not self._text_model.accepts_mask else "padded"
        self.samples = self._long_enough(self.tokenizer(_SAMPLE_TEXTS))
        if not self._pad_to_max_length:
            self._text_model.detect_required_mask(torch.tensor(self.samples[:1], device=self.device))
        self.dim = int(self.encode(self.samples[:1]).shape[1])
        if cpu and spec.onednn:
            use_onednn_linear(self.model, lambda: self.encode(self.samples[:1]))
        half = next(self.model.parameters()).dtype != torch.float32
        tolerance = _HALF_TOLERANCE if half else TOLERANCE
        self._choose_batching(tolerance)
        plain = text_output(settings, model, config) == LAST_HIDDEN_STATE and not self._text_model.needs_mask
        if plain and self.batching == "padded" and (spec.reproducible is not False if cpu else half):
            self.unpadded = _without_padding(self.model, self.tokenizer)
        if cpu and self.parallel and spec.reproducible is not False:
            self._choose_reproducible(tolerance)

    def _long_enough(self, samples: list[list[int]]) -> list[list[int]]:
        """Those of the samples that are long enough; shorter texts are refused row by row from now on.

        Models that shorten their sequence on the way (Funnel, CANINE) fail on texts of fewer tokens.
        """
        if self._pad_to_max_length:
            return samples
        ordered = sorted(samples, key=len)
        first = next((number for number, ids in enumerate(ordered) if self._can_read(ids)), None)
        if first:
            failed, read = len(ordered[first - 1]), ordered[first]
            self.tokenizer.min_length = next(n for n in range(failed + 1, len(read) + 1) if self._can_read(read[:n]))
        return [ids for ids in samples if len(ids) >= self.tokenizer.min_length]

    @torch.inference_mode()
    def _can_read(self, ids: list[int]) -> bool:
        given = torch.tensor([ids], device=self.device)
        try:
            self._text_model(given, torch.ones_like(given))
        except Exception:  # noqa: BLE001 - a model's own code fails in any way
            return False
        return True

    def _choose_batching(self, tolerance: float) -> None:
        """Tries what is fastest first; where nothing helps, texts go alone, and the caller's check says why."""
        for way in _WAYS[_WAYS.index(self.batching) :]:
            self.batching = way
            if not depends_on_batch(self, self.samples, tolerance):
                return

    def _choose_reproducible(self, tolerance: float) -> None:
        """Finds whether texts get the same bytes as they are run now; if that is asked for, takes a way that gives it.

        Without padding is as fast as with it, and so is kept only where it gives them.
        """
        rows = _tried_rows(self.samples, self.tokenizer.min_length)
        padded = self.unpadded is None and self.batching == "padded" and not self._pad_to_max_length
        self.reproducible = not padded and gives_same_bytes(self, rows)
        if self.unpadded is not None and (not self.reproducible or depends_on_batch(self, self.samples, tolerance)):
            self.unpadded, self.reproducible = None, False
        if self.reproducible or not self._reproducible_asked:
            return
        for way in _WAYS[_WAYS.index(self.batching) + 1 :]:
            self.batching = way
            self.reproducible = gives_same_bytes(self, rows)
            if self.reproducible:
                return

    def prepare(self, value: object) -> list[int]:
        """One text's token ids."""
        return self.tokenizer([check_text(value)])[0]

    def cost(self, prepared: list[int]) -> int:
        """Tokens the model will read."""
        return self.tokenizer.max_length if self._pad_to_max_length else len(prepared)

    def window_rows(self, batch_size: int) -> int:
        """Rows that are sorted by length together, so many that neighbors are nearly equally long."""
        del batch_size
        return _WINDOW

    @torch.inference_mode()
    def launch(self, batch: Sequence[list[int]]) -> PendingVectors:
        """Starts the model on token ids."""
        if self.batching == "padded":
            return to_host_async(self._vectors(batch))
        vectors: torch.Tensor | None = None
        for rows in _rows_run_together(batch, self.batching == "alone"):
            part = self._vectors(_filled([batch[row] for row in rows]))[: len(rows)]
            vectors = part.new_empty(len(batch), part.shape[1]) if vectors is None else vectors
            vectors[rows] = part
        assert vectors is not None
        return to_host_async(vectors)

    def _vectors(self, batch: Sequence[list[int]]) -> torch.Tensor:
        ids, mask = self._padded(batch)
        if self._reset_attention is not None:
            self._reset_attention(ids.shape[1])
        if self.unpadded is not None:
            states = self.unpadded.states(ids, torch.ones_like(ids).bool() if mask is None else mask.bool())
        else:
            states = self._text_model(ids, None if self._pad_to_max_length else mask)
        if self.pooled:
            return self._steps(states)  # type: ignore[no-any-return]
        counted = torch.ones_like(ids) if mask is None else mask
        features: Features = {TOKEN_EMBEDDINGS: states, MASK: counted, POOLED_MASK: counted}
        if self.tokenizer.prompt_length:
            features[POOLED_MASK] = counted.clone()
            features[POOLED_MASK][:, : self.tokenizer.prompt_length] = 0
        return self._steps.run(features)

    def _padded(self, batch: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids padded to the longest, and their mask; no mask where nothing was padded.

        Padding that is attended to stands where the tokenizer puts it, any other at the end.
        """
        lengths = np.fromiter(map(len, batch), np.int64, len(batch))
        longest = self.tokenizer.max_length if self._pad_to_max_length else max(int(lengths.max()), 1)
        places = np.arange(longest)[None, :]
        ahead = self._pad_to_max_length and self.tokenizer.pads_left
        mask = places >= longest - lengths[:, None] if ahead else places < lengths[:, None]
        ids = np.full(mask.shape, self.tokenizer.pad_id, np.int64)
        ids[mask] = np.concatenate([np.asarray(row, np.int64) for row in batch])
        return to_device(ids, self.device), None if mask.all() else to_device(mask.astype(np.int64), self.device)


def _tried_rows(samples: list[list[int]], least: int) -> list[list[int]]:
    """Three rows of each of several lengths, of the words of samples."""
    draw, longest = random.Random(0), max(map(len, samples))
    lengths = sorted({length for length in _TRIED_LENGTHS if least <= length <= longest})
    words = [word for ids in samples for word in ids[1:-1]] or samples[0]
    ends = max(samples, key=len)
    rows = [[ends[0], *draw.choices(words, k=length), ends[-1]][-length:] for length in lengths for _ in range(3)]
    return [*samples, *rows]


def _filled(texts: list[list[int]]) -> list[list[int]]:
    """Texts of one length with one of them repeated until there are :data:`.batch_check.ROWS_FILLED_TO` tokens."""
    rows = -(-ROWS_FILLED_TO // max(len(texts[0]), 1))
    return texts + texts[:1] * (rows - len(texts))


def _rows_run_together(batch: Sequence[list[int]], alone: bool) -> Iterator[list[int]]:
    """Rows that the model is run on at once.

    >>> list(_rows_run_together([[1, 2], [3], [4, 5]], False)), list(_rows_run_together([[1], [2]], True))
    ([[0, 2], [1]], [[0], [1]])
    """
    lengths: dict[int, list[int]] = {}
    for row, ids in enumerate(batch):
        lengths.setdefault(row if alone else len(ids), []).append(row)
    yield from lengths.values()
