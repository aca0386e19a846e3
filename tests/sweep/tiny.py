"""Tiny random models of any architecture of transformers, with a tokenizer of a few words."""

from pathlib import Path
from typing import Any

import torch

import barycenter.fusion.torch_compat  # noqa: F401 - first: transformers' import needs it

_WORDS = "a an the red green blue crab boat sky sun tiny large house sits stands under over near and is of in"
_SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_PARAMETERS = 90_000_000


def save_tokenizer(folder: Path, *, lowercase: bool = True) -> None:
    """A word-level tokenizer with [CLS] and [SEP]."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    numbers = {word: number for number, word in enumerate([*_SPECIAL, *_WORDS.split()])}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="[UNK]"))
    if lowercase:
        tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    ends = [("[CLS]", numbers["[CLS]"]), ("[SEP]", numbers["[SEP]"])]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]",
        eos_token="[SEP]", bos_token="[CLS]", mask_token="[MASK]", model_max_length=40,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(folder)  # fmt: skip


def build(auto: Any, config: Any, folder: Path) -> Any:
    """A random model of a configuration, saved.

    Raises:
        ValueError: It is not tiny.
    """
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    if config.architectures is None:  # some types have several classes, and their configuration chooses
        classes = MODEL_MAPPING_NAMES.get(config.model_type, ())
        config.architectures = list(classes[:1]) if isinstance(classes, tuple | list) else [classes]
    with torch.device("meta"):
        blank = auto.from_config(config) if hasattr(auto, "from_config") else auto(config)
    count = sum(parameter.numel() for parameter in blank.parameters())
    if count > _PARAMETERS:
        raise ValueError(f"{count:,} parameters at the smallest sizes known here")
    torch.manual_seed(0)
    model = (auto.from_config(config) if hasattr(auto, "from_config") else auto(config)).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim < 2 and parameter.is_floating_point():  # biases and scales that are all 0 or 1
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder)
    return model
