"""Types of values in the job file, with their validators, and the base class of its sections."""

import contextlib
import datetime
import math
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from barycenter.infra.userinfo import holds_secret, without_userinfo

NO_SECRET = (
    "must hold no user name, password or signature, for the job is kept in files and shown on pages; set credentials "
    "in the environment, or name a Prefect block in storage.credentials_block"
)


def quote_value(value: object) -> str:
    """Quotes a value for an error message: its repr, true and false as in a job file, at most 60 characters."""
    text = without_userinfo(str(value).lower() if isinstance(value, bool) else repr(value))
    return text if len(text) <= 60 else text[:57] + "..."


def invalid(problem: str, key: str = "") -> PydanticCustomError:
    """Builds a validation error with a message for users; ``key`` is relative to the model that raises it."""
    return PydanticCustomError("job", "{problem}", {"problem": problem, "key": key})


def number_validator(kind: type[int] | type[float], minimum: float, words: str, auto: bool = False) -> BeforeValidator:
    """Returns a validator of finite numbers from ``minimum`` up, or ``"auto"`` if allowed; ``words`` describes them."""

    def check(value: object) -> object:
        if auto and value == "auto":
            return value
        if kind is float and isinstance(value, str | int) and not isinstance(value, bool):
            with contextlib.suppress(ValueError):
                value = float(value)
        good = isinstance(value, kind) and not isinstance(value, bool) and math.isfinite(value) and value >= minimum
        if not good:
            raise invalid(f"must be {'auto or ' if auto else ''}{words}, not {quote_value(value)}")
        return value

    return BeforeValidator(check)


def check_text(value: object) -> object:
    """Validates text that is not blank and lets nobody in anywhere."""
    if not isinstance(value, str):
        hint = "; put it in quotes" if isinstance(value, bool | int | float | datetime.date) else ""
        raise invalid(f"must be text, not {quote_value(value)}{hint}")
    if not value.strip():
        raise invalid("must not be empty")
    if holds_secret(value):
        raise invalid(NO_SECRET)
    return value


def check_names(value: object) -> object:
    """Validates a list of distinct names."""
    if isinstance(value, str):
        raise invalid(f"must be a list, e.g. [{without_userinfo(value)}]")
    if not isinstance(value, list | tuple):
        raise invalid(f"must be a list of names, not {quote_value(value)}")
    for name in value:
        check_text(name)
        if value.count(name) > 1:
            raise invalid(f"{quote_value(name)} is listed twice; remove one")
    return value


def check_date(value: object) -> object:
    """Validates a date, or its text as in ``2024-01-31``; numbers are none."""
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    parsed = parse_date(value) if isinstance(value, str) else None
    if parsed is None:
        raise invalid(f"must be a date such as 2024-01-31, not {quote_value(value)}")
    return parsed


def parse_date(text: str) -> datetime.date | None:
    """Returns the date that a text is, in ISO 8601's long form; None where it is none.

    >>> parse_date("2024-01-31"), parse_date("20240131"), parse_date("2024-02-31")
    (datetime.date(2024, 1, 31), None, None)
    """
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        return None
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None


def check_column_names(value: object) -> object:
    """Validates a name, or a list of distinct names that is not empty."""
    if isinstance(value, list | tuple):
        if not value:
            raise invalid("must not be empty")
        return check_names(value)
    return check_text(value)


_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def check_duration(value: object) -> object:
    """Validates a length of time such as ``6h`` or ``1h30m``."""
    if not (isinstance(value, str) and re.fullmatch(r"(\d+d)?(\d+h)?(\d+m)?(\d+s)?", value) and seconds_of(value)):
        raise invalid(f"must be a length of time such as 6h, 90m or 1h30m, not {quote_value(value)}")
    return value


def seconds_of(duration: str) -> float:
    """Seconds of a valid length of time.

    >>> seconds_of("1h30m")
    5400.0
    """
    return float(sum(int(count) * _UNITS[unit] for count, unit in re.findall(r"(\d+)([dhms])", duration)))


Text = Annotated[str, BeforeValidator(check_text)]
Names = Annotated[list[str], BeforeValidator(check_names)]
Count = Annotated[int, Field(ge=1), number_validator(int, 1, "a whole number from 1 up")]
Natural = Annotated[int, Field(ge=0), number_validator(int, 0, "a whole number from 0 up")]
Folds = Annotated[int, Field(ge=2), number_validator(int, 2, "a whole number from 2 up")]
Share = Annotated[float, Field(ge=0), number_validator(float, 0, "a number from 0 up")]
AutoCount = Annotated[
    Literal["auto"] | Annotated[int, Field(ge=1)], number_validator(int, 1, "a whole number from 1 up", True)
]
AutoShare = Annotated[
    Literal["auto"] | Annotated[float, Field(ge=0)], number_validator(float, 0, "a number from 0 up", True)
]
Flag = Annotated[bool, Field(strict=True)]
Date = Annotated[datetime.date, BeforeValidator(check_date)]
Duration = Annotated[str, BeforeValidator(check_duration)]
Seconds = Annotated[float, Field(gt=0), number_validator(float, 1e-9, "a number of seconds above 0")]


def _complete_properties(schema: dict[str, Any], model: type[BaseModel]) -> None:
    """Gives every property of a section's JSON schema title and description, also those that hold other sections."""
    for name, field in model.model_fields.items():
        key = field.alias or name
        shown = schema["properties"][key]
        shown.setdefault("title", key.replace("_", " ").title())
        if field.description is not None:
            shown.setdefault("description", field.description)


class Section(BaseModel):
    """Base model of the job file's sections: frozen, unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        serialize_by_alias=True,
        protected_namespaces=(),
        hide_input_in_errors=True,
        json_schema_extra=_complete_properties,
    )

    @classmethod
    def attributes_by_key(cls) -> dict[str, str]:
        """The attributes of the section by its keys as the job file spells them."""
        return {field.alias or name: name for name, field in cls.model_fields.items()}
