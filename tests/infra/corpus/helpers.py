"""Opening small corpora in tests."""

import json
import pickle
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus import Corpus, open_corpus
from barycenter.infra.job.models import CorpusJob, LimitsJob


def opened(path: Path | str, key: str | None = None, rows: int = 4096, **options: Any) -> Corpus:
    """A corpus as a worker has it: pickled and unpickled, but with its sources."""
    corpus = open_corpus(CorpusJob(path=str(path), key=key, rows_per_shard=rows), LimitsJob(), options)
    pickle.loads(pickle.dumps(corpus))  # noqa: S301
    return corpus


def read(corpus: Corpus, columns: Iterable[str], rows: int = 4096) -> dict[str, list[Any]]:
    """All rows in order, read by a pickled copy, with the keys under ``""``."""
    columns = list(columns)
    worker: Corpus = pickle.loads(pickle.dumps(corpus))  # noqa: S301
    values: dict[str, list[Any]] = {name: [] for name in ["", *columns, "__bad__", "__misfits__"]}
    for shard in corpus.shards(rows):
        table = worker.read(shard, columns)
        assert table.num_rows == shard.rows
        raw = worker.raw_rows(shard)
        assert raw is None or worker.read(shard, columns, raw).equals(table)
        values[""] += worker.keys(shard, table)
        for name in [*columns, "__bad__", "__misfits__"]:
            values[name] += table.column(name).to_pylist()
    return values


def refusal(path: Path | str) -> str:
    """The line that opening a corpus fails with."""
    with pytest.raises(JobError) as caught:
        opened(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def jsonl(rows: Iterable[Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
