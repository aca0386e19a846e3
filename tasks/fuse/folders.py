"""Folders of partition values: one for each value, from which readers take the value again."""

import math
import re
import unicodedata
from collections.abc import Iterable
from datetime import date
from typing import Any

import pyarrow as pa

from barycenter.fusion.dataset.schema import PARTITION_TEXT

MAX_PARTITIONS = 1000
_LONGEST_NAME = 255
_NULL_NAME = "__HIVE_DEFAULT_PARTITION__"
_PLAIN = re.compile(r"[A-Za-z0-9_.~-]|[^\x00-\x7f]")
_KINDS = (pa.types.is_string, pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_date32)
_WHOLE = re.compile(r"-?[0-9]+|0[xX][0-9a-fA-F]{1,8}")
_PLAIN_WHOLE = re.compile(r"0|-?[1-9][0-9]*")
_INT32 = range(-(2**31), 2**31)
_SPLIT = "(?:train|training|validation|valid|dev|val|test|testing|eval|evaluation)"
_OF_A_SPLIT = re.compile(rf"(?<=[-._ 0-9]){_SPLIT}(?=[-._ 0-9]|$)")
"""What Hugging Face's datasets take for the name of a split, and then read that split's folders alone."""

PartitionValue = str | int | float | bool | None
"""A partition value as the manifest holds it."""


def column_problem(name: str, kind: pa.DataType) -> str | None:
    """Why files cannot be partitioned by a column, or None."""
    if name.startswith(("_", ".")):
        return f"{name!r}: readers pass over folders whose names begin with {name[0]}; rename the column in the corpus"
    if not name.isprintable() or any(sign in name for sign in "/\\=%"):
        return f"{name!r}: a folder cannot be named so (/ \\ = %); rename the column in the corpus"
    if not any(test(kind) for test in _KINDS):
        return (
            f"{name!r} is {kind}; folders are made of text, numbers, true or false, and dates: "
            "keep it as a column, or partition by another"
        )
    return None


def value_problem(name: str, value: object) -> str | None:
    """Why a value cannot become a folder, or None."""
    if value == _NULL_NAME:
        return f"{name!r} has the value {_NULL_NAME!r}, which readers take for null; write null, or another word"
    if value is None and _OF_A_SPLIT.search(f"-{name}") and not _OF_A_SPLIT.search(f"-{name}="):
        return (
            f"the nulls of {name!r} make a folder {name!r}, which Hugging Face's datasets take for a split, leaving "
            "out all others; fill them, or rename the column"
        )
    size = len(folder(name, value).encode())
    if size > _LONGEST_NAME:
        return (
            f"the value {str(value)[:60]!r} of {name!r} makes a folder name of {size} bytes, more than the "
            f"{_LONGEST_NAME} of a file system; shorten it, or keep {name!r} as a column"
        )
    return None


def empty_problem(name: str, kind: pa.DataType, texts: Iterable[str | None]) -> str | None:
    """Why a column of nothing but nulls cannot be folders, or None; text is in the files as well.

    >>> empty_problem("n", pa.int64(), ["1", None]) is None, empty_problem("n", pa.string(), [None]) is None
    (True, True)
    """
    if pa.types.is_string(kind) or any(text is not None for text in texts):
        return None
    return (
        f"all values of {name!r} are null, so that readers of folders see no such column; leave it out of the folders"
    )


def spelling_problem(name: str, texts: Iterable[str | None]) -> str | None:
    """Why readers would change the texts of a column, or None: pandas takes a column of digits for whole numbers."""
    known = [text for text in texts if text is not None]
    if not reads_as_whole(known):
        return None
    changed = next((text for text in known if not _PLAIN_WHOLE.fullmatch(text)), None)
    if changed is None:
        return None
    return (
        f"all values of {name!r} look like whole numbers, so that readers take the folder of {changed!r} for "
        f"{_number(changed)}; keep {name!r} as a column, or put a letter before its values"
    )


def reads_as_whole(texts: Iterable[str | None]) -> bool:
    """Whether pandas and pyarrow take folders of these texts for whole numbers.

    >>> reads_as_whole(["7", None]), reads_as_whole(["7", "x"]), reads_as_whole(["3000000000"]), reads_as_whole([None])
    (True, False, False, False)
    """
    known = [text for text in texts if text is not None]
    return bool(known) and all(_WHOLE.fullmatch(text) and _number(text) in _INT32 for text in known)


def _number(text: str) -> int:
    return int(text, 16) if "x" in text.lower() else int(text)


def folder(name: str, value: object) -> str:
    """The folder of one value; a null has one without a value, because pandas reads no other.

    >>> folder("label", "a/b é"), folder("label", None), folder("day", date(2024, 1, 31)), folder("label", "my test")
    ('label=a%2Fb%20é', 'label', 'day=2024-01-31', 'label=my%20%74est')
    """
    if value is None:
        return name
    signs = (sign if _PLAIN.fullmatch(sign) and sign.isprintable() else _escaped(sign) for sign in text_of(value))
    return f"{name}={_OF_A_SPLIT.sub(lambda word: _escaped(word[0][0]) + word[0][1:], ''.join(signs))}"


def _escaped(sign: str) -> str:
    return "".join(f"%{byte:02X}" for byte in sign.encode())


def text_of(value: object) -> str:
    """A partition value as text; values that are equal give the same."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return repr(value + 0.0)
    return value.isoformat() if isinstance(value, date) else str(value)


def stored(value: Any) -> PartitionValue:
    """A partition value as JSON can hold it; ``partition_scalar`` of the dataset's schema makes it the value again."""
    if isinstance(value, float):
        return value + 0.0 if math.isfinite(value) else text_of(value)
    return value if value is None or isinstance(value, str | int) else text_of(value)


def file_type(kind: pa.DataType, texts: Iterable[str | None]) -> pa.DataType | None:
    """The type of a partition column inside the files, where readers of folders accept one, else None.

    Text is in the files as well, so that readers that know no folders have it; as a dictionary, because pandas
    refuses a column in the files that is not of the type it takes the folders for. ``texts`` are a sample of it.
    """
    return PARTITION_TEXT if pa.types.is_string(kind) and not reads_as_whole(texts) else None


def folded(path: str) -> str:
    """What file systems that ignore case or Unicode form take a path for.

    >>> folded("label=É/x") == folded("label=e\u0301/X")
    True
    """
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def too_many_partitions(names: tuple[str, ...], found: int) -> str:
    """What to do about partition columns of too many values."""
    return (
        f"{', '.join(names)} has {found} values or more, at most {MAX_PARTITIONS} may become "
        "folders; partition by a column with fewer values, or keep it as a column, which readers can filter by"
    )
