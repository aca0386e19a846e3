"""Prints docs/commands.md, every command with its options: `python -m tests.flows.reference > docs/commands.md`."""

import re
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
| 2 | the job file or an option is wrong |

Every command also takes these:

| option | |
| --- | --- |
"""
_COMMON = ("verbose", "quiet", "log_format", "debug", "help")
_KINDS = {"<str>": "TEXT", "<int>": "N", "<int range>": "N", "<float range>": "NUMBER", "<float>": "NUMBER"}


def reference() -> str:
    """Returns the page."""
    return "".join(_lines(typer.main.get_command(app)))


def _lines(group: Any) -> Iterator[str]:
    root = group.make_context("barycenter", [], resilient_parsing=True)
    commands = {
        name: (command, command.make_context(name, [], parent=root, resilient_parsing=True))
        for name, command in group.commands.items()
    }
    first, context = next(iter(commands.values()))
    common = {each.name: each for each in first.get_params(context)}
    yield _HEAD
    for name in _COMMON:
        option, said, _ = _record(common[name], context)
        yield f"| {option} | {said} |\n"
    yield "\n`barycenter` itself takes these:\n\n| option | |\n| --- | --- |\n"
    for option, said, _ in (_record(each, root) for each in group.get_params(root)):
        yield f"| {option} | {said} |\n"
    for name, (command, context) in commands.items():
        yield from _command(name, command, context)


def _command(name: str, command: Any, context: Any) -> Iterator[str]:
    parameters = [each for each in command.get_params(context) if each.name not in _COMMON]
    arguments = [each for each in parameters if each.param_type_name == "argument"]
    usage = " ".join(["barycenter", name, *(each.metavar for each in arguments)])
    yield f"\n## {name}\n\n`{usage}`\n\n{command.help}\n"
    if parameters:
        yield "\n| | | default |\n| --- | --- | --- |\n"
    for option, said, default in (_record(each, context) for each in parameters):
        yield f"| {option} | {said} | {default} |\n"


def _record(parameter: Any, context: Any) -> tuple[str, str, str]:
    """What to write for a parameter, what it means, and its default."""
    shown, said = parameter.get_help_record(context)
    if parameter.param_type_name == "argument":
        names, value = parameter.metavar, ""
    else:
        names = ", ".join(sorted(parameter.opts, key=len, reverse=True))
        value = shown.split(", ")[-1].partition(" ")[2]
        value = _KINDS.get(value, value.strip("<>"))
    said, _, limits = said.partition("  [")
    default = re.search(r"default: ([^;\]]*)", limits)
    needed = "needed" if "required" in limits else f"`{default[1]}`" if default else ""
    return _code(f"{names} {value}".strip()), _escaped(said), needed


def _code(text: str) -> str:
    """In the type of code; a bar would end the cell of a table, and cannot be escaped in backticks everywhere."""
    return f"<code>{text.replace('|', '&#124;')}</code>" if "|" in text else f"`{text}`"


def _escaped(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    print(reference(), end="")
