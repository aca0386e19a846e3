"""The tables of a job: the corpus, and the inputs' own where they have one."""

from collections.abc import Mapping
from datetime import date
from typing import Any

from barycenter.fusion.errors import JobError
from barycenter.infra.corpus import open_corpus
from barycenter.infra.corpus.corpus import Corpus
from barycenter.infra.corpus.join.partition import JoinTable
from barycenter.infra.corpus.overlap import check_no_links_into_output, check_output_outside_corpus
from barycenter.infra.job.models import CorpusJob, InputJob, Job


def open_tables(job: Job, storage_options: Mapping[str, Any], as_of: date | None = None) -> list[JoinTable]:
    """Opens the corpus and every input's own table, as they were on the day ``as_of`` where one is given.

    Returns:
        The corpus first; then one table for each input with a table of its own.

    Raises:
        JobError: Naming the key of the job file that is wrong.
    """
    corpus = _opened(job.corpus, job, storage_options, as_of)
    own = {name: part for name, part in job.inputs.items() if part.corpus is not None}
    shared = {name: part for name, part in job.inputs.items() if part.corpus is None}
    corpus.check_columns(job.required_columns())
    if not own:
        return [JoinTable(None, corpus, {}, frozenset())]
    if job.corpus.key is None:
        raise JobError("corpus.key", f"is missing; inputs.{next(iter(own))}.corpus is joined on it")
    tables = [_table(None, corpus, {name: name for name in job.corpus.keep}, shared)]
    for name, part in own.items():
        tables.append(_table(name, _open_own(name, part, job, storage_options, as_of), {}, {name: part}))
    return tables


def inputs_of(table: JoinTable, job: Job) -> list[str]:
    """The inputs whose columns are in an input table."""
    if table.input is not None:
        return [table.input]
    return [name for name, part in job.inputs.items() if part.corpus is None]


def _opened(settings: CorpusJob, job: Job, storage_options: Mapping[str, Any], as_of: date | None) -> Corpus:
    """A corpus that lies apart from the output."""
    check_output_outside_corpus(settings.path, job.output.path)
    corpus = open_corpus(settings, job.limits, storage_options, as_of)
    check_no_links_into_output(settings.path, corpus.sources, job.output.path)
    return corpus


def _open_own(name: str, part: InputJob, job: Job, storage_options: Mapping[str, Any], as_of: date | None) -> Corpus:
    assert part.corpus is not None
    where = f"inputs.{name}.corpus"
    try:
        settings = CorpusJob(path=part.corpus.path, key=part.corpus.key, rows_per_shard=job.corpus.rows_per_shard)
        corpus = _opened(settings, job, storage_options, as_of)
    except JobError as error:
        if not error.key.startswith("corpus."):
            raise
        raise JobError(f"{where}.{error.key.removeprefix('corpus.')}", error.problem) from None
    if corpus.key is None and job.corpus.key in corpus.columns:
        corpus = corpus.with_key(job.corpus.key)
    if corpus.key_column is None:
        raise JobError(f"{where}.key", f"no column {job.corpus.key!r} in {part.corpus.path}; name the one to join on")
    corpus.check_columns({f"{where}.key": corpus.key_column, **part.required_columns(f"inputs.{name}")})
    return corpus


def _table(
    input_name: str | None, corpus: Corpus, kept: Mapping[str, str], inputs: Mapping[str, InputJob]
) -> JoinTable:
    columns = dict(kept)
    paths = set()
    for name, part in inputs.items():
        for column in [*part.columns, *filter(None, [part.weights_column])]:
            columns[f"{name}.{column}"] = column
        if part.kind == "image":
            paths.add(f"{name}.{part.columns[0]}")
    return JoinTable(input_name, corpus, columns, frozenset(paths))
