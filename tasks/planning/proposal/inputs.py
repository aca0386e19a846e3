"""Which columns are inputs: texts that say something, pictures that can be read, vectors."""

import re
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

import pyarrow as pa

from barycenter.fusion.encoders.image.decoding import decode
from barycenter.fusion.errors import BadInputError, Reason, RunError
from barycenter.infra.corpus import Pictures
from barycenter.infra.corpus.formats.folder import PICTURE_SUFFIXES, is_picture
from barycenter.infra.corpus.formats.webdataset import CAPTION_EXTENSIONS
from barycenter.infra.job.models import LimitsJob
from barycenter.tasks.data.rows import evenly_spaced
from barycenter.tasks.planning.proposal.sample import Column, Sample

_TEXT_NAMES = re.compile(
    r"(.*[_\-. ])?(text|caption|captions|title|description|desc|body|content|sentence|sentence1|sentence2"
    r"|review|summary|abstract|question|answer|answers|query|prompt|comment|message|headline|tweet|document|passage"
    r"|instruction|response|premise|hypothesis|note|notes|remark|remarks)",
    re.IGNORECASE,
)
_PICTURE_NAMES = re.compile(
    r".*(image|img|picture|photo|thumbnail|thumb|file|filename|path|jpg|jpeg|png|cover|poster)s?(_?url|_?uri)?",
    re.IGNORECASE,
)
_VECTOR_NAMES = re.compile(r".*(vec|vector|emb|embedding|embeddings|features?)(_.*)?", re.IGNORECASE)
_NO_PROSE = re.compile(r"[\[{]|https?://|data:|s3://|file://|/", re.IGNORECASE)
_NUMBER = r"[-+]?\d*\.?\d+(e[-+]?\d+)?"
_WRITTEN_VECTOR = re.compile(rf"[\[(]?\s*{_NUMBER}([,;\s]+{_NUMBER}){{3,}}\s*[\])]?", re.IGNORECASE)
_WRITTEN_PICTURES = ("data:image", "{", "/9j/", "iVBOR")
_ASCII = 128
_WORDS, _WORDS_BY_NAME, _SENTENCE, _CHARACTERS = 3.0, 1.5, 6.0, 8
_SHARE_OF_LETTERS = 0.6
_LEAST_WIDTH = 8
_TRIED_PICTURES = 8


@dataclass(frozen=True)
class FoundInput:
    """A column that can be an input, or several that make one.

    Attributes:
        kind: What it holds.
        columns: Names; several only for text.
        why: For a comment.
        is_list: Whether the values are lists, to be averaged.
        needs: Keys of the ``limits`` section that must be true, each with the reason.
    """

    kind: Literal["text", "image", "vector"]
    columns: tuple[str, ...]
    why: str
    is_list: bool = False
    needs: dict[str, str] = field(default_factory=dict)


def find_texts(sample: Sample, taken: Collection[str]) -> list[FoundInput]:
    """Columns of texts, or of lists of texts, in the corpus's order."""
    found, taken = [], {*taken, *_repeated(sample)}
    for column in sample.columns.values():
        texts = [value for value, _ in column.flat if isinstance(value, str)]
        if column.name in taken or not _holds_text(column.kind) or not texts:
            continue
        words = sum(len(text.split()) for text in texts) / len(texts)
        if _is_prose(column, texts, words):
            several = " in lists, averaged" if not column.is_text else ""
            why = f"texts of {words:.0f} words{several}"
            found.append(FoundInput("text", (column.name,), why, not column.is_text))
    return found


def _holds_text(kind: pa.DataType) -> bool:
    while pa.types.is_list(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind))


def _is_prose(column: Column, texts: list[str], words: float) -> bool:
    """Whether texts say something: words, not numbers, paths, addresses, codes or a few values over and over."""
    named = _TEXT_NAMES.fullmatch(column.name) is not None
    if sum(_NO_PROSE.match(text.lstrip()) is not None or is_picture(text) for text in texts) * 2 > len(texts):
        return False
    written = "".join("".join(text.split()) for text in texts)
    if sum(letter.isalpha() for letter in written) < _SHARE_OF_LETTERS * len(written):
        return False
    foreign = sum(ord(letter) >= _ASCII for letter in written) * 2 > len(written)
    enough = words >= (_WORDS_BY_NAME if named else _WORDS)
    enough |= foreign and len(written) >= (_CHARACTERS if not named else 2) * len(texts)
    return enough and (named or words >= _SENTENCE or len(set(texts)) * 4 >= len(texts))


def find_vectors(sample: Sample, taken: Collection[str]) -> list[FoundInput]:
    """Columns of lists of numbers of one length."""
    found = []
    for column in sample.columns.values():
        kind = column.kind
        if column.name in taken or not (pa.types.is_list(kind) or pa.types.is_fixed_size_list(kind)):
            continue
        lengths = {len(value) for value in column.values}
        named = _VECTOR_NAMES.fullmatch(column.name) is not None
        numbers = pa.types.is_floating(kind.value_type) or (named and pa.types.is_integer(kind.value_type))
        if numbers and len(lengths) == 1 and min(lengths) >= (2 if named else _LEAST_WIDTH):
            found.append(FoundInput("vector", (column.name,), f"lists of {min(lengths):,} numbers"))
    return found


