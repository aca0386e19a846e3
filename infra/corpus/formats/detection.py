"""Detects the format of a listed corpus and chooses the files that are read."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.base import Format
from barycenter.infra.corpus.formats.folder import Folder, is_picture, is_sidecar
from barycenter.infra.corpus.formats.lines import Delimited, JsonLines
from barycenter.infra.corpus.formats.tables import Parquet
from barycenter.infra.corpus.formats.webdataset import WebDataset
from barycenter.infra.corpus.listing import BESIDE_TABLE, EMPTY, OTHER_FORMAT, UNDERSCORE, Entry, Listing

_FORMATS: dict[str, Callable[[], Format]] = {
    ".parquet": Parquet,
    **dict.fromkeys((".jsonl", ".jsonl.gz", ".jsonl.zst"), JsonLines),
    **dict.fromkeys((".csv", ".csv.gz", ".csv.zst"), partial(Delimited, ",")),
    **dict.fromkeys((".tsv", ".tsv.gz", ".tsv.zst"), partial(Delimited, "\t")),
    ".tar": WebDataset,
}
_JOB_KEY = "corpus.path"


@dataclass(frozen=True, slots=True)
class ChosenFormat:
    """The format of a corpus and its files.

    Attributes:
        format: The format.
        listing: The files that are read, and how many others were passed over, by reason.
        pictures: Pictures in the folder of a table corpus; its rows may name them.
    """

    format: Format
    listing: Listing
    pictures: list[Entry]


def choose_format(listing: Listing, path: str) -> ChosenFormat:
    """Chooses the format of the listed files.

    Raises:
        JobError: On ``corpus.path``: there is no file of a known format, or there are files of several formats.
    """
    tables = [entry for entry in listing.entries if _format_suffix(entry.relative)]
    pictures = [entry for entry in [*listing.entries, *listing.underscored] if is_picture(entry.relative)]
    if listing.is_folder and pictures and not tables:
        return _choose_pictures(listing)
    if listing.is_folder and pictures:
        tables = [entry for entry in tables if is_metadata_table(entry.relative)] or tables
    single = not listing.is_folder and len(listing.entries) == 1
    if not tables:
        raise JobError(_JOB_KEY, _nothing_found_message(listing, path, single))
    kinds = dict.fromkeys(_uncompressed_suffix(entry) for entry in tables)
    if len(kinds) > 1:
        example = f"{path}/*{next(iter(kinds))}"
        raise JobError(_JOB_KEY, f"{path}: holds {' and '.join(kinds)} files; give a pattern for one, e.g. {example}")
    return _choose_tables(listing, tables, pictures)


def _choose_pictures(listing: Listing) -> ChosenFormat:
    """Chooses the pictures of a folder and the text files beside them; passes over the rest."""
    entries = sorted([*listing.entries, *listing.underscored], key=lambda entry: entry.relative)
    pictures = {entry.relative.rpartition(".")[0] for entry in entries if is_picture(entry.relative)}
    taken = [entry for entry in entries if is_picture(entry.relative) or is_sidecar(entry.relative, pictures)]
    passed_over = listing.passed_over + Counter({OTHER_FORMAT: len(entries) - len(taken)})
    return ChosenFormat(Folder(), replace(listing, entries=taken, underscored=[], passed_over=passed_over), [])


def _choose_tables(listing: Listing, tables: list[Entry], pictures: list[Entry]) -> ChosenFormat:
    """Chooses the tables of one format; passes over empty ones and all other files."""
    # A Parquet file of zero bytes is a damaged one: even without rows it has a footer.
    full = [entry for entry in tables if entry.size or _uncompressed_suffix(entry) == ".parquet"] or tables
    chosen = {entry.relative for entry in tables}
    beside = [entry for entry in pictures if entry.relative not in chosen]
    passed_over = listing.passed_over + Counter({EMPTY: len(tables) - len(full), BESIDE_TABLE: len(beside)})
    for entry in listing.entries:
        if entry.relative not in chosen and not is_picture(entry.relative):
            passed_over[OTHER_FORMAT] += 1
    passed_over[UNDERSCORE] += sum(not is_picture(entry.relative) for entry in listing.underscored)
    listing = replace(listing, entries=full, underscored=[], passed_over=passed_over)
    return ChosenFormat(_FORMATS[_uncompressed_suffix(tables[0])](), listing, beside)


def _nothing_found_message(listing: Listing, path: str, single: bool) -> str:
    known = f"known formats are {', '.join(_FORMATS)} and folders of pictures"
    if single or (listing.entries and not listing.is_folder):
        first = listing.entries[0].relative
        several = "" if single or not is_picture(first) else f"; for these pictures give their folder, {listing.root}"
        return f"{path}: {first} is not of a known format; {known}{several}"
    counts = listing.passed_over + Counter({UNDERSCORE: len(listing.underscored), OTHER_FORMAT: len(listing.entries)})
    seen = f" (seen and passed over: {counts_in_words(counts)})" if counts else ""
    return f"{path}: no corpus file in this folder{seen}; {known}"


def counts_in_words(passed_over: dict[str, int]) -> str:
    """Formats counts by reason as a phrase, the largest first.

    >>> counts_in_words({"hidden": 2, "other_format": 10})
    '10 other_format, 2 hidden'
    """
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(passed_over.items(), key=lambda each: -each[1]))


def passed_over_in_words(counts: dict[str, int]) -> str:
    """What became of files that are not read as rows; pictures beside a table are read where a row names them.

    >>> passed_over_in_words({"hidden": 2, "picture_beside_table": 1200})
    'passed over: 2 hidden; beside the table, read where a row names them: 1,200'
    """
    others = {reason: count for reason, count in counts.items() if reason != BESIDE_TABLE}
    parts = [f"passed over: {counts_in_words(others)}"] if others else []
    if beside := counts.get(BESIDE_TABLE):
        parts.append(f"beside the table, read where a row names them: {beside:,}")
    return "; ".join(parts)


def is_metadata_table(relative: str) -> bool:
    """Whether a path is that of a Hugging Face picture folder's table, ``metadata.csv`` or the like."""
    return relative.rpartition("/")[2].startswith("metadata.")


def _format_suffix(relative: str) -> str | None:
    """Returns the ending of a path that names its format, e.g. ``.csv.gz``; None for other files."""
    name = relative.rpartition("/")[2].lower()
    return next((suffix for suffix in _FORMATS if name.endswith(suffix)), None)


def _uncompressed_suffix(entry: Entry) -> str:
    """Returns the format's ending without that of a compression, e.g. ``.csv`` for a.csv.gz."""
    return (_format_suffix(entry.relative) or "").removesuffix(".gz").removesuffix(".zst")
