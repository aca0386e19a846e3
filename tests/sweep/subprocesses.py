"""Runs each of a list by itself in a process that is ended when its time is over: one hang or crash stops no sweep."""

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

T = TypeVar("T")


def run_each(run: Callable[[str], T], names: Iterable[str], *, seconds: float) -> Iterator[tuple[str, T | str]]:
    """The result of each name in order; the cause, a text, where its process gave none.

    Args:
        run: Is called with a name, in a process forked for it; what it returns is pickled.
        names: What to try.
        seconds: After which a process is ended.
    """
    context = multiprocessing.get_context("fork")
    for name in names:
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_send, args=(run, name, theirs), daemon=True)
        process.start()
        theirs.close()
        yield name, _result(ours, seconds)
        process.kill()
        process.join()
        ours.close()


def _send(run: Callable[[str], object], name: str, to: Any) -> None:
    to.send(run(name))


def _result(pipe: Any, seconds: float) -> Any:
    if not pipe.poll(seconds):
        return f"more than {seconds:.0f} seconds"
    try:
        return pipe.recv()
    except EOFError:
        return "its process ended"
