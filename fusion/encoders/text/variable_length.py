"""Text models without padding: all texts of a batch end to end in one row, each attending to itself alone."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

_ATTENTION_NAME = "variable_length"
_AGREEMENT = 0.99
_TRIED_LENGTHS = (7, 3, 12)


@dataclass(frozen=True, slots=True)
class _Offsets:
    """Where each text begins in the row: n + 1 offsets on the device, and the longest text's length."""

    offsets: torch.Tensor
    longest: int


_current_offsets: ContextVar[_Offsets] = ContextVar("bounds")


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *_: Any,
    scaling: float | None = None,
    **__: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of (1, heads, tokens, width) within the bounds of each text: (1, tokens, heads, width)."""
    offsets, causal = _current_offsets.get(), bool(getattr(module, "is_causal", False))
    if query.device.type == "cuda":
        q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
        ends, most = offsets.offsets, offsets.longest
        reach = (-1, 0) if causal else (-1, -1)
        attended: Any = varlen_attn(q, k, v, ends, ends, most, most, scale=scaling, window_size=reach)
        return attended[None], None
    lengths: list[int] = offsets.offsets.diff().tolist()
    parts = zip(*(torch.split(part, lengths, dim=2) for part in (query, key, value)), strict=True)
    texts = [scaled_dot_product_attention(q, k, v, is_causal=causal, scale=scaling) for q, k, v in parts]
    return torch.cat(texts, dim=2).transpose(1, 2), None


AttentionInterface.register(_ATTENTION_NAME, _attention)
AttentionMaskInterface.register(_ATTENTION_NAME, lambda *_, **__: None)


class VariableLengthModel:
    """Runs a text model without padding, with variable-length attention.

    Args:
        model: A transformers text model, on its device.
        first: Number of the first position.
    """

    def __init__(self, model: nn.Module, first: int) -> None:
        self._model, self._first_position = model, first
        self._typed = "token_type_ids" in signature(model.forward).parameters

    @classmethod
    def of(cls, model: nn.Module, pad_id: int) -> "VariableLengthModel | None":
        """The model without padding, or None where its states differ from those with padding.

        Models number positions from 0, or (RoBERTa's family) from after the padding token. On a GPU the kernel needs a
        half-precision format.
        """
        run: Any = model
        device = next(model.parameters()).device
        mask = torch.arange(max(_TRIED_LENGTHS), device=device) < torch.tensor(_TRIED_LENGTHS, device=device)[:, None]
        words = torch.arange(mask.numel(), device=device).view(mask.shape) % (run.config.vocab_size - 1)
        ids = torch.where(mask, torch.where(words == pad_id, run.config.vocab_size - 1, words), pad_id)
        with torch.inference_mode():
            padded = run(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]
            for first in (0, pad_id + 1):
                unpadded = cls(model, first)
                try:
                    states = unpadded.states(ids, mask)[mask]
                except (RuntimeError, TypeError, ValueError, IndexError, KeyError, LookupError):
                    return None
                if float(cosine_similarity(states.float(), padded.float(), dim=-1).min()) >= _AGREEMENT:
                    return unpadded
        return None

    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states of padded ids, computed without the padding.

        Args:
            ids: (n, longest).
            mask: (n, longest) bool, True where there is a token.

        Returns:
            (n, longest, width), zeros where there is none.
        """
        lengths = mask.sum(dim=1)
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
        columns = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        positions = (columns[mask] + self._first_position)[None]
        given = {"token_type_ids": torch.zeros_like(positions)} if self._typed else {}
        run: Any = self._model
        with _variable_length_attention(run, _Offsets(offsets, mask.shape[1])):
            flat = run(input_ids=ids[mask][None], position_ids=positions, **given).last_hidden_state[0]
        states: torch.Tensor = flat.new_zeros(*mask.shape, flat.shape[-1])
        states[mask] = flat
        return states


@contextmanager
def _variable_length_attention(model: Any, offsets: _Offsets) -> Iterator[None]:
    before = model.config._attn_implementation
    token = _current_offsets.set(offsets)
    model.set_attn_implementation(_ATTENTION_NAME)
    try:
        yield
    finally:
        model.set_attn_implementation(before)
        _current_offsets.reset(token)
