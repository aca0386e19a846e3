"""CocoIndex over a folder of files of rows, into a table of SQLite, in two ways.

``by_file`` is its guide's way: a memoised component a file, the embedding of a text memoised within it. ``by_row``
reads all files in the app's main function and mounts a memoised component a row, named by the row's id. The folder is
a ``ContextKey``, so that its place is no part of what is remembered. State (LMDB) and table lie in one folder.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cocoindex as coco
from cocoindex.connectors import localfs, sqlite
from cocoindex.resources.file import FileLike

from benchmarks.again_rows import encode, parsed, timed

SOURCE = coco.ContextKey[Path]("source")
DATABASE = coco.ContextKey[sqlite.ManagedConnection]("database")
TABLES = ("vectors", "more_vectors")


@coco.fn.as_async(batching=True, runner=coco.GPU, max_batch_size=64)
def encode_batch(texts: list[str]) -> list[bytes]:
    return [vector.astype("float32").tobytes() for vector in encode(texts)]


@coco.fn(memo=True, version=1, logic_tracking="self")
async def embed(text: str) -> bytes:
    return await encode_batch(text)


async def declare(row: dict[str, Any], tables: list[Any]) -> None:
    vector = await embed(row["text"])
    for table in tables:
        table.declare_row(row={"id": row["id"], "text": row["text"], "vector": vector})


@coco.fn(memo=True)
async def one_file(file: FileLike, tables: list[Any]) -> None:
    rows = parsed(file.file_path.path.name, await file.read())
    await coco.map(declare, rows, tables)


@coco.fn(memo=True)
async def one_row(row: dict[str, Any], tables: list[Any]) -> None:
    await declare(row, tables)


async def mounted(count: int) -> list[Any]:
    schema = sqlite.TableSchema(
        {
            "id": sqlite.ColumnDef(type="TEXT", nullable=False),
            "text": sqlite.ColumnDef(type="TEXT"),
            "vector": sqlite.ColumnDef(type="BLOB"),
        },
        primary_key=["id"],
    )
    return [await sqlite.mount_table_target(DATABASE, name, schema) for name in TABLES[:count]]


@coco.fn
async def by_file(tables: int) -> None:
    await coco.mount_each(one_file, localfs.walk_dir(SOURCE).items(), await mounted(tables))


@coco.fn
async def by_row(tables: int) -> None:
    rows = [
        (row["id"], {"id": row["id"], "text": row["text"]})
        async for name, file in localfs.walk_dir(SOURCE).items()
        for row in parsed(name, await file.read())
    ]
    await coco.mount_each(one_row, rows, await mounted(tables))


def update(way: str, folder: Path, state: Path, tables: int, app: str = "again") -> dict[str, Any]:
    """One run of the app, in a process of its own.

    Args:
        way: ``by_file`` or ``by_row``.
        folder: Of the files.
        state: Where state and tables are.
        tables: How many tables are filled with the same rows.
        app: Its name; what is memoised is memoised for one app.

    Returns:
        When it was done, its processor time, and the texts of the last table by id.
    """
    state.mkdir(parents=True, exist_ok=True)

    @coco.lifespan
    def lifespan(builder: coco.EnvironmentBuilder) -> Iterator[None]:
        builder.settings.db_path = state / "lmdb"
        with sqlite.managed_connection(state / f"{app}.sqlite", load_vec=False) as connection:
            builder.provide(SOURCE, folder)
            builder.provide(DATABASE, connection)
            yield

    main = {"by_file": by_file, "by_row": by_row}[way]
    found: dict[str, Any] = timed(lambda: coco.App(coco.AppConfig(name=app), main, tables).update_blocking())
    with sqlite3.connect(state / f"{app}.sqlite") as connection:
        found["texts"] = dict(connection.execute(f"SELECT id, text FROM {TABLES[tables - 1]}"))
    return found
