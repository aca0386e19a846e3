"""Pixeltable over the same rows: a table with a primary key and a computed column, which its own PostgreSQL keeps.

A table of Pixeltable is not bound to a file: what a changed file means for it, its user must say. ``whole`` gives it
all rows of the files again (``batch_update``, ``if_not_exists="insert"``). ``difference`` does by hand what makes the
least work: it compares the rows with the table's and inserts, updates and deletes. ``other`` copies vectors into
another table.
"""

from pathlib import Path
from typing import Any

import pixeltable as pxt
from pixeltable.func import Batch

from benchmarks.again_rows import corpus, encode, timed


@pxt.udf(batch_size=64)
def vector(texts: Batch[str]) -> Batch[pxt.Array[(384,), pxt.Float]]:
    return encode(texts)


def first(folder: Path) -> dict[str, Any]:
    """The table made and filled."""

    def work() -> None:
        schema = {"id": pxt.Required[pxt.String], "text": pxt.String}
        table = pxt.create_table("rows", schema, primary_key="id")
        table.add_computed_column(vector=vector(table.text))
        table.insert(_rows(corpus(folder)))

    return timed(work) | {"texts": _texts("rows")}


def whole(folder: Path) -> dict[str, Any]:
    """All rows of the files given to the table again."""
    return _changed(lambda: pxt.get_table("rows").batch_update(_rows(corpus(folder)), if_not_exists="insert"))


def difference(folder: Path) -> dict[str, Any]:
    """What differs from the table's rows found by hand."""

    def work() -> None:
        table, texts = pxt.get_table("rows"), corpus(folder)
        known = _texts("rows")
        new = {key: text for key, text in texts.items() if key not in known}
        edited = {key: text for key, text in texts.items() if key in known and known[key] != text}
        if new:
            table.insert(_rows(new))
        if edited:
            table.batch_update(_rows(edited))
        if gone := sorted(known.keys() - texts.keys()):
            table.delete(table.id.isin(gone))

    return _changed(work)


def other(folder: Path) -> dict[str, Any]:
    """The rows and vectors copied into another table."""
    del folder

    def work() -> None:
        table = pxt.get_table("rows")
        pxt.create_table("other", source=table.select(table.id, table.text, table.vector))

    found = timed(work) | {"texts": _texts("other")}
    pxt.drop_table("other")
    return found


def _changed(work: Any) -> dict[str, Any]:
    """A change measured and taken back, so that the next one begins where this one did."""
    before = _version()
    found = timed(work) | {"texts": _texts("rows")}
    while _version() != before:
        pxt.get_table("rows").revert()
    return found


def _version() -> int:
    return int(pxt.get_table("rows").get_versions(1)[0]["version"])


def _rows(texts: dict[str, str]) -> list[dict[str, str]]:
    return [{"id": key, "text": text} for key, text in texts.items()]


def _texts(name: str) -> dict[str, str]:
    table = pxt.get_table(name)
    return {row["id"]: row["text"] for row in table.select(table.id, table.text).collect()}
