"""Which format a listed corpus is in, and which of its files are read."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.base import Format
from barycenter.infra.corpus.formats.folder import Folder, is_picture, is_sidecar
from barycenter.infra.corpus.formats.lines import Delimited, JsonLines
from barycenter.infra.corpus.formats.tables import Parquet
from barycenter.infra.corpus.formats.webdataset import WebDataset
from barycenter.infra.corpus.listing import BESIDE_TABLE, EMPTY, OTHER_FORMAT, UNDERSCORE, Entry, Listing

_FORMATS: dict[str, Callable[[], Format]] = {
    ".parquet": Parquet,
    ".jsonl": JsonLines,
    ".jsonl.gz": JsonLines,
    ".jsonl.zst": JsonLines,
    ".csv": partial(Delimited, ","),
    ".csv.gz": partial(Delimited, ","),
    ".csv.zst": partial(Delimited, ","),
    ".tsv": partial(Delimited, "\t"),
    ".tsv.gz": partial(Delimited, "\t"),
    ".tsv.zst": partial(Delimited, "\t"),
    ".tar": WebDataset,
}
_KEY = "corpus.path"


@dataclass(frozen=True, slots=True)
class Chosen:
    """The format of a corpus and its files.

    Attributes:
        form: The format.
        listing: The files that are read, and how many others were seen, by reason.
        pictures: Pictures beside tables, which the tables may name.
    """

    form: Format
    listing: Listing
    pictures: list[Entry]

    @property
    def figures(self) -> dict[str, Any]:
        """``{"files": {"taken": n, "passed_over": {reason: n}}}``: what was seen, all of it."""
        return {"files": {"taken": len(self.listing.entries), "passed_over": dict(sorted(self._passed.items()))}}

    @property
    def _passed(self) -> Counter[str]:
        return +self.listing.passed_over


def choose_format(listing: Listing, path: str) -> Chosen:
    """The one format of the listed files.

    Raises:
        JobError: On ``corpus.path``: no file that can be read, or files of several formats.
    """
    tables = [entry for entry in listing.entries if _suffix(entry.relative)]
    pictures = [entry for entry in [*listing.entries, *listing.underscored] if is_picture(entry.relative)]
    if listing.is_folder and pictures and not tables:
        return _of_pictures(listing)
    if listing.is_folder and pictures:
        tables = [entry for entry in tables if _is_metadata(entry)] or tables
    single = not listing.is_folder and len(listing.entries) == 1
    if not tables:
        raise JobError(_KEY, _nothing(listing, path, single))
    kinds = dict.fromkeys(_kind(entry) for entry in tables)
    if len(kinds) > 1:
        raise JobError(
            _KEY, f"{path}: holds {' and '.join(kinds)} files; name one kind, e.g. {path}/*{next(iter(kinds))}"
        )
    return _of_tables(listing, tables, pictures)


def _of_pictures(listing: Listing) -> Chosen:
    entries = sorted([*listing.entries, *listing.underscored], key=lambda entry: entry.relative)
    pictures = {entry.relative.rpartition(".")[0] for entry in entries if is_picture(entry.relative)}
    taken = [entry for entry in entries if is_picture(entry.relative) or is_sidecar(entry.relative, pictures)]
    passed_over = listing.passed_over + Counter({OTHER_FORMAT: len(entries) - len(taken)})
    return Chosen(Folder(), replace(listing, entries=taken, underscored=[], passed_over=passed_over), [])


def _of_tables(listing: Listing, tables: list[Entry], pictures: list[Entry]) -> Chosen:
    # A Parquet file of zero bytes is a damaged one: even without rows it has a footer.
    full = [entry for entry in tables if entry.size or _kind(entry) == ".parquet"] or tables
    chosen = {entry.relative for entry in tables}
    beside = [entry for entry in pictures if entry.relative not in chosen]
    passed_over = listing.passed_over + Counter({EMPTY: len(tables) - len(full), BESIDE_TABLE: len(beside)})
    for entry in listing.entries:
        if entry.relative not in chosen and not is_picture(entry.relative):
            passed_over[OTHER_FORMAT] += 1
    passed_over[UNDERSCORE] += sum(not is_picture(entry.relative) for entry in listing.underscored)
    form = _FORMATS[_kind(tables[0])]()
    return Chosen(form, replace(listing, entries=full, underscored=[], passed_over=passed_over), beside)


def _nothing(listing: Listing, path: str, single: bool) -> str:
    known = f"known are {', '.join(_FORMATS)} and folders of pictures"
    if single or (listing.entries and not listing.is_folder):
        first = listing.entries[0].relative
        several = "" if single or not is_picture(first) else f"; for these pictures give their folder, {listing.root}"
        return f"{path}: {first} is no corpus file; {known}{several}"
    counts = listing.passed_over + Counter({UNDERSCORE: len(listing.underscored), OTHER_FORMAT: len(listing.entries)})
    seen = f" (seen and passed over: {spoken(counts)})" if counts else ""
    return f"{path}: no corpus file in this folder{seen}; {known}"


def spoken(passed_over: dict[str, int]) -> str:
    """Counts of reasons as a phrase, the largest first.

    >>> spoken({"hidden": 2, "other_format": 10})
    '10 other_format, 2 hidden'
    """
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(passed_over.items(), key=lambda each: -each[1]))


def _is_metadata(entry: Entry) -> bool:
    return entry.relative.rpartition("/")[2].startswith("metadata.")


def _suffix(relative: str) -> str | None:
    name = relative.rpartition("/")[2].lower()
    return next((suffix for suffix in _FORMATS if name.endswith(suffix)), None)


def _kind(entry: Entry) -> str:
    return (_suffix(entry.relative) or "").removesuffix(".gz").removesuffix(".zst")