def written_vectors(sample: Sample) -> list[str]:
    """Columns of text that hold vectors, written out."""
    return [
        column.name
        for column in sample.columns.values()
        if column.is_text and column.values and all(_WRITTEN_VECTOR.fullmatch(text.strip()) for text in column.values)
    ]


@dataclass(frozen=True)
class Missed:
    """A column that seems to name pictures of which none could be read.

    Attributes:
        name: The column.
        reason: The most frequent one.
        detail: Of the first such value.
        value: The first such value.
        folder: The folder of its table, relative to the corpus root.
    """

    name: str
    reason: str
    detail: str
    value: Any
    folder: str


def find_pictures(
    sample: Sample, taken: Collection[str], storage_options: dict[str, Any]
) -> tuple[list[FoundInput], list[Missed]]:
    """Columns of which a few values could be read as pictures; and those that seem to hold some, but could not."""
    found: list[FoundInput] = []
    missed: list[Missed] = []
    for column in _candidates(sample):
        if column.name in taken:
            continue
        result = _try(column, sample, storage_options)
        if isinstance(result, FoundInput):
            found.append(result)
        elif result is not None:
            missed.append(result)
    return found, missed


def _candidates(sample: Sample) -> list[Column]:
    """Columns that may hold pictures."""
    twice = _repeated(sample)
    return [
        column
        for column in sample.columns.values()
        if column.values and column.name not in twice and _may_hold_pictures(column)
    ]


def _repeated(sample: Sample) -> set[str]:
    """Columns whose values are in another column, too: members of tars under their endings, the names of pictures."""
    is_tar, names = sample.corpus.key_column == "__key__", set[str]()
    if "image" in sample.columns:
        names |= {"file_name"} | ({suffix[1:] for suffix in PICTURE_SUFFIXES} if is_tar else set())
    if "text" in sample.columns and is_tar:
        names |= set(CAPTION_EXTENSIONS) - {"text"}
    return names


def _may_hold_pictures(column: Column) -> bool:
    if column.holds_bytes:
        return True
    leaves = [value for value, _ in column.flat]
    if leaves and all(isinstance(value, dict) for value in leaves):
        return bool({"bytes", "path"} & leaves[0].keys())
    texts = [value for value in leaves if isinstance(value, str)]
    if not texts or len(texts) < len(leaves):
        return False
    like = sum(is_picture(text.partition("?")[0]) or text.startswith(_WRITTEN_PICTURES) for text in texts)
    return like * 2 > len(texts) or (_PICTURE_NAMES.fullmatch(column.name) is not None and not _is_spoken(texts))


def _is_spoken(texts: list[str]) -> bool:
    return sum(len(text.split()) for text in texts) > 2 * len(texts)


def _try(column: Column, sample: Sample, storage_options: dict[str, Any]) -> FoundInput | Missed | None:
    """Reads a few of a column's pictures, with wider limits where the corpus's own do not allow it."""
    chosen = evenly_spaced(column.flat, _TRIED_PICTURES)
    reasons, missed = _attempt(chosen, column.name, sample, storage_options, sample.limits)
    needs: dict[str, str] = {}
    is_list = bool(pa.types.is_list(column.kind))
    if not reasons["read"] and reasons[Reason.OUTSIDE_CORPUS]:
        wider = sample.limits.model_copy(update={"outside_corpus": True})
        again, _ = _attempt(chosen, column.name, sample, storage_options, wider)
        if again["read"]:
            reasons, needs = again, {"outside_corpus": f"the pictures of {column.name} lie outside the corpus folder"}
    if not reasons["read"] and reasons[Reason.HTTP_NOT_ALLOWED]:
        why = f"{column.name} holds http(s) addresses, fetched while embedding"
        return FoundInput("image", (column.name,), "http(s) addresses; none was tried", is_list, {"http": why})
    if reasons["read"]:
        several = " in lists, averaged" if is_list else ""
        why = f"{reasons['read']} of {len(chosen)} tried can be read{several}"
        return FoundInput("image", (column.name,), why, is_list, needs)
    seems = any(is_picture(str(value)) for value, _ in chosen) or (column.holds_bytes and _is_named(column.name))
    return missed if seems else None


def _is_named(name: str) -> bool:
    return _PICTURE_NAMES.fullmatch(name) is not None


def _attempt(
    chosen: list[tuple[Any, str]], name: str, sample: Sample, storage_options: dict[str, Any], limits: LimitsJob
) -> tuple[Counter[str], Missed | None]:
    """Counts by reason what became of pictures, ``read`` for the good ones; and the first of the others."""
    pictures = Pictures(
        sample.corpus.root,
        outside_corpus=limits.outside_corpus,
        max_bytes=limits.max_picture_bytes,
        storage_options=storage_options,
    )
    counts: Counter[str] = Counter()
    missed: list[Missed] = []
    for value, folder in chosen:
        try:
            decode(pictures.find(value, folder).read(), formats=limits.formats, max_pixels=limits.max_pixels)
            counts["read"] += 1
        except BadInputError as error:
            counts[error.reason] += 1
            missed.append(Missed(name, error.reason, error.detail, value, folder))
        except RunError:
            counts["unanswered"] += 1
    return counts, next(iter(missed), None)
