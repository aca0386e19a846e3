"""What the commands of the command line share: the application, its options, and how errors are reported."""

import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal, NoReturn

import typer
from rich.console import Console

from barycenter.fusion.errors import BarycenterError, BusyError, JobError, RunError
from barycenter.infra.userinfo import without_userinfo

app = typer.Typer(
    name="barycenter",
    help="Embed paired text and pictures, align the spaces, average them: one fused vector a row.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
out = Console(markup=False, emoji=False)
"""Prints to stdout; names of files and rows may hold brackets, which are no markup here."""

JobPath = Annotated[Path, typer.Argument(metavar="JOB.yaml", help="The job file.")]
Folder = Annotated[str, typer.Argument(metavar="DIR", help="The output of a run.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one key of the job file.")
]
EndpointUrl = Annotated[str | None, typer.Option(help="S3-compatible server.")]
Busy = Annotated[
    Literal["wait", "skip", "fail"], typer.Option(help="Where another process holds the output: wait, skip or fail.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


@contextmanager
def _terminable() -> Iterator[None]:
    """SIGTERM unwinds the command like SIGINT does: workers and a temporary server end with it, a lease is released."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def report_errors(debug: bool) -> Iterator[None]:
    """Turns errors into one line on stderr and the exit code: 2 for the job file, 1 for a failed run."""
    try:
        with _terminable():
            yield
    except JobError as error:
        fail(str(error), 2, debug)
    except BusyError as error:
        if not error.skip:
            fail(str(error), 1, debug)
        print(f"barycenter: skipped: {error}", file=sys.stderr)
        raise typer.Exit(0) from None
    except RunError as error:
        fail(str(error), 1, debug)
    except KeyboardInterrupt:
        fail("interrupted; run again to go on where this stopped", 1, debug)
    except Exception as error:  # noqa: BLE001  (the command line's last line of defense; --debug shows all)
        if type(error).__module__.partition(".")[0] == "httpx":
            for service in ("EventsWorker", "APILogWorker"):  # what these threads still say while they end
                logging.getLogger(service).setLevel(logging.CRITICAL)
            print(file=sys.stderr)  # their last words lack an end of line
            fail(_prefect_is_gone(error), 1, debug)
        detail = without_userinfo(" ".join(str(error).split()))[:300]
        fail(f"unexpected {type(error).__name__}: {detail}; --debug shows the traceback", 1, debug)


def _prefect_is_gone(error: Exception) -> str:
    """What to tell when the run could not be reported to Prefect, with what ended the run if that came first."""
    first = error.__context__
    while first is not None and not isinstance(first, BarycenterError):
        first = first.__context__
    before = f"{first}; also, " if first is not None else ""
    return f"{before}the Prefect server went away ({type(error).__name__}); what is done stays done: run again"


def fail(line: str, code: int, debug: bool) -> None:
    """Prints one line on stderr and ends with an exit code."""
    if debug:
        raise
    print(f"barycenter: {line}", file=sys.stderr)
    raise typer.Exit(code) from None
