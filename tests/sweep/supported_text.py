"""Tries every text encoder and writes docs/supported-text.md; with names, tries those architectures and prints only.

Run as ``python -m tests.sweep.supported_text [NAME...]``; all of it takes about an hour on one core.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import torch

from tests.sweep import architectures, combinations
from tests.sweep.architectures import Found

PAGE = Path(__file__).parents[2] / "docs" / "supported-text.md"
_TOP = """# Text encoders that are supported

Written by `python -m tests.sweep.supported_text`. It builds a small model with random weights of every architecture of
transformers' `AutoModel` that takes texts, with a tokenizer of a few words. It compares our vectors with those of
sentence-transformers (of transformers, for the text towers), of each text by itself and of all in batches of several
sizes. `equal` is within 1e-4 of a vector's length. How texts of a batch are run: `padded` together with a mask;
`equal lengths`, where the model does not mask padding, so that the library's own vectors depend on the batch; `alone`.
"""


def shown(found: Iterable[Found]) -> list[Found]:
    """Prints each as it comes."""
    kept = []
    for each in found:
        print(
            f"{each.name:40} {each.status:10} {'' if each.steady else '(library: not steady) '}{each.detail}",
            flush=True,
        )
        kept.append(each)
    return kept


def page(models: list[Found], folders: list[Found]) -> str:
    """The page, from what came of architectures and of combinations of modules."""
    built = [each for each in models if each.status != "not built"]
    counts = Counter(each.status for each in built)
    lines = [
        _TOP,
        f"{counts['equal']} are equal, {counts['refused']} are refused by name, {counts['differs']} differ.",
        "",
    ]
    lines += ["| architecture | | |", "| --- | --- | --- |", *map(_row, built), ""]
    sets = Counter(each.status for each in folders if each.status != "not built")
    lines += [
        "## Modules of sentence-transformers", "",
        f"{sum(sets.values())} combinations of Transformer, Pooling (every mode, and two at once), Dense, LayerNorm, "
        "Normalize, Dropout, default prompts (pooled or not), `truncate_dim` and `max_seq_length`: "
        f"{sets['equal']} equal, {sets['refused']} refused, {sets['differs']} differ. Other modules, and settings that "
        "change what is read in another way (`transformer_task`, `message` in `modality_config`, most "
        "`processing_kwargs`), are refused by name.", "",
    ]  # fmt: skip
    lines += [_row(each) for each in folders if each.status in ("refused", "differs")]
    absent = [each for each in models if each.status == "not built"]
    lines += [
        "## Not tried", "",
        f"{len(absent)} architectures read no text alone, or could not be built small here; "
        "the list says which.", "",
        "| architecture | why |", "| --- | --- |", *(f"| {e.name} | {_cell(e.detail)} |" for e in absent), "",
    ]  # fmt: skip
    return "\n".join(lines)


def _row(found: Found) -> str:
    return f"| {found.name} | {found.status} | {_cell(found.detail)} |"


def _cell(text: str) -> str:
    return " ".join(re.sub(r"'/[^']*'?", "'...'", text.replace("|", "/")).split())[:160]


def main(names: list[str]) -> None:
    """Prints the table, and writes the page where everything was tried."""
    torch.set_num_threads(1)
    if names:
        shown(architectures.sweep(names))
        return
    models = shown(architectures.sweep(architectures.names()))
    folders = shown(combinations.sweep(combinations.combinations()))
    PAGE.write_text(page(models, folders))
    if any(each.status == "differs" for each in chain(models, folders)):
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1:])
