"""A few values of each input, tried before anything starts: an input of which none is what its kind says is refused."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pyarrow as pa

from barycenter.fusion.encoders.image.decoding import decode
from barycenter.fusion.encoders.row_values import check_text
from barycenter.fusion.errors import BadInputError, JobError, Reason, RunError
from barycenter.infra.corpus import Pictures
from barycenter.infra.corpus.join.partition import JoinTable
from barycenter.infra.job.models import InputJob, LimitsJob
from barycenter.infra.versions.embedding_files import done_shards
from barycenter.tasks.data.rows import sample_shards
from barycenter.tasks.embed.advice import describe_reasons
from barycenter.tasks.embed.stage import pictures_of
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import embedding_ids
from barycenter.tasks.run.input_tables import inputs_of
from barycenter.tasks.run.input_values import Columns, InputValues, is_multi_value

_VALUES, _SHARDS, _ROWS = 24, 8, 200
_ABSENT = (Reason.NULL, Reason.EMPTY)
_NUMBERS = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
_TEXTS = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_null)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)


def check_inputs(run: Run) -> None:
    """Refuses an input whose column cannot hold its kind, or of which a sample holds no value of it.

    One that was embedded in part needs no trial: its pictures may be gone by now.

    Raises:
        JobError: Naming ``inputs.<name>.column`` or ``inputs.<name>.weights_column``.
    """
    for table in run.tables:
        for name in inputs_of(table, run.job):
            part = run.job.inputs[name]
            _check_weights(name, part, table)
            if part.kind == "vector" or done_shards(run.storage, name, embedding_ids(run)[name]):
                continue
            _check_types(name, part, table)
            if run.job.limits.max_bad_fraction < 1:
                _check_values(run, name, table)


def _check_weights(name: str, part: InputJob, table: JoinTable) -> None:
    if part.weights_column is not None:
        kind = _value_type(table.corpus.columns[part.weights_column])
        if not any(test(kind) for test in _NUMBERS):
            raise JobError(
                f"inputs.{name}.weights_column",
                f"`{part.weights_column}` is {kind}, and weights are numbers; name another column",
            )


def _check_types(name: str, part: InputJob, table: JoinTable) -> None:
    for column in part.columns:
        kind = _value_type(table.corpus.columns[column])
        is_text = any(test(kind) for test in _TEXTS)
        if part.kind == "text" and not (is_text or len(part.columns) > 1):
            raise JobError(
                f"inputs.{name}.column", f"`{column}` is {kind}, and kind: text reads text; name another column"
            )
        if part.kind == "image" and not (is_text or any(test(kind) for test in _BYTES) or _is_picture(kind)):
            reads = "paths, encoded bytes, or structs of bytes and path"
            raise JobError(
                f"inputs.{name}.column", f"`{column}` is {kind}, and kind: image reads {reads}; name another"
            )


def _check_values(run: Run, name: str, table: JoinTable) -> None:
    """Tries evenly spaced values; nulls and empty ones, which a sparse column has, do not count."""
    counts: Counter[str] = Counter()
    examples: dict[str, str] = {}
    for attempt in _attempts(run, name, table):
        try:
            attempt()
        except BadInputError as error:
            if error.reason not in _ABSENT:
                counts[error.reason] += 1
                examples.setdefault(error.reason, f"e.g. {' '.join(error.detail.split())[:80]}" if error.detail else "")
        except RunError:
            return
        else:
            return
    if counts.total() > 1:
        kind = run.job.inputs[name].kind
        what = "a text" if kind == "text" else "a picture that can be read"
        raise JobError(
            f"inputs.{name}.column",
            f"none of {counts.total()} values tried is {what}: {describe_reasons(counts, examples)}",
        )


def _attempts(run: Run, name: str, table: JoinTable) -> Iterator[Callable[[], object]]:
    """Reads and decodes one value each; a picture behind http(s) counts as good."""
    part, corpus, limits = run.job.inputs[name], table.corpus, run.job.limits
    several = any(is_multi_value(corpus.columns[column], vector=False) for column in part.columns)
    pictures: Pictures | None = pictures_of(run, name) if part.kind == "image" else None
    columns = Columns(part.kind, tuple(part.columns), None, several, pictures)
    shards = sample_shards(corpus.shards(run.job.corpus.rows_per_shard), run.job.corpus.rows_per_shard * _SHARDS)
    for shard in shards[:: max(1, len(shards) // _SHARDS)]:
        sampled = corpus.read(shard, part.columns)
        rows = np.linspace(0, sampled.num_rows - 1, min(_ROWS, sampled.num_rows)).astype(int)
        found = InputValues(sampled.take(pa.array(np.unique(rows))), columns, shard.folder)
        there = [value for value in found.values if value is not None][:: max(1, len(found.values) // _VALUES)]
        for value in there[:_VALUES]:
            yield partial(check_text, value) if pictures is None else partial(_check_picture, value, limits)


def _check_picture(value: object, limits: LimitsJob) -> None:
    if not callable(value):
        raise BadInputError(Reason.NOT_AN_IMAGE, f"{value!r:.60}")
    decode(value(), formats=limits.formats, max_pixels=limits.max_pixels)


def _value_type(kind: pa.DataType) -> pa.DataType:
    """The type of one value: of lists, and of what is encoded by a dictionary, that inside."""
    while is_multi_value(kind, vector=False) or pa.types.is_large_list(kind) or pa.types.is_dictionary(kind):
        kind = kind.value_type
    return kind


def _is_picture(kind: pa.DataType) -> bool:
    return pa.types.is_struct(kind) and {"bytes", "path"} & {field.name for field in kind} != set()
