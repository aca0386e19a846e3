"""Which class of transformers holds the text part of a model, and which of its outputs is taken for a text."""

from importlib import import_module
from inspect import Parameter, signature
from typing import Any

import torch
import transformers
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

from barycenter.fusion.encoders.batch_check import TOLERANCE
from barycenter.fusion.encoders.sentence_config import (
    LAST_HIDDEN_STATE,
    PROJECTED_EMBEDDING,
    ModelOutput,
    SentenceConfig,
)
from barycenter.fusion.errors import JobError

_ENCODERS = {
    "blenderbot": "BlenderbotEncoder",
    "blenderbot-small": "BlenderbotSmallEncoder",
    "longt5": "LongT5EncoderModel",
    "m2m_100": "M2M100Encoder",
    "marian": "MarianEncoder",
    "pegasus": "PegasusEncoder",
    "pegasus_x": "PegasusXEncoder",
    "prophetnet": "ProphetNetEncoder",
    "switch_transformers": "SwitchTransformersEncoderModel",
    "udop": "UdopEncoderModel",
}
"""Encoders of models of both, whose decoder has no part in a text's vector, as sentence-transformers choose them."""


def auto_class(config: Any, settings: SentenceConfig) -> Any:
    """The class that holds the text part of a model: its own for projecting towers, encoders only of T5's kind.

    Args:
        config: Of the model.
        settings: Of its folder; a plain one leaves the choice to the architecture that is named in the config.
    """
    architecture = (getattr(config, "architectures", None) or [""])[0]
    if settings.model_output is None and architecture.endswith(("TextModelWithProjection", "DPRContextEncoder")):
        return getattr(transformers, architecture, transformers.AutoModel)
    name = _ENCODERS.get(config.model_type)
    if name is not None:
        module = config.model_type.replace("-", "_")
        return getattr(import_module(f"transformers.models.{module}.modeling_{module}"), name)
    if type(config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        return transformers.AutoModel
    encoder_only = MODEL_FOR_TEXT_ENCODING_MAPPING[type(config)].__name__.endswith("EncoderModel")
    return (
        transformers.AutoModelForTextEncoding if encoder_only or config.is_encoder_decoder else transformers.AutoModel
    )


def text_output(settings: SentenceConfig, model: nn.Module, config: Any) -> ModelOutput:
    """What is read of a model: what the folder asks for, else a tower's projected embedding, else the last states."""
    if settings.model_output is not None:
        return settings.model_output
    if hasattr(model, "get_text_features"):
        return PROJECTED_EMBEDDING
    if type(model).__name__.endswith("TextModelWithProjection"):
        return ModelOutput("forward", ("text_embeds",), True)
    if config.model_type in ("clip_text_model", "siglip_text_model", "dpr"):
        return ModelOutput("forward", ("pooler_output",), True)
    return LAST_HIDDEN_STATE


class TextModel:
    """Runs a model on token ids and takes the output that represents the texts.

    Args:
        model: In eval mode.
        model_output: What is taken.

    Attributes:
        accepts_mask: Whether the model can be shown what is padding.
        needs_mask: Whether it must be shown that nothing is: without a mask it guesses from the ids.
    """

    def __init__(self, model: nn.Module, model_output: ModelOutput) -> None:
        method = getattr(model, model_output.method, None)
        if method is None:
            raise JobError(
                "encoder",
                f"{type(model).__name__} has no {model_output.method}, which its folder asks for; take another encoder",
            )
        self._model, self._output = model, model_output
        self._half = next(model.parameters()).dtype != torch.float32
        parameters = signature(method).parameters
        self.accepts_mask = "attention_mask" in parameters or any(
            parameter.kind is Parameter.VAR_KEYWORD for parameter in parameters.values()
        )
        self.pooled, self.needs_mask = model_output.pooled, False
        kind = getattr(getattr(model, "config", None), "model_type", None)
        self._first_token_only = (
            model_output == PROJECTED_EMBEDDING and kind == "flava"
        )  # projects every token, and is trained on the first
        self._given: dict[str, Any] = {"output_hidden_states": True} if "hidden_states" in model_output.output else {}

    @torch.inference_mode()
    def detect_required_mask(self, ids: torch.Tensor) -> None:
        """Finds :attr:`needs_mask` from a run on (1, length) ids: not set where a mask of ones changes nothing."""
        if not self.accepts_mask:
            return
        try:
            without = self(ids, None).float()
        except Exception:  # noqa: BLE001 - some models read the mask without asking whether there is one
            self.needs_mask = True
            return
        shown = self(ids, torch.ones_like(ids)).float()
        gap = torch.linalg.norm(without - shown) / torch.linalg.norm(shown).clamp(min=1e-30)
        self.needs_mask = float(gap) > (0.1 if self._half else TOLERANCE)

    def __call__(self, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """States (n, length, width) of (n, length) ids, or (n, width) where the model gives one vector a text."""
        run: Any = getattr(self._model, self._output.method)
        if mask is None and self.needs_mask:
            mask = torch.ones_like(ids)
        given = {"attention_mask": mask} if self.accepts_mask else {}
        output = run(input_ids=ids, **given, **self._given)
        for key in self._output.output:
            if isinstance(output, torch.Tensor):
                break
            output = output[int(key)] if isinstance(output, tuple) else getattr(output, key, None)
        if self._first_token_only and isinstance(output, torch.Tensor) and output.ndim == 3:
            output = output[:, 0]
        if not isinstance(output, torch.Tensor) or output.ndim != (2 if self.pooled else 3):
            raise JobError("encoder", f"{type(self._model).__name__} gives no text embedding; take another encoder")
        return output
