"""Texts to token ids: thread-safe, truncated, and cheap for texts much longer than a model reads."""

import threading
from collections.abc import Sequence
from typing import Any

from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers
from torch import nn
from transformers import AutoTokenizer

from barycenter.fusion.encoders.base import EncoderSpec
from barycenter.fusion.encoders.hub import encoder_errors
from barycenter.fusion.encoders.sentence_config import SentenceConfig
from barycenter.fusion.encoders.text.limits import first_id_without_embedding, position_table_size
from barycenter.fusion.errors import BadInputError, JobError, Reason

_CHARACTERS_A_TOKEN = 32
_NO_LIMIT = 1_000_000
_UNLIMITED = 8192


def configured_max_length(settings: SentenceConfig, tokenizer: Any, config: Any) -> int:
    """Tokens a folder asks to be read: its own limit, else the least of the tokenizer's and the configured positions.

    Models that number positions from after the padding token (RoBERTa's family) hold that many fewer.
    """
    if settings.max_length:
        return int(settings.max_length)
    limit = tokenizer.model_max_length if tokenizer.model_max_length < _NO_LIMIT else _UNLIMITED
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    positions = getattr(text, "max_position_embeddings", None)
    if positions and positions > 0:
        shifted = "roberta" in text.model_type or text.model_type in ("camembert", "mpnet", "xmod", "longformer")
        offset = (text.pad_token_id or 0) + 1 if shifted else 0
        limit = min(limit, positions - offset)
    return int(limit)


