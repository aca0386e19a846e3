"""Opens a corpus: lists its files, chooses their format, indexes them."""

import re
from collections import Counter
from collections.abc import Container, Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.as_of import LATER, entries_up_to
from barycenter.infra.corpus.base import Shard
from barycenter.infra.corpus.corpus import Corpus, index_sources
from barycenter.infra.corpus.files import Files
from barycenter.infra.corpus.formats.detection import ChosenFormat, choose_format, is_metadata_table
from barycenter.infra.corpus.formats.folder import is_picture
from barycenter.infra.corpus.listing import Listing
from barycenter.infra.job.models import CorpusJob, LimitsJob
from barycenter.infra.words import counted

_JOB_KEY = "corpus.path"
_HEAD_ROWS = 20
_ROWS_PER_STRAY_PICTURE = 10
_SMALL_BYTES, _SAMPLE_FILES, _SAMPLE_ROWS = 64 << 20, 16, 512
_SEPARATORS = re.compile(r"[\s\"',;|\\]+")


def open_corpus(
    job: CorpusJob, limits: LimitsJob, storage_options: Mapping[str, Any] | None = None, as_of: date | None = None
) -> Corpus:
    """Opens a corpus: lists its files, counts their rows and unifies the types of their columns.

    Args:
        job: The job file's corpus section, paths absolute.
        limits: The job file's limits section; ``http`` must be true for a corpus read over http(s).
        storage_options: ``endpoint_url`` of an S3-compatible server, if any.
        as_of: Takes the files of dated partitions up to that day alone.

    Raises:
        JobError: On ``corpus.path``: it does not exist or is not readable, has no or several known formats, a damaged
            file, or no rows; or it is not partitioned by a date. On ``as_of``: no partition is that early.
    """
    return _open(job, limits, storage_options, as_of=as_of)[0]


def open_sample(
    job: CorpusJob, limits: LimitsJob, storage_options: Mapping[str, Any] | None = None
) -> tuple[Corpus, bool]:
    """Opens a corpus as :func:`open_corpus` does, but reads a bounded part of a large one.

    Of files of more than 64 MiB in all it opens 16, evenly spaced, and of each of them that it has to read to count its
    rows the first 512 rows. Pictures in folders are listed, not read.

    Returns:
        The corpus, of the rows that were found, and whether they are all of its rows.

    Raises:
        JobError: As :func:`open_corpus`.
    """
    return _open(job, limits, storage_options, most=(_SAMPLE_FILES, _SAMPLE_ROWS))


def _open(
    job: CorpusJob,
    limits: LimitsJob,
    storage_options: Mapping[str, Any] | None,
    *,
    most: tuple[int, int] | None = None,
    as_of: date | None = None,
) -> tuple[Corpus, bool]:
    """Opens a corpus, of a large one at most so many files and rows of each; also returns whether that is all of it."""
    if job.path.startswith(("http://", "https://")) and not limits.http:
        raise JobError(_JOB_KEY, f"{job.path}: set limits.http to true to read over http(s)")
    files = Files(storage_options)
    chosen = choose_format(files.list(job.path), job.path)
    if as_of is not None:
        chosen = replace(chosen, listing=_listing_up_to(chosen.listing, as_of, job.path))
    _check_picture_links(chosen, job.path, limits.outside_corpus)
    sources = chosen.format.find_sources(chosen.listing)
    whole = most is None or sum(source.size for source in sources) <= _SMALL_BYTES
    if most is not None and not whole:
        step = -(-len(sources) // most[0])
        sources, chosen.format.most_rows = sources[::step], most[1]
    indexes = index_sources(files, chosen.format, sources, job.rows_per_shard)
    passed_over = dict(sorted((+chosen.listing.passed_over).items()))
    listing = {"files": {"taken": len(chosen.listing.entries), "passed_over": passed_over}}
    corpus = Corpus(chosen.listing.root, files, chosen.format, job, indexes, listing)
    if whole:
        _check_table_names_pictures(corpus, chosen, job.path)
    if not any(source.rows for source in corpus.sources):
        raise JobError(_JOB_KEY, f"{job.path} holds no rows; give a file or folder that has some")
    return corpus, whole


def _listing_up_to(listing: Listing, day: date, path: str) -> Listing:
    """The files of dated partitions up to a day; the later ones count as passed over."""
    taken = entries_up_to(listing.entries, day, path)
    passed_over = listing.passed_over + Counter({LATER: len(listing.entries) - len(taken)})
    return replace(listing, entries=taken, passed_over=passed_over)


def _check_picture_links(chosen: ChosenFormat, path: str, outside_corpus: bool) -> None:
    """Raises where all pictures are links that lead out of the corpus folder, since none could be read."""
    pictures = [entry for entry in chosen.pictures or chosen.listing.entries if is_picture(entry.relative)]
    out = chosen.listing.links_outside
    if pictures and not outside_corpus and all(entry.relative in out for entry in pictures):
        raise JobError(
            "limits.outside_corpus",
            f"all {len(pictures):,} pictures of {path} are links that lead out of it (such as {pictures[0].relative}); "
            "set it to true to follow them",
        )


def _check_table_names_pictures(corpus: Corpus, chosen: ChosenFormat, path: str) -> None:
    """Raises where the first rows of no table name a picture beside it: it is unclear which of the two is the corpus.

    Pictures beside a table of more than ten times as many rows (a logo, a plot) are passed over without an error.
    """
    if not chosen.pictures or all(is_metadata_table(source.relative) for source in corpus.sources):
        return
    if sum(source.rows for source in corpus.sources) > _ROWS_PER_STRAY_PICTURE * len(chosen.pictures):
        return
    names = {entry.relative.rpartition("/")[2] for entry in chosen.pictures}
    shards = corpus.shards(corpus.rows_per_shard)
    for source in corpus.sources:
        shard = next((shard for shard in shards if shard.source == source.relative), None)
        if shard is not None and _names_a_picture(corpus, shard, names):
            return
    table = corpus.sources[0].relative
    pictures, tables = counted(len(chosen.pictures), "picture"), counted(len(corpus.sources), "table")
    raise JobError(
        _JOB_KEY,
        f"{path}: holds {pictures} and {tables} ({table}) whose first rows name none of the pictures; to embed the "
        f"table give its path ({path.rstrip('/')}/{table}), to embed the pictures move it out of the folder",
    )


def _names_a_picture(corpus: Corpus, shard: Shard, names: Container[str]) -> bool:
    """Whether a text in the first rows of a shard contains one of the picture file names ``names``."""
    head = replace(shard, stop=min(shard.stop, shard.start + _HEAD_ROWS))
    table = corpus.read(head, list(corpus.columns))
    texts = (text for row in table.to_pylist() for value in row.values() for text in _nested_strings(value))
    return any(part.rpartition("/")[2] in names for text in texts for part in (text, *_SEPARATORS.split(text)))


def _nested_strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list):
        for part in value.values() if isinstance(value, Mapping) else value:
            yield from _nested_strings(part)
