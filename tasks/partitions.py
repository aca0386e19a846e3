"""How many folders the partition columns make, told from a sample before anything is written."""

from fusion.errors import JobError
from tasks.rows import sample_shards
from tasks.run import Run
from tasks.writers import MAX_PARTITIONS, too_many_partitions

_SAMPLE_ROWS = 100_000


def count_partitions(run: Run) -> int:
    """Different values of the partition columns among evenly spaced rows; 1 without partition columns. Read once.

    Raises:
        JobError: They are more than may become folders.
    """
    names = tuple(run.job.output.partition_by)
    if not names:
        return 1
    if run.partitions is not None:
        return run.partitions
    found: set[tuple[object, ...]] = set()
    for shard in sample_shards(run.shards, _SAMPLE_ROWS):
        table = run.corpus.read(shard, names)
        found.update(zip(*(table.column(name).to_pylist() for name in names), strict=True))
        if len(found) > MAX_PARTITIONS:
            key, _, problem = too_many_partitions(names, len(found)).partition(": ")
            raise JobError(key, problem)
    run.partitions = max(1, len(found))
    return run.partitions
