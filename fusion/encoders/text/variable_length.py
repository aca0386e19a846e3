"""Text models without padding: all texts of a batch end to end in one row, each attending to itself alone.

On a CPU this is also what makes a text's vector a function of the text: with padding, the length of the longest text of
a batch decides how the sums of every other are split. Attention runs once for all neighbors of one length, which gives
the bytes of each by itself; the tokens are filled up with blank ones, because few rows are multiplied by other kernels
than many, and the last elements of a tensor may be computed one by one instead of eight at a time.
"""

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import signature
from itertools import groupby, product
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cosine_similarity, scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from barycenter.fusion.encoders.batch_check import ROWS_FILLED_TO, TOLERANCE

_ATTENTION_NAME = "variable_length"
_AGREEMENT = 0.99
_TRIED_LENGTHS = (7, 3, 12)
_REFUSED = ("position_bias", "softcap", "s_aux", "sliding_window", "head_mask", "cache")


@dataclass(frozen=True, slots=True)
class _Texts:
    """Where the texts of the row are.

    Attributes:
        runs: (texts, length) of neighbors of one length, in the row's order.
        offsets: n + 1 places where a text begins, on the device.
        longest: Length of the longest.
    """

    runs: tuple[tuple[int, int], ...]
    offsets: torch.Tensor
    longest: int


_texts: ContextVar[_Texts | None] = ContextVar("texts", default=None)


