"""Partition columns, checked against the schema and a sample of rows before anything is written."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from barycenter.fusion.dataset.schema import FeatureFile
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.storage import Storage
from barycenter.tasks.data.rows import sample_shards
from barycenter.tasks.fuse.folders import (
    MAX_PARTITIONS,
    PartitionValue,
    column_problem,
    empty_problem,
    file_type,
    folded,
    folder,
    spelling_problem,
    text_of,
    too_many_partitions,
    value_problem,
)
from barycenter.tasks.run.context import Run

_SAMPLE_ROWS = 100_000
_KEY = "output.partition_by"


@dataclass(frozen=True, slots=True)
class Partitions:
    """What a sample of rows says of the partition columns.

    Attributes:
        count: Different folders; 1 without partition columns.
        fields: The columns that are inside the files as well.
        types: Arrow's name of each column's type.
    """

    count: int
    fields: tuple[pa.Field, ...]
    types: dict[str, str]


def sample_partitions(run: Run) -> Partitions:
    """The folders that evenly spaced rows make.

    Raises:
        JobError: A column or one of its values cannot be a folder, two values would be one folder, or there are more
            than may become folders.
    """
    names = tuple(run.job.output.partition_by)
    kinds = {name: run.corpus.columns[name] for name in names}
    for name, kind in kinds.items():
        _refuse(column_problem(name, kind))
    if not names:
        return Partitions(1, (), {})
    if isinstance(run.partitions, Partitions):
        return run.partitions
    found: dict[tuple[str | None, ...], None] = {}
    sampled_shards = sample_shards(run.shards, _SAMPLE_ROWS)
    for shard in sampled_shards:
        columns = run.corpus.read(shard, names)
        found |= dict.fromkeys(zip(*(_texts(name, columns.column(name)) for name in names), strict=True))
        if len(found) > MAX_PARTITIONS:
            raise JobError(_KEY, too_many_partitions(names, len(found)))
    values = dict(zip(names, map(list, map(dict.fromkeys, zip(*found, strict=True))), strict=True))
    whole = sum(shard.rows for shard in sampled_shards) == run.rows
    for name in names:
        _refuse(_problem(name, kinds[name], values[name], run.storage))
        if whole:
            _refuse(empty_problem(name, kinds[name], values[name]))
    inside = {name: file_type(kinds[name], values[name]) for name in names}
    fields = tuple(pa.field(name, kind) for name, kind in inside.items() if kind is not None)
    sampled = run.partitions = Partitions(max(1, len(found)), fields, {name: str(kind) for name, kind in kinds.items()})
    return sampled


def check_folders(storage: Storage, files: Sequence[FeatureFile], types: dict[str, str], inside: Sequence[str]) -> None:
    """Checks, before a commit, what only all values that were written show together.

    ``types`` and ``inside`` are Arrow's name of each partition column's type, and the columns inside the files as well.

    Raises:
        RunError: Two values are one folder on the output's file system, or readers would change the values.
    """
    for name, kind in types.items():
        values: list[PartitionValue] = list(dict.fromkeys(file.partition[name] for file in files))
        texts = [None if value is None else text_of(value) for value in values]
        problem = _problem(name, pa.type_for_alias(kind), texts, storage)
        problem = problem or empty_problem(name, pa.type_for_alias(kind), texts)
        if problem is None and (name in inside) != (file_type(pa.type_for_alias(kind), texts) is not None):
            read_as = "numbers" if name in inside else "text"
            problem = (
                f"readers take the folders of {name!r} that were written for {read_as}, and a sample for the other; "
                "keep it as a column, or put a letter before its values"
            )
        if problem is not None:
            raise RunError(f"{_KEY}: {problem}; nothing was committed")


def _texts(name: str, column: pa.ChunkedArray) -> list[str | None]:
    """The values as text, each checked once."""
    encoded = column.combine_chunks().dictionary_encode()
    values = encoded.dictionary.to_pylist()
    for value in [*values, *([None] if column.null_count else [])]:
        _refuse(value_problem(name, value))
    texts = [text_of(value) for value in values]
    return [None if place is None else texts[place] for place in encoded.indices.to_pylist()]


def _problem(name: str, kind: pa.DataType, texts: Sequence[str | None], storage: Storage) -> str | None:
    if not pa.types.is_string(kind):
        return None
    seen: dict[str, str | None] = {}
    for text in texts:
        first = seen.setdefault(folded(folder(name, text)), text)
        if first != text and storage.is_case_insensitive:
            return (
                f"{first!r} and {text!r} of {name!r} are one folder on the file system of {storage.root}; "
                "spell them alike, or write elsewhere"
            )
    return spelling_problem(name, texts)


def _refuse(problem: str | None) -> None:
    if problem is not None:
        raise JobError(_KEY, problem)
