"""Text models of transformers: sentence encoders, plain transformers, and the text towers of CLIP and SigLIP."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import transformers
from torch import nn

from fusion.encoders.base import Description, Encoder, EncoderSpec, Vectors
from fusion.encoders.device import Launched, moved, returned
from fusion.encoders.digest import versions
from fusion.encoders.hub import blank_model, changes_itself, load_model, model_digest, model_folder, read_config, told
from fusion.encoders.prepacked import prepack
from fusion.encoders.sentence import Recipe, pool, read_recipe, read_steps, width_after
from fusion.encoders.tokens import Tokens
from fusion.encoders.values import checked_text
from fusion.errors import JobError

if TYPE_CHECKING:
    from fusion.encoders.packed import Packed

_WINDOW = 2048
_TOKENS_A_LAUNCH = 16_384


def _auto_class(config: Any) -> Any:
    """The class that holds the text part of a model: its own for projecting towers, encoders only of T5's kind."""
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if architecture.endswith("TextModelWithProjection"):
        return getattr(transformers, architecture)
    return transformers.AutoModelForTextEncoding if config.is_encoder_decoder else transformers.AutoModel


def _is_tower(model: nn.Module) -> bool:
    return hasattr(model, "get_text_features")


def _fills_length(config: Any) -> bool:
    """SigLIP was trained on texts padded to full length with the padding attended to."""
    return str(config.model_type).startswith("siglip")


def _text_embedding(output: Any) -> torch.Tensor | None:
    """The output that a projecting text tower gives for a whole text."""
    if isinstance(output, torch.Tensor):
        return output
    projected: torch.Tensor | None = getattr(output, "text_embeds", None)
    return projected if projected is not None else getattr(output, "pooler_output", None)


def _is_pooled(model: nn.Module, config: Any) -> bool:
    projecting = type(model).__name__.endswith("TextModelWithProjection")
    return _is_tower(model) or projecting or config.model_type in ("clip_text_model", "siglip_text_model")


