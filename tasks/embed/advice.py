"""What to do about inputs that cannot be used, by reason."""

from collections.abc import Mapping

from barycenter.fusion.errors import Reason

ADVICE: dict[Reason, str] = {
    Reason.NULL: "the column is null there",
    Reason.EMPTY: "the value or the file is empty there",
    Reason.NOT_TEXT: "name a column of text",
    Reason.INVALID_TEXT: "write the texts as UTF-8",
    Reason.NOT_AN_IMAGE: "name a column of picture files, paths or bytes",
    Reason.FORMAT_NOT_ALLOWED: "add the format to limits.formats if you trust the files",
    Reason.TOO_MANY_PIXELS: "raise limits.max_pixels",
    Reason.TRUNCATED: "fetch the files again",
    Reason.DECODE_ERROR: "the files are damaged or no pictures",
    Reason.FILE_MISSING: "paths are read from the folder of the file that names them, then from its images/ folder",
    Reason.NOT_A_FILE: "the paths lead to folders",
    Reason.NO_PERMISSION: "make the files readable",
    Reason.OUTSIDE_CORPUS: "paths and links lead out of the corpus folder; set limits.outside_corpus to true",
    Reason.HTTP_NOT_ALLOWED: "set limits.http to true to fetch them",
    Reason.HTTP_ERROR: "the servers refuse or do not have them",
    Reason.TOO_LARGE: "raise limits.max_picture_bytes",
    Reason.NOT_NUMERIC: "name a column of number lists",
    Reason.NOT_FINITE: "the vectors hold NaN or infinities",
    Reason.WRONG_LENGTH: "vectors or weights differ in length",
    Reason.UNREADABLE_ROW: "the rows of the file do not parse",
    Reason.POISONED: "the rows crash the model",
}


def describe_reasons(counts: Mapping[str, int], examples: Mapping[str, str], most: int = 4) -> str:
    """Reasons with their counts, one example each and what to do, the most frequent first.

    >>> describe_reasons({"poisoned": 3}, {"poisoned": "row r1"})
    'poisoned 3 (row r1; the rows crash the model)'
    """
    parts = []
    for reason in sorted(counts, key=lambda reason: (-counts[reason], reason)):
        more = "; ".join(filter(None, [examples.get(reason, ""), _advice(reason)]))
        parts.append(f"{reason} {counts[reason]:,}" + (f" ({more})" if more else ""))
    return ", ".join(parts[:most]) + (f" and {len(parts) - most} more reasons" if len(parts) > most else "")


def _advice(reason: str) -> str:
    return ADVICE.get(Reason(reason), "") if reason in set(Reason) else ""