class Tokenizer:
    """A tokenizer with its limit.

    Args:
        settings: Of the folder.
        config: Of the model.
        spec: For messages and trust.
        model: With its modules, whose tables bound what can be read.

    Attributes:
        max_length: Most tokens of a text, special ones included; never more than the model has positions for.
        pad_id: The padding token.
        min_length: Fewest tokens that the model can read.
        pads_left: Whether the tokenizer puts padding before a text.

    Raises:
        JobError: There is no usable tokenizer, or it is another model's.
    """

    def __init__(self, settings: SentenceConfig, config: Any, spec: EncoderSpec, model: nn.Module) -> None:
        with encoder_errors("encoder", f"{spec.encoder} has no usable tokenizer"):
            self._tokenizer = AutoTokenizer.from_pretrained(
                settings.transformer, trust_remote_code=spec.trust_remote_code
            )
        configured, positions = (configured_max_length(settings, self._tokenizer, config), position_table_size(model))
        self.max_length = configured if positions is None else min(configured, positions)
        specials = int(self._tokenizer.num_special_tokens_to_add(pair=False))
        if self.max_length <= specials:
            raise JobError(
                "encoder",
                f"{spec.encoder} reads {self.max_length} tokens of a text, and its {specials} special tokens fill "
                "them; raise max_seq_length (sentence_bert_config.json) or model_max_length (tokenizer_config.json)",
            )
        self._first_unembedded_id = first_id_without_embedding(self._tokenizer, model, str(spec.encoder))
        self.min_length = 1
        self.pads_left = self._tokenizer.padding_side == "left"
        padding = int(self._tokenizer.pad_token_id or 0)
        self.pad_id = padding if self._first_unembedded_id is None or padding < self._first_unembedded_id else 0
        self._prompt = settings.prompt
        self._lock = threading.Lock()
        self._fast = self._set_up_fast(settings) if self._tokenizer.is_fast else None
        self.prompt_length = 0 if settings.include_prompt or not settings.prompt else self._length_of_prompt()

    def _set_up_fast(self, settings: SentenceConfig) -> Any:
        fast = self._tokenizer.backend_tokenizer
        fast.no_padding()
        fast.enable_truncation(self.max_length, direction=self._tokenizer.truncation_side)
        if settings.lowercase and "lowercase" not in str(fast.normalizer).lower().replace("lowercase=false", ""):
            fast.normalizer = Normalizers([Lowercase(), *([fast.normalizer] if fast.normalizer else [])])
        return fast

    def _length_of_prompt(self) -> int:
        ids = self._encode([self._prompt])[0]
        return len(ids) - (1 if ids and ids[-1] in self._tokenizer.all_special_ids else 0)

    def __call__(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, at most ``max_length`` of them; texts must have been checked.

        Raises:
            BadInputError: A text has fewer tokens than the model can read, or spells a special token that the model
                has no embedding for.
        """
        rows = self._encode([self._prompt + text for text in texts])
        if shortest := min((len(ids) for ids in rows if len(ids) < self.min_length), default=0):
            raise BadInputError(
                Reason.INVALID_TEXT,
                f"the model reads texts of {self.min_length} tokens or more, this one has {shortest}",
            )
        if self._first_unembedded_id is not None:
            for number in (number for ids in rows for number in ids if number >= self._first_unembedded_id):
                token = self._tokenizer.convert_ids_to_tokens(number)
                raise BadInputError(Reason.INVALID_TEXT, f"the model has no embedding for its token {token!r}")
        return rows

    def windows(self, text: str) -> list[str]:
        """Consecutive parts of a text, each of about as many tokens as fit; a part ends between words where it can.

        Raises:
            JobError: The tokenizer does not tell where its tokens stand.
        """
        if self._fast is None:
            raise JobError(
                "long_text", "window-mean needs a fast tokenizer (tokenizer.json), which this model lacks; use truncate"
            )
        whole = self._fast.encode(text)
        if not whole.overflowing:
            return [text]
        specials = sum(whole.special_tokens_mask)
        spans = [
            span
            for part in (whole, *whole.overflowing)
            for span, special in zip(part.offsets, part.special_tokens_mask, strict=True)
            if not special
        ]
        prompt = len(self._fast.encode(self._prompt).ids) - specials if self._prompt else 0
        return _split_between_words(text, [begin for begin, _ in spans], max(1, self.max_length - specials - prompt))

    def _encode(self, texts: list[str]) -> list[list[int]]:
        if self._fast is None:
            with self._lock:
                encoded = self._tokenizer(texts, truncation=True, max_length=self.max_length)["input_ids"]
            return [list(ids) for ids in encoded]
        longest = self.max_length * _CHARACTERS_A_TOKEN
        if self._tokenizer.truncation_side == "right" and any(len(text) > longest for text in texts):
            return [self._encode_long(text) for text in texts]
        return [encoding.ids for encoding in self._fast.encode_batch_fast(texts)]

    def _encode_long(self, text: str) -> list[int]:
        """Reads a beginning of the text, twice as long each time until it fills the limit.

        The cut falls on white space, so that no word is split, and well after the last token that is kept.
        """
        assert self._fast is not None
        size = self.max_length * _CHARACTERS_A_TOKEN
        while size < len(text):
            beginning = text[:size]
            cut = max(beginning.rfind(" "), beginning.rfind("\n"))
            encoding = self._fast.encode(beginning[:cut] if cut > size // 2 else beginning)
            if sum(len(rest.ids) for rest in encoding.overflowing) > self.max_length // 8 + 8:
                return list(encoding.ids)
            size *= 2
        return list(self._fast.encode(text).ids)


def _split_between_words(text: str, begins: list[int], size: int) -> list[str]:
    """The text in parts of at most ``size`` tokens that begin at ``begins``, cut where a word begins if one does.

    >>> _split_between_words("one two three", [0, 4, 8, 10], 3)
    ['one two ', 'three']
    """
    parts: list[str] = []
    first = 0
    while len(begins) - first > size:
        last = first + size
        words = (at for at in range(last, first + size // 2, -1) if text[begins[at] - 1].isspace())
        last = next(words, last)
        parts.append(text[begins[first] : begins[last]])
        first = last
    return [*parts, text[begins[first] :]]