def equal_runs(lengths: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """How many neighbors are of one length, and the length.

    >>> equal_runs([7, 7, 3, 7])
    ((2, 7), (1, 3), (1, 7))
    """
    return tuple((len(list(group)), length) for length, group in groupby(lengths))


def _attention(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    scaling: float | None = None,
    **given: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of (1, heads, tokens, width) within the bounds of each text: (1, tokens, heads, width).

    Outside of :meth:`VariableLengthModel.states` it is torch's own.

    Raises:
        ValueError: The model asks for more than attention within each text.
    """
    texts = _texts.get()
    if texts is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **given)  # type: ignore[no-any-return,no-untyped-call,unused-ignore]
    if attention_mask is not None or any(given.get(name) is not None for name in _REFUSED):
        raise ValueError("attention within each text alone is not all that this model does")
    causal = given.get("is_causal")
    causal = bool(getattr(module, "is_causal", True) if causal is None else causal)
    if query.device.type == "cuda":
        from torch.nn.attention.varlen import varlen_attn  # its import takes seconds

        q, k, v = (part[0].transpose(0, 1).contiguous() for part in (query, key, value))
        ends, most = texts.offsets, texts.longest
        reach = (-1, 0) if causal else (-1, -1)
        attended: Any = varlen_attn(q, k, v, ends, ends, most, most, scale=scaling, window_size=reach)
        return attended[None], None
    return _attention_by_length(texts, (query, key, value), causal, scaling), None


def _attention_by_length(
    texts: _Texts, parts: tuple[torch.Tensor, torch.Tensor, torch.Tensor], causal: bool, scaling: float | None
) -> torch.Tensor:
    """One call for every run of neighbors of one length.

    Tokens lie one after another with all their heads, so that every text begins as far from a vector register's bound
    as any other: MKL multiplies by another kernel where it does not.
    """
    if (times := parts[0].shape[1] // parts[1].shape[1]) > 1:
        parts = (parts[0], parts[1].repeat_interleave(times, 1), parts[2].repeat_interleave(times, 1))
    rows = [part[0].transpose(0, 1).contiguous() for part in parts]
    attended, start = [], 0
    for count, length in texts.runs:
        stop = start + count * length
        q, k, v = (part[start:stop].view(count, length, *part.shape[1:]).transpose(1, 2) for part in rows)
        states = scaled_dot_product_attention(q, k, v, is_causal=causal and length > 1, scale=scaling)
        attended.append(states.transpose(1, 2).flatten(0, 1))
        start = stop
    return torch.cat(attended)[None]


def _mask(*args: Any, local_size: int | None = None, **given: Any) -> torch.Tensor | None:
    """No mask within :meth:`VariableLengthModel.states`, else torch's own.

    Raises:
        ValueError: Tokens of the model see only those near them.
    """
    if _texts.get() is None:
        mask: torch.Tensor | None = sdpa_mask(*args, local_size=local_size, **given)
        return mask
    if local_size is not None:
        raise ValueError("attention within a window has no variable-length form")
    return None


AttentionInterface.register(_ATTENTION_NAME, _attention)
AttentionMaskInterface.register(_ATTENTION_NAME, _mask)


class VariableLengthModel:
    """Runs a text model without padding, with variable-length attention.

    Any number of threads may run it at once, and others may go on to call the model itself.

    Args:
        model: A transformers text model, on its device, its attention set by :meth:`of`.
        first: Number of the first position.
        typed: Whether every token is given the type 0; BERT's own types end where its positions do, GPT-2 has none.
    """

    def __init__(self, model: nn.Module, first: int, typed: bool) -> None:
        self._model, self._first_position, self._typed = model, first, typed

    @classmethod
    def of(cls, model: nn.Module, pad_id: int) -> "VariableLengthModel | None":
        """The model without padding, or None where its states differ from those with padding.

        Models number positions from 0, or (RoBERTa's family) from after the padding token. On a GPU the kernel needs a
        half-precision format.
        """
        run: Any = model
        device = next(model.parameters()).device
        before, words_known = (getattr(run.config, name, None) for name in ("_attn_implementation", "vocab_size"))
        if before != "sdpa" or words_known is None:
            return None
        mask = torch.arange(max(_TRIED_LENGTHS), device=device) < torch.tensor(_TRIED_LENGTHS, device=device)[:, None]
        words = torch.arange(mask.numel(), device=device).view(mask.shape) % (words_known - 1)
        ids = torch.where(mask, torch.where(words == pad_id, words_known - 1, words), pad_id)
        with torch.inference_mode():
            padded = run(input_ids=ids, attention_mask=mask.long()).last_hidden_state[mask]
            run.set_attn_implementation(_ATTENTION_NAME)
            types = (True, False) if "token_type_ids" in signature(model.forward).parameters else (False,)
            for first, typed in product((0, pad_id + 1), types):
                unpadded = cls(model, first, typed)
                try:
                    states = unpadded.states(ids, mask)[mask]
                except (RuntimeError, TypeError, ValueError, LookupError, AttributeError):
                    continue
                if _agree(states, padded):
                    return unpadded
        run.set_attn_implementation(before)
        return None

    def states(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Last hidden states of padded ids, computed without the padding.

        Args:
            ids: (n, longest).
            mask: (n, longest) bool, True where there is a token.

        Returns:
            (n, longest, width), zeros where there is none.
        """
        columns = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
        tokens, positions, lengths = ids[mask], columns[mask], mask.sum(dim=1)
        used = len(tokens)
        if mask.device.type == "cpu" and (blank := -used % ROWS_FILLED_TO):
            tokens = torch.cat([tokens, tokens[:1].expand(blank)])
            positions = torch.cat([positions, positions.new_zeros(blank)])
            lengths = torch.cat([lengths, lengths.new_tensor([blank])])
        flat = self._run(tokens[None], positions[None] + self._first_position, lengths, mask.shape[1])[:used]
        states: torch.Tensor = flat.new_zeros(*mask.shape, flat.shape[-1])
        states[mask] = flat
        return states

    def _run(self, ids: torch.Tensor, positions: torch.Tensor, lengths: torch.Tensor, longest: int) -> torch.Tensor:
        run: Any = self._model
        runs = equal_runs(lengths.tolist()) if lengths.device.type == "cpu" else ()
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
        given = {"token_type_ids": torch.zeros_like(positions)} if self._typed else {}
        token = _texts.set(_Texts(runs, offsets, longest))
        try:
            return run(input_ids=ids, position_ids=positions, **given).last_hidden_state[0]  # type: ignore[no-any-return]
        finally:
            _texts.reset(token)


def _agree(states: torch.Tensor, padded: torch.Tensor) -> bool:
    """Whether states of tokens are the same up to rounding."""
    x, y = states.float(), padded.float()
    if padded.dtype != torch.float32:
        return float(cosine_similarity(x, y, dim=-1).min()) >= _AGREEMENT
    return float(((x - y).norm(dim=-1) / y.norm(dim=-1).clamp(min=1e-30)).max()) <= TOLERANCE
