"""All inputs of a run embedded side by side: each by workers of its own, in shares of the cluster."""

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from typing import Any

from barycenter.infra.dispatch.shares import Shares, StoppedError
from barycenter.infra.ray.cluster import Cluster
from barycenter.tasks.embed.settings import device_of
from barycenter.tasks.embed.stage import input_workers, pending_shards
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.identities import encoding_id

Figures = dict[str, Any]

_LOOK_SECONDS = 0.5


def side_by_side(run: Run, cluster: Cluster, embed: Callable[..., Figures]) -> Figures:
    """Embeds every input; as many at once as the cluster has room for workers.

    Args:
        run: The run.
        cluster: Where the workers run; in the calling process inputs follow one another.
        embed: :func:`barycenter.tasks.embed.stage.embed_input`, or a Prefect task of it.

    Returns:
        Figures of each input, under ``embed <input>``, in the order of the job file.

    Raises:
        RunError: An input's; the others are ended.
        JobError: Likewise.
    """
    waiting = [name for name in run.inputs if pending_shards(run, name)]
    at_once = _at_once(run, cluster, waiting)
    if at_once < 2:
        return {f"embed {name}": embed(run, name, cluster) for name in run.inputs}
    done = {name: embed(run, name, cluster) for name in run.inputs if name not in waiting}
    alike: dict[str, list[str]] = {}
    for name in waiting:
        alike.setdefault(encoding_id(run, name), []).append(name)
    done |= _in_threads(list(alike.values()), at_once, lambda name, share: embed(run, name, cluster, share, at_once))
    return {f"embed {name}": done[name] for name in run.inputs}


def _at_once(run: Run, cluster: Cluster, waiting: Sequence[str]) -> int:
    """How many inputs can have a worker at the same time."""
    if not cluster.many_workers or len(waiting) < 2:
        return 1
    room: Counter[str] = Counter()
    inputs: Counter[str] = Counter()
    for name in waiting:
        workers = input_workers(run, name, cluster, None, len(waiting))
        device = device_of(workers)
        inputs[device] += 1
        room[device] = max(room[device], workers.workers)
    return sum(min(room[device], count) for device, count in inputs.items())


def _in_threads(groups: Sequence[Sequence[str]], at_once: int, embed: Callable[..., Figures]) -> Figures:
    """Each group in a thread: those of one encoder follow one another, for the later take over the earlier's rows."""
    shares = Shares(group[0] for group in groups[:at_once])
    futures: list[Future[Figures]] = []

    def run_group(names: Sequence[str]) -> Figures:
        return {name: run_one(name) for name in names}

    def run_one(name: str) -> Figures:
        share = shares.of(name)
        try:
            return embed(name, share)
        except BaseException:
            shares.stop()
            raise
        finally:
            share.end()

    with ThreadPoolExecutor(at_once, thread_name_prefix="embed") as pool:
        try:
            futures = [pool.submit(copy_context().run, run_group, names) for names in groups]
            while wait(futures, _LOOK_SECONDS, FIRST_EXCEPTION).not_done:
                if any(future.done() and future.exception() for future in futures):
                    break
        finally:
            shares.stop()
            for future in futures:
                future.cancel()
    failed = [error for each in futures if not each.cancelled() and (error := each.exception()) is not None]
    for error in sorted(failed, key=lambda error: isinstance(error, StoppedError)):
        raise error
    return {name: figures for future in futures for name, figures in future.result().items()}