def _forward(model: nn.Module, pooled: bool, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    run: Any = model.get_text_features if _is_tower(model) else model
    output = run(input_ids=ids, attention_mask=mask)
    states = _text_embedding(output) if pooled else output.last_hidden_state
    if not isinstance(states, torch.Tensor):
        raise JobError("encoder", f"{type(model).__name__} gives no text embedding")
    return states


def describe(spec: EncoderSpec) -> Description:
    """Width and fingerprint of a transformers text encoder; weights are hashed, not loaded.

    Raises:
        JobError: The folder or hub id cannot be used for texts.
    """
    folder = model_folder(spec)
    with told("encoder", f"{spec.encoder} has settings that cannot be read"):
        recipe = read_recipe(folder)
    config = read_config(recipe.transformer, spec)
    model = blank_model(_auto_class(config), config, spec)
    pooled = _is_pooled(model, config)
    with told("encoder", f"{spec.encoder} does not read texts"), torch.inference_mode():
        width = int(_forward(model, pooled, torch.zeros(1, 2, dtype=torch.long, device="meta"), None).shape[-1])
    tokens = Tokens(recipe, config, spec)
    return Description.of(
        width if pooled else width_after(recipe, width),
        {
            "kind": "text",
            "model": config.model_type,
            "files": model_digest(folder, spec.trust_remote_code),
            "pooling": ["tower"] if pooled else list(recipe.modes or ("mean",)),
            "then": [kind for kind, _ in recipe.steps],
            "prompt": recipe.prompt,
            "max_length": tokens.limit,
            "dtype": spec.dtype,
            **({} if spec.long_text == "truncate" else {"long_text": spec.long_text}),
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
    recipe = read_recipe(model_folder(spec))
    config = read_config(recipe.transformer, spec)
    model, _ = load_model(_auto_class(config), recipe.transformer, spec, optional=("pooler.", "position_ids"))
    if _is_tower(model) and hasattr(model, "vision_model"):
        del model.vision_model
    encoder = TextEncoder(model, config, recipe, spec, device)
    return encoder if spec.long_text == "truncate" else Windowed(encoder)


def _packed(model: nn.Module, tokens: Tokens) -> "Packed | None":
    """Imported here: torch's attention of variable length brings its compiler along, seconds that a CPU never needs."""
    from fusion.encoders.packed import Packed

    return Packed.of(model, tokens.pad_id)


class TextEncoder(Encoder):
    """A text model; batches are measured in tokens, padding included.

    Attributes:
        model: The transformer in eval mode on its device.
        tokens: Its tokeniser.
        packed: Runs the model without padding; None where it cannot be, or on a CPU, where sorted batches have little.
    """

    def __init__(self, model: nn.Module, config: Any, recipe: Recipe, spec: EncoderSpec, device: str) -> None:
        self.device = torch.device(device)
        self.model = model.to(self.device)
        self.tokens = Tokens(recipe, config, spec)
        self._pooled = _is_pooled(model, config)
        self._fill = _fills_length(config)
        self._modes = recipe.modes or ("mean",)
        self._steps = read_steps(recipe).to(self.device)
        cpu = self.device.type == "cpu"
        self.parallel = cpu and not changes_itself(model, spec)
        self.trials = (256, 512, 1024, 2048, 4096, 8192) if cpu else (8192, 16384, 32768, 65536, 131072)
        half = self.device.type == "cuda" and next(self.model.parameters()).dtype != torch.float32
        self.packed = _packed(self.model, self.tokens) if half and not self._pooled else None
        if cpu:
            prepack(self.model, lambda: self.encode([[self.tokens.pad_id]]))
        self.dim = int(self.encode([[self.tokens.pad_id]]).shape[1])

    def prepare(self, value: object) -> list[int]:
        """One text's token ids.

        Raises:
            BadInputError: As :func:`fusion.encoders.values.checked_text`.
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
        return returned(self._vectors(batch))

    def _vectors(self, batch: Sequence[list[int]]) -> torch.Tensor:
        ids, mask = self._padded(batch)
        if self._pooled:
            return _forward(self.model, True, ids, None if self._fill else mask)
        if self.packed is not None and mask is not None:
            states = self.packed.states(ids, mask.bool())
        else:
            states = _forward(self.model, False, ids, mask)
        counted = torch.ones_like(ids) if mask is None else mask
        if self.tokens.prompt_length:
            counted = counted.clone()
            counted[:, : self.tokens.prompt_length] = 0
        pooled: torch.Tensor = self._steps(pool(states, counted, self._modes))
        return pooled

    def _padded(self, batch: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Ids padded at the end to the longest, and their mask; no mask where nothing was padded."""
        lengths = np.fromiter(map(len, batch), np.int64, len(batch))
        longest = self.tokens.limit if self._fill else max(int(lengths.max()), 1)
        mask = np.arange(longest)[None, :] < lengths[:, None]
        ids = np.full(mask.shape, self.tokens.pad_id, np.int64)
        ids[mask] = np.concatenate([np.asarray(row, np.int64) for row in batch])
        return moved(ids, self.device), None if mask.all() else moved(mask.astype(np.int64), self.device)

    def fetch(self, launched: Launched) -> Vectors:
        """Waits for the vectors: (n, dim) float32."""
        return launched.vectors()

    def encode(self, batch: Sequence[list[int]]) -> Vectors:
        """Encodes token ids: (n, dim) float32."""
        return self.fetch(self.launch(batch)) if len(batch) else np.zeros((0, self.dim), np.float32)


class Windowed(Encoder):
    """A text encoder that reads the whole of every text; one that fits the model gives the same vector as without it.

    Args:
        encoder: Encodes one window.
    """

    def __init__(self, encoder: TextEncoder) -> None:
        self._encoder = encoder
        self.dim, self.trials, self.parallel = encoder.dim, encoder.trials, encoder.parallel

    def prepare(self, value: object) -> list[list[int]]:
        """Token ids of every window.

        Raises:
            BadInputError: As :func:`fusion.encoders.values.checked_text`.
        """
        tokens = self._encoder.tokens
        return tokens(tokens.windows(checked_text(value)))

    def cost(self, prepared: list[list[int]]) -> int:
        """Tokens of all windows, each padded to the longest."""
        return len(prepared) * max(map(self._encoder.cost, prepared))

    def window(self, batch: int) -> int:
        """As the encoder of one window has it."""
        return self._encoder.window(batch)

    def encode(self, batch: Sequence[list[list[int]]]) -> Vectors:
        """Means over windows: (n, dim) float32."""
        counts = np.array([len(windows) for windows in batch])
        flat = [window for windows in batch for window in windows]
        order = sorted(range(len(flat)), key=lambda i: -len(flat[i]))
        vectors = np.zeros((len(flat), self.dim), np.float32)
        start = 0
        while start < len(flat):
            stop = start + max(1, _TOKENS_A_LAUNCH // max(1, len(flat[order[start]])))
            rows = order[start:stop]
            vectors[rows] = self._encoder.encode([flat[row] for row in rows])
            start = stop
        if (counts == 1).all():
            return vectors
        starts = np.cumsum(counts) - counts
        sums = np.add.reduceat(vectors.astype(np.float64), starts, axis=0)
        return np.asarray(sums / counts[:, None], np.float32)
