"""Values of the job file: numbers, names and flags that are checked one by one, and what every section shares."""

import contextlib
import datetime
import math
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def show(value: object) -> str:
    """A value as it is quoted in an error, on one line and shortened."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def wrong(problem: str, key: str = "") -> PydanticCustomError:
    """A validation error whose words are final; ``key`` is relative to the model that raises it."""
    return PydanticCustomError("job", "{problem}", {"problem": problem, "key": key})


def number(kind: type[int] | type[float], minimum: float, words: str, auto: bool = False) -> BeforeValidator:
    """Accepts finite numbers of one kind from ``minimum`` up (and ``auto`` where asked)."""

    def check(value: object) -> object:
        if auto and value == "auto":
            return value
        if kind is float and isinstance(value, str | int) and not isinstance(value, bool):
            with contextlib.suppress(ValueError):
                value = float(value)
        good = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value) and value >= minimum
        if not good:
            raise wrong(f"must be {'auto or ' if auto else ''}{words}, not {show(value)}")
        return value

    return BeforeValidator(check)


def text(value: object) -> object:
    """Accepts text that is not blank."""
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, bool | int | float | datetime.date) else ""
        raise wrong(f"must be text, not {show(value)}{hint}")
    if not value.strip():
        raise wrong("must not be empty")
    return value


def names(value: object) -> object:
    """Accepts a list of different names."""
    if isinstance(value, str):
        raise wrong(f"must be a list, e.g. [{value}]")
    if not isinstance(value, list | tuple):
        raise wrong(f"must be a list of names, not {show(value)}")
    for name in value:
        text(name)
        if value.count(name) > 1:
            raise wrong(f"{show(name)} is listed twice")
    return value


def column_names(value: object) -> object:
    """Accepts a name or a list of different names."""
    if isinstance(value, list | tuple):
        if not value:
            raise wrong("must not be empty")
        return names(value)
    return text(value)


Text = Annotated[str, BeforeValidator(text)]
Names = Annotated[list[str], BeforeValidator(names)]
Count = Annotated[int, Field(ge=1), number(int, 1, "a whole number from 1 up")]
Natural = Annotated[int, Field(ge=0), number(int, 0, "a whole number from 0 up")]
Folds = Annotated[int, Field(ge=2), number(int, 2, "a whole number from 2 up")]
Share = Annotated[float, Field(ge=0), number(float, 0, "a number from 0 up")]
AutoCount = Annotated[Literal["auto"] | Annotated[int, Field(ge=1)], number(int, 1, "a whole number from 1 up", True)]
AutoShare = Annotated[Literal["auto"] | Annotated[float, Field(ge=0)], number(float, 0, "a number from 0 up", True)]
Flag = Annotated[bool, Field(strict=True)]


class Section(BaseModel):
    """What every part of the job file has in common: frozen, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True, protected_namespaces=())
