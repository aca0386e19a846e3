"""Which columns say what a row is: the key, the target, the split, groups."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import pyarrow as pa

from barycenter.fusion.heads.labels import TargetError, find_reading
from barycenter.fusion.splits import split_of
from barycenter.infra.corpus.types.keys import is_key_type
from barycenter.tasks.planning.proposal.sample import Column, Sample

_KEY_NAMES = ("id", "key", "uid", "uuid", "guid", "sku", "asin", "isbn", "doi", "pk", "index")
_KEY_WORD = re.compile(r"(?i:.*[_\-. ](?:id|key|uid|uuid|guid|sku|asin|isbn|doi|hash))|.*[a-z](?:Id|ID|Key)")
_TARGET_NAMES = (
    *("label", "labels", "target", "targets", "class", "classes", "cls", "y", "category", "categories", "sentiment"),
    *("intent", "topic", "genre", "genres", "species", "tags", "rating", "stars", "score", "price"),
)
_SPLIT_NAMES = ("split", "subset", "partition", "set", "fold")
_SPLIT_VALUES = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})
_GROUP_NAMES = frozenset(
    {"group", "group_id", "user", "author", "patient", "subject", "session", "speaker", "cluster", "base", "source",
     "family", "customer", "product", "video", "scene", "document"}
)  # fmt: skip
_FEW_LABELS = 100
_ROWS_A_LABEL = 5


@dataclass(frozen=True)
class Option:
    """A column that may be taken, and why."""

    name: str
    why: str


def find_keys(sample: Sample) -> tuple[list[Option], list[Option]]:
    """Columns that could be the key, the likeliest first; and those with the name of a key that are none."""
    good: list[Option] = []
    bad: list[Option] = []
    for column in sorted(sample.columns.values(), key=_key_rank):
        if not is_key_type(column.kind) or pa.types.is_floating(column.kind) or pa.types.is_boolean(column.kind):
            continue
        if not column.values or not (has_key_name(column.name) or _is_short(column)):
            continue
        unique, why = sample.is_unique(column.name)
        if unique:
            good.append(Option(column.name, why))
        elif has_key_name(column.name):
            bad.append(Option(column.name, why))
    return good, bad


def has_key_name(name: str) -> bool:
    """Whether a column is called as keys are.

    >>> [has_key_name(name) for name in ("id", "image_id", "productId", "paid", "text")]
    [True, True, True, False, False]
    """
    return name.lower() in _KEY_NAMES or bool(_KEY_WORD.fullmatch(name))


def _key_rank(column: Column) -> int:
    name = column.name.lower()
    return _KEY_NAMES.index(name) if name in _KEY_NAMES else len(_KEY_NAMES) + (not has_key_name(column.name))


def _is_short(column: Column) -> bool:
    """Whether the values are like names: whole numbers, or texts without spaces."""
    if not column.is_text:
        return bool(pa.types.is_integer(column.kind))
    return all(len(value) <= 200 and len(value.split()) == 1 for value in column.values)


def find_split(sample: Sample, taken: Collection[str]) -> Option | None:
    """The column that says which rows are for training and which for tests."""
    found = []
    for column in sample.columns.values():
        if not column.is_text or column.name in taken or not column.values:
            continue
        values = {value.strip().lower() for value in column.values}
        if values <= _SPLIT_VALUES and any(split_of(value) == "train" for value in values):
            found.append(Option(column.name, ", ".join(f"{value!r}" for value in sorted(values))))
    named = [option for option in found if option.name.lower() in _SPLIT_NAMES]
    return next(iter([*named, *found]), None)


def is_scored(split: Option) -> bool:
    """Whether a row that was seen is for tests."""
    return "'test'" in split.why or "'testing'" in split.why


def find_targets(sample: Sample, taken: Collection[str]) -> tuple[list[Option], list[Option]]:
    """Columns with the name of a target that can be learned, the likeliest first; and others with few values."""
    named: list[tuple[int, Option]] = []
    others: list[Option] = []
    for column in sample.columns.values():
        if column.name in taken or column.holds_bytes:
            continue
        rank = _target_rank(column.name)
        reading = _learnable(column)
        if reading is None:
            continue
        task, why = reading
        if rank is not None and (task != "classification" or column.distinct * 2 <= len(column.values)):
            named.append((rank, Option(column.name, why)))
        elif task == "classification" and _has_few_values(column):
            others.append(Option(column.name, why))
    return [option for _, option in sorted(named, key=lambda each: each[0])], others


def _target_rank(name: str) -> int | None:
    """The place of a name among those that targets have; None for other names."""
    words = [name.lower(), re.split(r"[_\-. ]", name.lower())[-1]]
    return next((_TARGET_NAMES.index(word) for word in words if word in _TARGET_NAMES), None)


def judge_target(column: Column) -> Option | str:
    """A column as the target, whatever its name; or why it cannot be one."""
    reading = _reading(column)
    return reading if isinstance(reading, str) else Option(column.name, reading[1])


def _learnable(column: Column) -> tuple[str, str] | None:
    """The task that a column would be, and why; None where it cannot be learned or nothing differs."""
    reading = _reading(column)
    return None if isinstance(reading, str) else reading


def _reading(column: Column) -> tuple[str, str] | str:
    """The task that a column would be, and why; or why it can be none."""
    try:
        found = find_reading(column.name, column.kind, column.values)
    except TargetError as error:
        return str(error)
    except (TypeError, ValueError):
        return f"`{column.name}` is {column.kind}, which no head learns"
    if found.distinct < 2:
        what = "one value" if found.distinct else "no value"
        return f"`{column.name}` has {what} in {column.rows:,} rows read, so there is nothing to learn"
    several = "" if found.reading.task == "regression" else f", {found.distinct:,} different"
    return found.reading.task, f"{found.reading.task}: {found.by}{several} in {found.labeled:,} rows read"


def _has_few_values(column: Column) -> bool:
    """Whether a column of single values has so few that they may be classes."""
    few = column.distinct <= min(_FEW_LABELS, len(column.values) // _ROWS_A_LABEL)
    return few and not pa.types.is_nested(column.kind) and len(column.values) * 2 >= column.rows


def find_groups(sample: Sample, taken: Collection[str], repeated: Sequence[Option]) -> list[Option]:
    """Columns whose equal values belong together: ids that repeat, and columns that are called as groups are."""
    names = [option.name for option in repeated]
    names += [name for name in sample.columns if name.lower().removesuffix("_id") in _GROUP_NAMES]
    groups = []
    for name in dict.fromkeys(names):
        column = sample.columns[name]
        if name in taken or pa.types.is_nested(column.kind) or column.holds_bytes:
            continue
        if 2 < column.distinct < len(column.values):
            groups.append(Option(name, f"{column.distinct:,} different values in {len(column.values):,} rows read"))
    return groups
