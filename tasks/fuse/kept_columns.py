"""Types of kept columns: what the files hold them as, and what no file or reader could hold."""

import re
from collections.abc import Sequence

import pyarrow as pa

from barycenter.fusion.errors import JobError
from barycenter.tasks.run.context import Run

_DIGITS = 38
_OFFSET = re.compile(r"[+-]\d\d:?\d\d")


def check_kept(run: Run) -> None:
    """Raises JobError on kept columns of a type that would not come through the feature files."""
    for name in run.job.corpus.keep:
        kind = run.corpus.columns[name]
        if (problem := kept_problem(kind)) is not None:
            raise JobError("corpus.keep", f"{name!r} is {kind}: {problem}; cast it in the corpus, or leave it out")


def kept_problem(kind: pa.DataType) -> str | None:
    """Why values of a type cannot be kept, or None.

    >>> kept_problem(pa.list_(pa.decimal256(60, 2)))
    'readers hold decimals of at most 38 digits'
    """
    if pa.types.is_decimal(kind) and kind.precision > _DIGITS:
        return f"readers hold decimals of at most {_DIGITS} digits"
    if pa.types.is_time64(kind) and kind.unit == "ns":
        return "readers hold times of day of whole microseconds"
    if pa.types.is_struct(kind):
        names = [field.name.lower() for field in kind]
        if not names:
            return "Parquet holds no struct without fields"
        if "" in names or len(set(names)) < len(names):
            return "readers rename fields without a name and those that differ by case alone"
    if pa.types.is_fixed_size_list(kind) and not kind.list_size:
        return "readers hold no lists of fixed size 0"
    if pa.types.is_fixed_size_list(kind) and pa.types.is_null(kind.value_type):
        return "readers hold no lists of fixed size of nulls alone"
    return next(filter(None, (kept_problem(part.type) for part in parts(kind))), None)


def kept_type(kind: pa.DataType) -> pa.DataType:
    """The type that a kept column has in the files, one that all readers know.

    Decimals of any width are those of 128 bits; times in a zone that is an offset are in UTC, the same instants.

    >>> kept_type(pa.list_(pa.decimal32(7, 2)))
    ListType(list<item: decimal128(7, 2)>)
    """
    if pa.types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_timestamp(kind) and _OFFSET.fullmatch(kind.tz or ""):
        return pa.timestamp(kind.unit, "UTC")
    fields = [field.with_type(kept_type(field.type)) for field in parts(kind)]
    if [field.type for field in fields] == [field.type for field in parts(kind)]:
        return kind
    if pa.types.is_struct(kind):
        return pa.struct(fields)
    if pa.types.is_map(kind):
        return pa.map_(fields[0], fields[1], kind.keys_sorted)
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(fields[0], kind.list_size)
    return pa.large_list(fields[0]) if pa.types.is_large_list(kind) else pa.list_(fields[0])


def parts(kind: pa.DataType) -> Sequence[pa.Field]:
    """The fields of a nested type; none of others."""
    if pa.types.is_map(kind):
        return [kind.key_field, kind.item_field]
    if pa.types.is_nested(kind):
        return [kind.field(number) for number in range(kind.num_fields)]
    return []
