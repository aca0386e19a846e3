"""A proposal as the text of a job file, every choice with its reason; proposals that are not taken as comments."""

from collections.abc import Iterator
from typing import Any

import yaml

from barycenter.tasks.planning.proposal.encoders import BUILT_IN, FROM_THE_HUB
from barycenter.tasks.planning.proposal.proposal import FIRST_COUNTS, Proposal, ProposedInput

_FEW_ROWS = 20_000
_SHOWN = 12


def job_file(proposal: Proposal, schema: str, name: str) -> str:
    """Formats a proposal as YAML.

    A line that begins with ``#key:``, without a space, is a proposal: without the ``#`` the file is valid, too.

    Args:
        proposal: What is proposed.
        schema: Path of the JSON Schema from the job file's folder, for editors.
        name: Of the job file.
    """
    lines = [
        f"# yaml-language-server: $schema={schema}",
        f"# Proposed by `barycenter init` for {one_line(proposal.path)} ({proposal.seen}).",
        f"# `barycenter run {name} --plan` shows what it would do. Lines that begin with #key: are proposals that were",
        "# not taken; remove the # to take one. `barycenter schema` lists every key.",
        "",
        f"name: {_value(proposal.name)}",
        *_corpus(proposal),
        *_inputs(proposal),
        "#alignment: {method: joint}  # auto, the default, tries the linear methods on held-out rows; one is quicker",
        "output:",
        _line("path", proposal.output, "holds all results; not inside the corpus", 1),
        *_train(proposal),
        *_access(proposal),
    ]
    if proposal.rows is not None and proposal.rows <= _FEW_ROWS:
        rows = "1 row is" if proposal.rows == 1 else f"{proposal.rows:,} rows are"
        lines.append(f"#ray: {{address: none}}  # without Ray: {rows} soon done in one process")
    return "\n".join(lines) + "\n"


def _corpus(proposal: Proposal) -> Iterator[str]:
    yield "corpus:"
    yield _line("path", proposal.path, "", 1)
    if proposal.key is not None:
        yield _line("key", proposal.key, proposal.key_why, 1)
    else:
        yield _comment(f"no key: {proposal.key_why}", 1)
        for option in proposal.keys[:1]:
            yield _line("key", option.name, option.why, 1, taken=False)
        if not proposal.keys:
            for option in proposal.repeated[:1]:
                yield _line("key", option.name, f"{option.why}; {FIRST_COUNTS}", 1, taken=False)
    if proposal.keep:
        yield _line("keep", proposal.keep, "columns that the features carry", 1)
    if proposal.others:
        more = len(proposal.others) - _SHOWN
        shown = ", ".join(proposal.others[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
        yield _comment(f"columns that are not used: {shown}", 1)


def _inputs(proposal: Proposal) -> Iterator[str]:
    yield "inputs:"
    kinds = [kind for kind, encoder in BUILT_IN.items() if any(each.encoder == encoder for each in proposal.inputs)]
    if kinds:
        better = ", ".join(f"{FROM_THE_HUB[kind]} ({kind})" for kind in kinds)
        yield _comment(f"pretrained encoders are better, from the hub or as a local folder: {better}", 1)
    for each in proposal.inputs:
        yield from _input(each)


def _input(each: ProposedInput) -> Iterator[str]:
    yield f"  {each.name}:"
    yield _line("kind", each.kind, "", 2)
    yield _line("column", each.columns[0] if len(each.columns) == 1 else list(each.columns), each.why, 2)
    if each.encoder is not None:
        yield _line("encoder", each.encoder, each.encoder_why, 2)
    if each.weights is not None:
        yield _line("weights", each.weights, "", 2)


def _train(proposal: Proposal) -> Iterator[str]:
    if proposal.target is None:
        for option in proposal.targets[:1]:
            yield _line("train", {"target": option.name}, option.why, 0, taken=False)
        return
    yield "train:"
    yield _line("target", proposal.target, proposal.why(proposal.targets, proposal.target), 1)
    others = [option.name for option in proposal.targets if option.name != proposal.target]
    if others:
        yield _comment(f"could be the target, too: {', '.join(others)}", 1)
    if proposal.split is not None:
        taken = proposal.split_scores and proposal.split.name != proposal.target
        yield _line("split", proposal.split.name, f"holds {proposal.split.why}", 1, taken=taken)
    groups = [group for group in proposal.groups if group.name != proposal.target]
    for group in groups[:1]:
        yield _line("group_by", group.name, f"{group.why}; equal values never cross a split", 1, taken=False)
    if len(groups) > 1:
        yield _comment(f"could be group_by, too: {', '.join(group.name for group in groups[1:])}", 1)


def _access(proposal: Proposal) -> Iterator[str]:
    if proposal.limits:
        yield "limits:"
        for key, why in proposal.limits.items():
            yield _line(key, True, why, 1)
    if proposal.endpoint_url is not None:
        yield "storage:"
        yield _line("endpoint_url", proposal.endpoint_url, "credentials come from the environment", 1)


def _line(key: str, value: Any, why: str, depth: int, *, taken: bool = True) -> str:
    line = f"{'  ' * depth}{'' if taken else '#'}{key}: {_value(value)}"
    return f"{line}  # {one_line(why)}" if why else line


def _comment(text: str, depth: int) -> str:
    return f"{'  ' * depth}# {one_line(text)}"


def _value(value: Any) -> str:
    """A value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=float("inf"))
    return text.removesuffix("\n").removesuffix("\n...")


def one_line(text: str) -> str:
    """Text that a comment can hold: one line of printable characters that are valid UTF-8."""
    valid = text.encode("utf-8", "replace").decode()
    return " ".join("".join(letter if letter.isprintable() else " " for letter in valid).split())
