"""Commands on job files: propose one for a corpus, print their schema."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from barycenter.flows.console import Debug, EndpointUrl, app, out, report_errors
from barycenter.fusion.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from barycenter.tasks.planning.proposal.proposal import Proposal

_SCHEMA_FILE = "barycenter.schema.json"
_NONE = "none"


@app.command()
def init(
    path: Annotated[str, typer.Argument(metavar="PATH", help="The corpus: file, folder, glob (in quotes) or URI.")],
    out_path: Annotated[
        Path, typer.Option("--out", metavar="JOB.yaml", help="The job file; one that is there is left alone.")
    ] = Path("barycenter.yaml"),
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing; take what is proposed.")] = False,
    endpoint_url: EndpointUrl = None,
    debug: Debug = False,
) -> None:
    """Look at a corpus and write a commented job file that runs."""
    with report_errors(debug):
        _check_absent(out_path)
        from barycenter.tasks.planning.proposal.job_file import job_file
        from barycenter.tasks.planning.proposal.proposal import propose

        proposal = propose(path, out_path, endpoint_url)
        for note in proposal.notes:
            print(note, file=sys.stderr, flush=True)
        if not yes and _is_terminal():
            proposal = _asked(proposal)
        _create(out_path, job_file(proposal, _SCHEMA_FILE, out_path.name))
        schema_path = out_path.with_name(_SCHEMA_FILE)
        if not schema_path.exists():
            _create(schema_path, _schema())
        for line in [*_choices(proposal), f"job file  {out_path}", f"next      barycenter run {out_path} --plan"]:
            out.print(line, markup=False, highlight=False, soft_wrap=True)


@app.command()
def schema(debug: Debug = False) -> None:
    """The JSON Schema of a job file, for editors; docs/job.schema.json is this."""
    with report_errors(debug):
        print(_schema(), end="")


def _schema() -> str:
    from barycenter.infra.job.json_schema import job_schema

    return json.dumps(job_schema(), indent=2) + "\n"


def _is_terminal() -> bool:
    return sys.stdin.isatty() and sys.stderr.isatty()


def _check_absent(path: Path) -> None:
    if path.exists() or path.is_symlink():
        raise JobError("--out", f"{path} is there already and is left alone; name another file")


def _create(path: Path, text: str) -> None:
    """Writes a file that is not there yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        _check_absent(path)
        raise
    except OSError as error:
        raise JobError("--out", f"{path} cannot be written: {error.strerror or error}") from error


def _asked(proposal: "Proposal") -> "Proposal":
    """The proposal after the questions that have more than one answer; an empty answer takes what is proposed."""
    if len(proposal.inputs) > 1:
        names = [each.name for each in proposal.inputs]
        _show(f"{each.name}: {each.kind}, {', '.join(each.columns)}: {each.why}" for each in proposal.inputs)
        proposal = proposal.with_inputs(_ask_several("inputs", names))
    keys = [*proposal.keys, *proposal.repeated]
    if keys:
        _show(f"{option.name}: {option.why}" for option in keys)
        proposal = proposal.with_key(_ask_key([option.name for option in keys], proposal.key))
    return proposal.with_target(_ask_target(proposal))


def _show(lines: "Iterable[str]") -> None:
    """What there is to choose from, before the question."""
    from barycenter.tasks.planning.proposal.job_file import one_line

    for line in lines:
        print(f"  {one_line(line)}", file=sys.stderr)


def _ask_key(names: list[str], proposed: str | None) -> str | None:
    """One of the names or none."""
    choices = [*names, _NONE]
    answer = _ask(f"key column ({', '.join(choices)})", proposed or _NONE, lambda text: _unknown([text], choices))
    return None if answer == _NONE else answer


def _ask_target(proposal: "Proposal") -> str | None:
    """Any column that a head can learn, whether or not it is proposed, or none."""
    proposed = [option.name for option in proposal.targets if proposal.target_problem(option.name) is None]
    _show(f"{name}: {proposal.why(proposal.targets, name)}" for name in proposed)
    default = proposal.target if proposal.target in proposed else None

    def problem(text: str) -> str | None:
        return None if text == _NONE else proposal.target_problem(text)

    question = f"column to predict ({', '.join([*proposed, _NONE])}, or any other column)"
    answer = _ask(question, default or _NONE, problem)
    return None if answer == _NONE else answer


def _ask_several(what: str, names: list[str]) -> list[str]:
    """Some of the names."""
    question = f"{what}, separated by commas (of {', '.join(names)})"
    return _parts(_ask(question, ", ".join(names), lambda text: _unknown(_parts(text), names)))


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _unknown(answers: list[str], names: list[str]) -> str | None:
    strange = [answer for answer in answers if answer not in names]
    return None if answers and not strange else f"{', '.join(strange) or 'that'} is none of these: {', '.join(names)}"


def _ask(question: str, proposed: str, problem: "Callable[[str], str | None]") -> str:
    """Asks on stderr until nothing is wrong with the answer."""
    while True:
        answer: str = typer.prompt(question, default=proposed, err=True)
        if (wrong := problem(answer.strip())) is None:
            return answer.strip()
        print(wrong, file=sys.stderr)


def _choices(proposal: "Proposal") -> "Iterator[str]":
    """Each choice on a line, with its reason."""
    from barycenter.tasks.planning.proposal.job_file import one_line

    yield f"corpus    {one_line(proposal.path)}: {proposal.seen}"
    yield f"key       {one_line(proposal.key or _NONE)}: {one_line(proposal.key_why)}"
    for each in proposal.inputs:
        encoder = f"; {each.encoder}: {each.encoder_why}" if each.encoder is not None else ""
        yield f"input     {each.name}: {each.kind}, {one_line(', '.join(each.columns))}: {each.why}{encoder}"
    if proposal.target is not None:
        yield f"target    {one_line(proposal.target)}: {proposal.why(proposal.targets, proposal.target)}"
