"""What can go wrong, defined once: a wrong job file, a failed run, a bad input."""

from enum import StrEnum
from typing import Self


class BarycenterError(Exception):
    """An error whose message is one line for the user and needs no traceback."""


class JobError(BarycenterError):
    """The job file or a flag is wrong (exit code 2).

    Attributes:
        key: Path of the offending key in the job file, e.g. ``inputs.image.weights``.
        problem: What is wrong and what to do.
    """

    def __init__(self, key: str, problem: str) -> None:
        super().__init__(key, problem)
        self.key = key
        self.problem = problem

    def __str__(self) -> str:
        return f"{self.key}: {self.problem}" if self.key else self.problem

    def under(self, parent: str) -> "JobError":
        """The same error with its key placed below ``parent``."""
        return JobError(f"{parent}.{self.key}" if self.key else parent, self.problem)


class RunError(BarycenterError):
    """The run failed (exit code 1)."""


class BadInputsError(RunError):
    """More inputs cannot be used than the job allows."""


class DeadlineError(RunError):
    """The time that a job gives its runs is over."""


class BusyError(RunError):
    """Another process holds the output.

    Attributes:
        skip: Whether what was to be done is to be skipped rather than to fail.
    """

    def __init__(self, line: str, skip: bool) -> None:
        super().__init__(line)
        self.skip = skip

    def __reduce__(self) -> tuple[type[Self], tuple[str, bool]]:
        return type(self), (str(self), self.skip)


class Reason(StrEnum):
    """Why an input of a row could not be used; the fixed words of ``rejects/``."""

    NULL = "null"
    EMPTY = "empty"
    NOT_TEXT = "not_text"
    INVALID_TEXT = "invalid_text"
    NOT_AN_IMAGE = "not_an_image"
    FORMAT_NOT_ALLOWED = "format_not_allowed"
    TOO_MANY_PIXELS = "too_many_pixels"
    TRUNCATED = "truncated"
    DECODE_ERROR = "decode_error"
    FILE_MISSING = "file_missing"
    NOT_A_FILE = "not_a_file"
    NO_PERMISSION = "no_permission"
    OUTSIDE_CORPUS = "outside_corpus"
    HTTP_NOT_ALLOWED = "http_not_allowed"
    HTTP_ERROR = "http_error"
    TOO_LARGE = "too_large"
    NOT_NUMERIC = "not_numeric"
    NOT_FINITE = "not_finite"
    WRONG_LENGTH = "wrong_length"
    WRONG_TYPE = "wrong_type"
    NULL_KEY = "null_key"
    DUPLICATE_KEY = "duplicate_key"
    UNREADABLE_ROW = "unreadable_row"
    POISONED = "poisoned"


class BadInputError(Exception):
    """One input of one row cannot be used; the row is recorded, the run goes on.

    Attributes:
        reason: A fixed word.
        detail: What the library said, or the offending value, shortened.
    """

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail[:500]

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else str(self.reason)
