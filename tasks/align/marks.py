"""What the moments of each shard depend on, known without reading a vector."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from barycenter.infra.corpus import Shard
from barycenter.infra.versions.embedding_files import embedding_path, repairs
from barycenter.tasks.data.embeddings import read_note
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.digest import digest
from barycenter.tasks.run.identities import embedding_ids

_READERS = 16


def shard_marks(
    run: Run,
    columns: Sequence[str] = (),
    left_out: Mapping[str, Sequence[int]] | None = None,
    shards: Sequence[Shard] | None = None,
) -> list[str]:
    """A mark for each shard, in order: shards of equal marks have equal moments, whichever files their rows are in.

    It is made of what the footers of the shard's embedding files say: digests of vectors and keys, and of the values
    that decide labels, sides and groups; and of the rows that are left out. A file that does not say it (it was written
    for a job with other columns, or by an older version) is known by the shard and by what it was repaired to.

    Args:
        run: The run.
        columns: The columns that labels come from; those of sides and groups are known.
        left_out: Rows that the moments are without, by shard id.
        shards: Shards of the run; by default all.
    """
    train = run.job.train
    sides = [column for column in (train and train.split, train and train.group_by) if column]
    wanted = list(dict.fromkeys([*columns, *sides]))
    ids, repaired = embedding_ids(run).items(), repairs(run.storage)

    def mark(shard: Shard) -> str:
        paths = [embedding_path(name, embedding_id, shard.id) for name, embedding_id in ids]
        notes = [read_note(run.storage, path) for path in paths]
        rows = [note.get("rows") for note in notes]
        values = [notes[0].get("columns", {}).get(column) for column in wanted]
        out = list((left_out or {}).get(shard.id, ()))
        if None in rows or None in values:
            return digest(shard.id, rows, [repaired.get(path) for path in paths], out)
        return digest(shard.rows, rows, values, out)

    with ThreadPoolExecutor(_READERS) as pool:
        return list(pool.map(mark, run.shards if shards is None else shards))
