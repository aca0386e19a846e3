"""The target and the split of a job, looked at in a sample of the corpus before anything starts."""

from collections import Counter
from collections.abc import Iterator, Mapping

import pyarrow as pa

from barycenter.fusion.errors import JobError
from barycenter.fusion.heads.labels import Found, Reading, TargetError, find_reading, with_counts
from barycenter.fusion.heads.targets import is_empty
from barycenter.fusion.splits import split_of
from barycenter.infra.corpus import Corpus
from barycenter.tasks.data.rows import sample_shards
from barycenter.tasks.run.context import Run

_SAMPLE_ROWS = 100_000


def check_target(run: Run) -> None:
    """Refuses a target that no head can learn, and a split or groups that leave nothing to learn from or to score.

    Raises:
        JobError: Naming ``train.target``, ``train.split`` or ``train.group_by``.
    """
    if run.job.train is not None:
        inspect_target(run)
        if run.job.train.split is not None:
            _check_split(run, run.job.train.split)
        if run.job.train.group_by is not None:
            _check_groups(run, run.job.train.group_by)


def inspect_target(run: Run) -> Found:
    """What the target is, by its type and rows of evenly spaced shards; read once.

    Raises:
        JobError: On ``train.target``: no head can learn it.
    """
    if run.target is None:
        train, corpus = run.job.train, run.tables[0].corpus
        assert train is not None
        if train.target == run.job.corpus.key:
            raise JobError(
                "train.target", f"`{train.target}` is the key, of which no two rows have the same; name another column"
            )
        values = [value for part in _sample(run, train.target) for value in part.to_pylist()]
        kind, whole = corpus.columns[train.target], len(values) == _rows(corpus)
        try:
            run.target = find_reading(train.target, kind, values, train.task, whole=whole)
        except TargetError as error:
            raise JobError("train.target", str(error)) from None
    return run.target


def learnable_target(run: Run) -> Reading | None:
    """How the target is read; None without a target, or where there is nothing to learn from it."""
    if run.job.train is None:
        return None
    found = inspect_target(run)
    return found.reading if found.learnable else None


def target_notes(run: Run) -> list[str]:
    """What a user should know of the target and the split."""
    if run.job.train is None:
        return []
    notes = inspect_target(run).notes()
    if run.job.train.split is not None:
        notes += split_notes(run.job.train.split, _split_names(run, run.job.train.split))
    return notes


def split_notes(split: str, names: Mapping[str, int]) -> list[str]:
    """What a user should know of the values of a split column.

    >>> split_notes("fold", {"train": 80, "test": 10, "dev": 10})
    ["train.split: rows whose `fold` is 'dev' 10 are neither trained on nor tested"]
    """
    parts = {name: split_of(name) for name in names}
    others = {name: count for name, count in names.items() if parts[name] == "other"}
    notes = []
    if others:
        notes.append(f"train.split: rows whose `{split}` is {with_counts(others)} are neither trained on nor tested")
    if "test" not in parts.values():
        notes.append(f"train.split: no `{split}` is 'test', so nothing is scored; it holds {with_counts(names)}")
    return notes


def _check_split(run: Run, split: str) -> None:
    names = _split_names(run, split)
    whole = sum(names.values()) == _rows(run.tables[0].corpus)
    if whole and "train" not in map(split_of, names):
        why = "so there is nothing to learn from"
        raise JobError("train.split", f"no `{split}` is 'train', {why}; it holds {with_counts(names)}")


def _check_groups(run: Run, column: str) -> None:
    """Refuses groups that are one: no row could be held out. A row without a value is a group of its own."""
    rows, values = 0, set[object]()
    for part in _sample(run, column):
        rows += len(part)
        values.update(part.unique().to_pylist())
        if len(values) > 1 or any(map(is_empty, values)):
            return
    if rows > 1 and rows == _rows(run.tables[0].corpus):
        (only,) = values
        raise JobError(
            "train.group_by",
            f"all {rows:,} rows have the same `{column}` ({only!r:.40}), so none can be held out from the others; name "
            "a column with more values, or leave it out",
        )


def _split_names(run: Run, split: str) -> dict[str, int]:
    """How often each value of the split column occurs in the sample."""
    if run.split_names is None:
        names: Counter[str] = Counter()
        for part in _sample(run, split):
            names.update("" if value is None else str(value) for value in part.to_pylist())
        run.split_names = dict(names)
    return run.split_names


def _rows(corpus: Corpus) -> int:
    return sum(source.rows for source in corpus.sources)


def _sample(run: Run, column: str) -> Iterator[pa.ChunkedArray]:
    """A column in evenly spaced shards of the corpus, before the inputs' own tables are joined to it."""
    corpus: Corpus = run.tables[0].corpus
    shards = corpus.shards(run.job.corpus.rows_per_shard)
    for shard in sample_shards(shards, _SAMPLE_ROWS):
        yield corpus.read(shard, [column]).column(column)
