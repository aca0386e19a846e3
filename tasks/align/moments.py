"""Fold moments of a run's training rows, gathered by workers; kept, so that only rows that are new are read."""

from collections.abc import Callable, Mapping
from itertools import islice

from barycenter.fusion.moments import FoldMoments
from barycenter.infra.dispatch.api import Work, run_all
from barycenter.infra.ray.cluster import Cluster
from barycenter.tasks.align import blocks as rule
from barycenter.tasks.align.blocks import Block, KeptMoments, OrderedMerge
from barycenter.tasks.align.marks import shard_marks
from barycenter.tasks.align.worker import MomentsWorker, Reduction
from barycenter.tasks.data.duplicates import counted_reader
from barycenter.tasks.observability.progress import StageProgress
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.workers import block_workers


def reduce_rows(run: Run, cluster: Cluster, reduction: Reduction) -> FoldMoments:
    """The moments of all rows, nothing kept.

    Raises:
        RunError: If a block cannot be reduced.
    """
    merged = OrderedMerge()
    blocks = dict(enumerate(map(Block, run.blocks(rule.BLOCK_ROWS))))
    _reduce(run, cluster, reduction, blocks, lambda number, part, _: merged.add(number, part))
    return merged.whole


def stored_moments(run: Run, cluster: Cluster, reduction: Reduction, key: str, progress: StageProgress) -> FoldMoments:
    """As :func:`reduce_rows`, byte for byte, but kept in the storage: a later run reads from the first new row on.

    ``key`` names everything but the rows that the moments depend on. A run that is killed has kept files that are as
    good as any, and the next one goes on from them.
    """
    blocks = run.blocks(rule.BLOCK_ROWS)
    marks = iter(shard_marks(run, reduction.columns(), counted_reader(run).left_out))
    kept = KeptMoments(run.storage, f"alignment/moments/{key}", [list(islice(marks, len(block))) for block in blocks])
    count, first = kept.longest()
    merged = OrderedMerge(count, first, kept.keep)
    unread: dict[int, Block] = {}
    for number in range(count, len(blocks)):
        part = kept.block(number)
        if part is None:
            unread[number] = kept.rest(number, blocks[number])
        else:
            merged.add(number, part)

    def done(number: int, part: FoldMoments, rows: int) -> None:
        merged.add(number, part)
        progress.advance(rows)

    _reduce(run, cluster, reduction, unread, done)
    kept.remove_others(blocks[-1])
    return merged.whole


def _reduce(
    run: Run,
    cluster: Cluster,
    reduction: Reduction,
    blocks: Mapping[int, Block],
    done: Callable[[int, FoldMoments, int], None],
) -> None:
    """Has workers reduce blocks; ``done`` is called with the number, the moments and the rows read of each."""
    if not blocks:
        return
    work = [Work(str(number), block, block.rows) for number, block in blocks.items()]
    workers = block_workers(cluster, run.job.ray, len(blocks))
    executor = cluster.executor(MomentsWorker, (counted_reader(run), reduction), workers, f"{run.job.name}-fit")
    run_all(work, executor, "moments of block", lambda unit, part: done(int(unit.id), part, unit.rows))
