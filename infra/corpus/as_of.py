"""A corpus as it was on a day: the files of its dated partitions up to that day."""

from collections.abc import Sequence
from datetime import date

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus.hive import partition_values
from barycenter.infra.corpus.listing import Entry
from barycenter.infra.job.fields import parse_date

LATER = "after_the_date"
"""The reason for which later files are passed over."""


def entries_up_to(entries: Sequence[Entry], day: date, path: str) -> list[Entry]:
    """The files in partitions up to a day, that day's among them.

    Args:
        entries: The files of a corpus.
        day: The last day.
        path: The corpus, for messages.

    Raises:
        JobError: A file is in no folder such as ``date=2024-01-31``, several columns are such dates, or none is that
            early.
    """
    dates = _dates(entries, path)
    taken = [entry for entry, when in zip(entries, dates, strict=True) if when <= day]
    if not taken:
        raise JobError("as_of", f"{path} has no partition up to {day}; the first is of {min(dates)}")
    return taken


def _dates(entries: Sequence[Entry], path: str) -> list[date]:
    """The date of each file's partition."""
    found = [_dated(entry.relative) for entry in entries]
    columns = set.intersection(*(set(dated) for dated in found))
    if not columns:
        without = next(
            (entry.relative for entry, dated in zip(entries, found, strict=True) if not dated), entries[0].relative
        )
        raise JobError(
            "corpus.path",
            f"{path} is not partitioned by a date, so as_of cannot know what was there: every file has to lie in a "
            f"folder such as date=2024-01-31, and {without} does not",
        )
    if len(columns) > 1:
        names = ", ".join(sorted(columns))
        raise JobError("corpus.path", f"{path} is partitioned by several dates ({names}); as_of needs exactly one")
    (column,) = columns
    return [dated[column] for dated in found]


def _dated(relative: str) -> dict[str, date]:
    """The partition columns of a file whose values are dates."""
    parsed = {name: parse_date(value) for name, value in partition_values(relative).items() if value is not None}
    return {name: when for name, when in parsed.items() if when is not None}
