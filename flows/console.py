"""What the commands of the command line share: the application, its options, and how errors are reported."""

import inspect
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from importlib.metadata import version
from pathlib import Path
from traceback import walk_tb
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn, TypeVar

import typer
from rich.console import Console

from barycenter.fusion.errors import BarycenterError, BusyError, JobError, RunError
from barycenter.infra.logs import LogFormat, say_last, shown_logs
from barycenter.infra.userinfo import without_userinfo

F = TypeVar("F", bound=Callable[..., Any])

_CLIENT = "prefect.client."


class _App(typer.Typer):
    """An application whose every command has the options that say how much of a run is shown, and how."""

    def command(self, *args: Any, **kwargs: Any) -> Callable[[F], F]:
        """As Typer's."""
        register = super().command(*args, **kwargs)

        def decorate(function: F) -> F:
            register(_with_log_options(function))
            return function

        return decorate


def _with_log_options(function: Callable[..., Any]) -> Callable[..., Any]:
    options = {
        "verbose": (0, Annotated[int, typer.Option("--verbose", "-v", count=True, help="Show log lines; -vv: all.")]),
        "quiet": (0, Annotated[int, typer.Option("--quiet", "-q", count=True, help="Warnings only; -qq: errors.")]),
        "log_format": (None, Annotated[LogFormat | None, typer.Option(help="How stderr is written; default text.")]),
    }

    @wraps(function)
    def run(*args: Any, verbose: int, quiet: int, log_format: LogFormat | None, **kwargs: Any) -> Any:
        with shown_logs(log_format, verbose - quiet):
            return function(*args, **kwargs)

    given = inspect.signature(function)
    keyword = inspect.Parameter.KEYWORD_ONLY
    further = [
        inspect.Parameter(name, keyword, default=default, annotation=kind) for name, (default, kind) in options.items()
    ]
    run.__signature__ = given.replace(parameters=[*given.parameters.values(), *further])  # type: ignore[attr-defined]
    return run


app = _App(
    name="barycenter",
    help="Embed paired text and pictures, align the spaces, average them: one fused vector a row.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
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


def _show_version(asked: bool) -> None:
    if asked:
        print(f"barycenter {version('barycenter')}")
        raise typer.Exit


@app.callback()
def _common(
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


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
        say_last(f"skipped: {error}")
        raise typer.Exit(0) from None
    except RunError as error:
        fail(str(error), 1, debug)
    except KeyboardInterrupt:
        fail("interrupted; run again to go on where this stopped", 1, debug)
    except (typer.Abort, typer.Exit):
        raise
    except Exception as error:  # noqa: BLE001  (the command line's last line of defense; --debug shows all)
        if _is_prefects(error):
            fail(_prefect_is_gone(error), 1, debug)
        detail = without_userinfo(" ".join(str(error).split()))[:300]
        fail(f"unexpected {type(error).__name__}: {detail}; --debug shows the traceback", 1, debug)


def _is_prefects(error: Exception) -> bool:
    """Whether a request of Prefect's client failed; the model hub's, say, fail in the same ways."""
    frames = walk_tb(error.__traceback__)
    through = (frame.f_globals.get("__name__", "") for frame, _ in frames)
    return type(error).__module__.partition(".")[0] == "httpx" and any(name.startswith(_CLIENT) for name in through)


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
    say_last(line)
    raise typer.Exit(code) from None
