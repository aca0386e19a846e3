"""Prints docs/commands.md, every command with its options: `python -m tests.flows.reference > docs/commands.md`."""

from collections.abc import Iterator
from typing import Any

import typer

from barycenter.flows.cli import app

_HEAD = """# Every command

Made of the commands themselves; `barycenter COMMAND --help` prints the same. `JOB.yaml` is a job file
([every key](job.md)), `DIR` the output of a run, local or a URI.

| exit code | |
| --- | --- |
| 0 | done |
| 1 | the run failed |
| 2 | the job file or an option is wrong; nothing was started |

Every command also takes these:

| option | |
| --- | --- |
"""
_COMMON = ("verbose", "quiet", "log_format", "debug", "help")


def reference() -> str:
    """Returns the page."""
    group: Any = typer.main.get_command(app)
    first = next(iter(group.commands.values()))
    options = {each.name: each for each in [*first.params, *first.get_help_option_names_and_option(first)]}
    return "".join(_lines(group, options))


def _lines(group: Any, common: dict[str, Any]) -> Iterator[str]:
    yield _HEAD
    yield from (_row(common[name], default=False) for name in _COMMON)
    yield "\n`barycenter` itself takes these:\n\n| option | |\n| --- | --- |\n"
    yield from (_row(each, default=False) for each in group.params)
    for name, command in group.commands.items():
        yield from _command(name, command)


def _command(name: str, command: Any) -> Iterator[str]:
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and each.name not in _COMMON]
    usage = " ".join(["barycenter", name, *(_metavar(each) for each in arguments)])
    yield f"\n## `{usage}`\n\n{command.help}\n"
    if arguments or options:
        yield "\n| argument or option | | default |\n| --- | --- | --- |\n"
        yield from (_row(each) for each in [*arguments, *options])


def _row(parameter: Any, default: bool = True) -> str:
    said = (parameter.help or "").replace("|", "\\|").replace("<", "&lt;")
    shown = f"| `{_name(parameter)}` | {said} |"
    return f"{shown} {_default(parameter)} |\n" if default else f"{shown}\n"


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return _metavar(parameter)
    names = ", ".join(sorted(parameter.opts, key=len, reverse=True))
    return names if parameter.is_flag or parameter.count else f"{names} {_metavar(parameter)}"


def _metavar(parameter: Any) -> str:
    ...


def _default(parameter: Any) -> str:
    if parameter.required:
        return "needed"
    return "" if parameter.default in (None, False, [], ()) else f"`{parameter.default}`"


if __name__ == "__main__":
    print(reference(), end="")
