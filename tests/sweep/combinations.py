"""Combinations of sentence-transformers' modules around a tiny BERT, beside what the library gives."""

import itertools
import json
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

import tests.sweep.tiny as tiny
from barycenter.fusion.errors import JobError
from tests.sweep import sizes
from tests.sweep.architectures import TEXTS, Found, compare, line

MODES: tuple[Any, ...] = (
    "mean", "cls", "max", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean"), ("max", "lasttoken"),
)  # fmt: skip
LATER = ("", "normalize", "dense", "dense normalize", "residual", "wide-residual layernorm", "aside", "dropout dense")
PROMPTS = ("", "prompt", "prompt not pooled")
CUTS: tuple[int | None, ...] = (None, 10)
LENGTHS: tuple[int | None, ...] = (None, 9, 300)
_WIDTH = 32


@dataclass(frozen=True, slots=True)
class Combination:
    """What a folder says: how tokens are pooled, what comes after, a prompt, and what is cut."""

    mode: Any
    later: str
    prompt: str
    cut: int | None
    length: int | None

    @property
    def name(self) -> str:
        """For the table."""
        mode = self.mode if isinstance(self.mode, str) else "+".join(self.mode)
        parts = (mode, *self.later.split(), self.prompt, self.cut and f"cut at {self.cut}")
        return ", ".join([*filter(None, parts), *([f"{self.length} tokens"] if self.length else [])])


def combinations() -> list[Combination]:
    """All of them, in a fixed order."""
    return [Combination(*each) for each in itertools.product(MODES, LATER, PROMPTS, CUTS, LENGTHS)]


def pairwise() -> list[Combination]:
    """A few of them, in which every two settings stand together at least once."""
    chosen, missing = [], set().union(*map(_pairs, combinations()))
    while missing:
        best = max(combinations(), key=lambda each: len(_pairs(each) & missing))
        chosen.append(best)
        missing -= _pairs(best)
    return chosen


def _pairs(each: Combination) -> set[Any]:
    settings = enumerate((each.mode, each.later, each.prompt, each.cut, each.length))
    return set(itertools.combinations(settings, 2))


def sweep(chosen: list[Combination]) -> Iterator[Found]:
    """Tries combinations one after another."""
    from transformers import AutoModel, BertConfig

    with tempfile.TemporaryDirectory() as base, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tiny.build(AutoModel, next(sizes.configs(BertConfig))(), Path(base))
        tiny.save_tokenizer(Path(base))
        for combination in chosen:
            with tempfile.TemporaryDirectory() as folder:
                yield _tried(combination, base, Path(folder))


def _tried(combination: Combination, base: str, folder: Path) -> Found:
    from sentence_transformers import SentenceTransformer

    try:
        save(combination, base, folder)
        library = SentenceTransformer(str(folder), device="cpu")
        texts = list(TEXTS)
        alone = np.stack([library.encode(text) for text in texts])
    except JobError:
        raise
    except Exception as error:  # noqa: BLE001 - the library refuses it itself
        return Found(combination.name, "not built", line(error))
    return compare(combination.name, folder, alone, library.encode(texts))


def save(combination: Combination, base: str, folder: Path) -> None:
    """Writes the folder as the library does."""
    from sentence_transformers import SentenceTransformer, models

    torch.manual_seed(1)
    width = _WIDTH * (1 if isinstance(combination.mode, str) else len(combination.mode))
    made = {
        "normalize": models.Normalize,
        "dense": lambda: models.Dense(width, 20),
        "residual": lambda: models.Dense(width, width, use_residual=True),
        "wide-residual": lambda: models.Dense(width, 20, use_residual=True, activation_function=torch.nn.GELU()),
        "layernorm": lambda: models.LayerNorm(20),
        "aside": lambda: models.Dense(width, 20, module_output_name="aside"),
        "dropout": lambda: models.Dropout(0.5),
    }
    pooling = models.Pooling(
        _WIDTH, pooling_mode=combination.mode, include_prompt=combination.prompt != "prompt not pooled"
    )
    prompted = {"prompts": {"p": "a tiny "}, "default_prompt_name": "p"} if combination.prompt else {}
    later = [made[kind]() for kind in combination.later.split()]
    whole = [models.Transformer(base), pooling, *later]
    SentenceTransformer(modules=whole, device="cpu", truncate_dim=combination.cut, **prompted).save(str(folder))
    if combination.length:
        path = folder / "sentence_bert_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "max_seq_length": combination.length}))
