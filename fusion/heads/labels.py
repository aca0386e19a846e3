"""A target column as labels: what kind of target it is, what counts as missing, and what no head can learn."""

import datetime
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa

from barycenter.fusion.heads.targets import Task, is_empty

Form = Literal["text", "digits", "number", "flag", "date", "sets"]
MISSING_WORDS = frozenset(
    {"-", "--", "---", ".", "?", "#n/a", "#n/a n/a", "#na", "#null!", "#value!", "<na>", "n/a", "na", "n.a.", "nan",
     "-nan", "nil", "none", "null", "missing", "unknown", "undefined"}
)  # fmt: skip
"""Texts that mean a missing value in a column of numbers, in lower case."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_CODE = re.compile(r"0\d+")
_FEW_VALUES, _ROWS_A_VALUE = 30, 10
_NUMBERS_A_WORD = 9
_SHOWN = 5


class TargetError(ValueError):
    """A column that cannot be the target, and what to do."""


@dataclass(frozen=True)
class Reading:
    """How the values of a target column become labels; decided once, so that every stage has the same labels.

    Attributes:
        column: The column's name.
        task: What is learned.
        form: What the values are: ``text``; ``digits``, numbers written as text; ``number``; ``flag``, true or false;
            ``date``; ``sets``, lists of labels.
    """

    column: str
    task: Task
    form: Form

    def label(self, value: Any) -> Any:
        """The label of one value; None where it is left out.

        >>> price = Reading("price", "regression", "digits")
        >>> price.label("12.50"), price.label("n/a")
        (12.5, None)
        """
        if value is None or (isinstance(value, str) and not value.strip()):
            return None
        match self.form:
            case "text":
                return str(value)
            case "flag":
                flag = value.strip().lower() == "true" if isinstance(value, str) else bool(value)
                return float(flag) if self.task == "regression" else flag
            case "date":
                return value.isoformat() if isinstance(value, datetime.date) else str(value)
            case "sets":
                return list(dict.fromkeys(label for label in value if label is not None and label != ""))
        number = _number(value)
        if number is None:
            return None
        if self.task == "regression":
            return float(number)
        if self.form == "digits":
            return str(value)  # as a class it stays as it is written
        return int(number) if number == int(number) else number

    def labels(self, values: Iterable[Any]) -> list[Any]:
        """The labels of some values, as ``pyarrow``'s ``to_pylist`` gives them."""
        return [self.label(value) for value in values]

    def left_out(self, values: Iterable[Any]) -> Counter[str]:
        """How often values that are there, but are no labels, occur: words for a missing number, infinities."""
        return Counter(str(value).strip() for value in values if self.label(value) is None and not is_empty(value))


@dataclass(frozen=True)
class Found:
    """A reading, and what a sample of the column showed.

    Attributes:
        reading: How values become labels.
        labeled: Values of the sample that are labels.
        distinct: Different labels among them.
        left_out: ``{word: count}`` of values that are there but are no labels.
        by: Why this task, for a message.
        whole: Whether the sample is all there is.
    """

    reading: Reading
    labeled: int
    distinct: int
    left_out: dict[str, int]
    by: str
    whole: bool

    @property
    def learnable(self) -> bool:
        """Whether there are two different labels, or may be beyond the sample."""
        return self.distinct > 1 or not self.whole

    def said(self) -> str:
        """One line for a user: what the target was taken for, and why."""
        return f"target `{self.reading.column}`: {self.reading.task} ({self.by})"

    def notes(self) -> list[str]:
        """Warnings for a user: nothing to learn, hardly a class twice, what was left out."""
        name, task = self.reading.column, self.reading.task
        if self.distinct < 2:
            why = f"every labeled row has the same `{name}`" if self.labeled else f"no row has a `{name}`"
            where = "; there is nothing to learn" if self.whole else ", as far as a sample shows"
            return [f"train.target: {why}{where}"]
        notes = [] if task != "classification" else class_notes(name, self.distinct, self.labeled)
        if self.left_out:
            notes.append(f"train.target: rows whose `{name}` is no label are left out: {with_counts(self.left_out)}")
        return notes


def find_reading(
    column: str,
    kind: pa.DataType,
    values: Sequence[Any],
    task: Task | Literal["auto"] = "auto",
    *,
    whole: bool = True,
) -> Found:
    """Decides how a target column is read.

    Numbers with fractions, decimals, and whole numbers of which many are different (more than thirty, and less than
    ten rows for each) are a regression; other whole numbers, whether stored as floats or not, text, dates and booleans
    are classes; lists are label sets. Text that holds numbers, as every column of a CSV does, is read as numbers, but
    not where one begins with a 0 that says nothing: such numbers are codes.

    Args:
        column: The column's name.
        kind: Its Arrow type.
        values: A sample of its values, as ``to_pylist`` gives them.
        task: What the user asked for.
        whole: Whether the sample is all there is.

    Raises:
        TargetError: If no head can learn it, or not in the way that was asked for.
    """
    form = _form_of(column, kind, values, task)
    chosen, by = (task, "train.task") if task != "auto" else _task_of(form, values)
    _check(column, form, chosen, values)
    if form == "digits" and chosen == "classification" and task == "classification":
        form = "text"
    reading = Reading(column, chosen, form)
    labels = [label for label in reading.labels(values) if label is not None]
    plain = {tuple(label) if isinstance(label, list) else label for label in labels}
    return Found(reading, len(labels), len(plain), dict(reading.left_out(values)), by, whole)


def class_notes(column: str, classes: int, rows: int) -> list[str]:
    """A warning where classes are many and hardly one occurs twice."""
    if classes <= _FEW_VALUES or classes * 2 <= rows:
        return []
    return [
        f"train.target: `{column}` has {classes:,} classes among {rows:,} labeled rows, hardly any of them twice; "
        "if they are numbers, write them as such or set train.task to regression"
    ]


def with_counts(counts: Mapping[str, int]) -> str:
    """Counts in words, the most frequent first, e.g. ``'NA' 8, '-' 2``."""
    most = Counter(counts).most_common()
    words = [f"{word[:40]!r} {count:,}" for word, count in most[:_SHOWN]]
    return ", ".join(words) + (f" and {len(most) - _SHOWN} more" if len(most) > _SHOWN else "")


def _form_of(column: str, kind: pa.DataType, values: Sequence[Any], task: str) -> Form:
    while pa.types.is_dictionary(kind):
        kind = kind.value_type
    if _is_text(kind) or pa.types.is_null(kind):
        return _form_of_text(column, [value for value in values if not is_empty(value)], task)
    if pa.types.is_boolean(kind):
        return "flag"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return "number"
    if pa.types.is_date(kind):
        return "date"
    if _is_list(kind):
        _check_sets(column, kind, [value for value in values if value is not None])
        return "sets"
    raise TargetError(
        f"`{column}` is {kind}, which no head learns; name a column of text, numbers, dates or lists of labels"
    )


def _form_of_text(column: str, values: Sequence[str], task: str) -> Form:
    words = [value.strip() for value in values if _number(value) is None]
    strange = [word for word in words if word.lower() not in MISSING_WORDS]
    numbers = len(values) - len(words)
    if task != "regression" and any(_CODE.fullmatch(value.strip()) for value in values):
        return "text"
    if not strange:
        return "digits" if numbers or task == "regression" else "text"
    others = with_counts(Counter(strange))
    if task == "regression" and not numbers:
        raise TargetError(f"`{column}` holds no numbers but {others}; a regression needs numbers")
    mostly = numbers >= _NUMBERS_A_WORD * len(strange) and _task_of("digits", values)[0] == "regression"
    if task == "regression" or (task == "auto" and mostly):
        instead = "" if task == "regression" else ", or set train.task to classification to have each text a class"
        raise TargetError(f"`{column}` holds numbers, but also {others}; correct them or leave them empty{instead}")
    return "text"


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _is_list(kind: pa.DataType) -> bool:
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _check_sets(column: str, kind: pa.DataType, values: Sequence[Any]) -> None:
    item = kind.value_type
    while pa.types.is_dictionary(item):
        item = item.value_type
    if not (_is_text(item) or pa.types.is_integer(item) or pa.types.is_null(item)):
        raise TargetError(f"`{column}` is {kind}; lists of labels are lists of text or of whole numbers")
    lengths = {len(value) for value in values}
    labels = {label for value in values for label in value}
    if len(values) > 1 and len(lengths) == 1 and lengths != {1} and lengths != {0} and labels <= {0, 1}:
        raise TargetError(
            f"`{column}` holds rows of 0 and 1; a list holds the labels themselves, e.g. [2, 5], not one place for each"
        )


def _task_of(form: Form, values: Sequence[Any]) -> tuple[Task, str]:
    if form == "sets":
        return "multilabel", "lists of labels"
    if form not in ("number", "digits"):
        return "classification", {"text": "text", "flag": "true or false", "date": "dates"}[form]
    numbers = [number for value in values if (number := _number(value)) is not None]
    if any(number != int(number) for number in numbers) or any(_has_scale(value) for value in values):
        return "regression", "numbers with fractions"
    different = len(set(numbers))
    if different > max(_FEW_VALUES, len(numbers) / _ROWS_A_VALUE):
        return "regression", f"{different:,} different whole numbers in {len(numbers):,} rows"
    return "classification", f"{different:,} different whole numbers"


def _check(column: str, form: Form, task: Task, values: Sequence[Any]) -> None:
    if (task == "multilabel") != (form == "sets"):
        if form == "sets":
            raise TargetError(f"`{column}` holds lists, and {task} needs single values; set train.task to multilabel")
        raise TargetError(f"`{column}` holds single values, and {task} needs lists of labels; change train.task")
    if task == "regression" and form == "date":
        raise TargetError(
            f"`{column}` holds dates, which are learned as classes; for a regression make numbers of them"
        )
    if task == "regression" and form == "text" and any(not is_empty(value) for value in values):
        raise TargetError(f"`{column}` holds no numbers; a regression needs them")


def _number(value: Any) -> float | int | None:
    """A value as a finite number, if it is one."""
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            return None
        value = int(text) if text.lstrip("+-").isdecimal() and len(text) < 300 else float(text)
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if isinstance(value, Decimal):
        value = int(value) if value == value.to_integral_value() else float(value)
    return value if isinstance(value, int) or math.isfinite(value) else None


def _has_scale(value: Any) -> bool:
    """Whether a value is a decimal of a column with digits after the point."""
    exponent = value.as_tuple().exponent if isinstance(value, Decimal) else 0
    return isinstance(exponent, int) and exponent < 0
