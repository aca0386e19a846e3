"""Reads, validates and prints the job file; each error is one line that begins with the path of the wrong key."""

import difflib
import inspect
import re
import types
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from barycenter.fusion.errors import JobError
from barycenter.infra.job.fields import Section, quote_value
from barycenter.infra.job.models import Job
from barycenter.infra.job.places import NUMBER, RANGE

_NULL_WORDS = ("", "null", "~")
_BOOLEAN_WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NUMBER_PATTERNS: list[tuple[re.Pattern[str], type[int] | type[float]]] = [
    (re.compile(r"[+-]?\d+"), int),
    (re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"), float),
]
_TYPES_IN_WORDS = {
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    **dict.fromkeys(("dict_type", "model_type", "model_attributes_type"), "a section (key: value lines)"),
    **dict.fromkeys(("float_type", "float_parsing"), "a number"),
}


def load_job(path: Path | str, overrides: Sequence[str] = ()) -> Job:
    """Reads a job file.

    Args:
        path: The YAML file.
        overrides: ``key.path=value`` each, which replace values of the file. A value is text where the key holds text,
            else a number, true, false, null, or a YAML list or section.

    Returns:
        The validated job, its relative paths resolved from the file's folder.

    Raises:
        JobError: The file is missing, is not YAML, or has a wrong key or value.
    """
    path = Path(path)
    data = _read_yaml(path)
    for override in overrides:
        _apply_override(data, override)
    return parse_job(data).resolved(path.absolute().parent)


def parse_job(data: Mapping[str, Any]) -> Job:
    """Validates the content of a job file; paths stay as they are.

    Raises:
        JobError: With the first wrong key and its problem; the message names the other wrong keys.
    """
    filled = {key: value for key, value in data.items() if not _is_empty_section(key, value)}
    try:
        return Job.model_validate(filled)
    except ValidationError as error:
        problems = [problem for detail in error.errors() for problem in _key_problems(detail)]
    key, problem = problems[0]
    others = list(dict.fromkeys(other for other, _ in problems[1:] if other != key))
    also = f" (also wrong: {', '.join(others)})" if others else ""
    raise JobError(key, problem + also)


def dump_job(job: Job) -> str:
    """Formats a job as YAML, defaults included."""
    content = job.model_dump(mode="json", by_alias=True)
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


class _UniqueKeyLoader(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen and key_node.tag != "tag:yaml.org,2002:merge":
                raise yaml.constructor.ConstructorError(None, None, f"duplicate key {key!r}", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise JobError("", f"no such job file: {path}; correct the path, or write one with `barycenter init`") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError("", f"cannot read the job file {path}: {reason}") from None
    data = _parse_yaml(text, path.name)
    if data is None:
        raise JobError("", f"the job file {path} is empty; `barycenter init` writes one")
    if not isinstance(data, dict):
        raise JobError("", f"{path.name} must hold key: value lines, not {quote_value(data)}")
    return data


def _parse_yaml(text: str, source: str) -> Any:
    """Parses YAML; errors name ``source``, line and column."""
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
        raise JobError("", f"{where}: {error.problem or 'not YAML'}") from None
    except yaml.YAMLError as error:
        raise JobError("", f"{source}: {' '.join(str(error).split())}") from None


def _apply_override(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise JobError("--set", f"{override!r} is not of the form key.path=value")
    value = _parse_override(tuple(parts), text)
    node = data
    for depth, part in enumerate(parts[:-1], 1):
        if node.get(part) is None:
            node[part] = {}
        if not isinstance(node[part], dict):
            raise JobError(
                path.strip(), f"{'.'.join(parts[:depth])} is {quote_value(node[part])}, which has no keys below it"
            )
        node = node[part]
    node[parts[-1]] = value


def _parse_override(path: tuple[str, ...], text: str) -> Any:
    """Parses a value of ``--set``: as text where the key at ``path`` holds text, else as one YAML value.

    Comments, dates and times of day are not parsed as such.
    """
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    kinds = _types_at(path)
    if not quoted and text not in _NULL_WORDS and str in kinds and not (list in kinds and text.startswith("[")):
        return text
    if not quoted and not text.startswith(("[", "{")):
        for pattern, kind in _NUMBER_PATTERNS:
            if pattern.fullmatch(text):
                return kind(text)
        return None if text in _NULL_WORDS else _BOOLEAN_WORDS.get(text.lower(), text)
    try:
        value = _parse_yaml(text, "--set")
        node = yaml.compose(text, Loader=_UniqueKeyLoader)
    except JobError as error:
        raise JobError(".".join(path), f"the value {text!r} is not YAML ({error.problem})") from None
    if node is not None and text[node.end_mark.index :].strip():
        raise JobError(".".join(path), f"the value {text!r} has text after its end; put all of it in quotes")
    return value


def _types_at(path: tuple[str, ...]) -> set[type]:
    """Returns the Python types that the key at ``path`` accepts, lists as ``list``."""
    section = _model_at(path[:-1]) if len(path) > 1 else Job
    name = section.attributes_by_key().get(path[-1]) if section is not None else None
    found: set[type] = set()
    left: list[Any] = [section.model_fields[name].annotation] if section is not None and name is not None else []
    while left:
        kind = left.pop()
        origin = get_origin(kind)
        if origin is Annotated:
            left.append(get_args(kind)[0])
        elif origin in (Union, types.UnionType):
            left += get_args(kind)
        elif inspect.isclass(origin or kind):
            found.add(origin or kind)
    return found


def _is_empty_section(key: str, value: object) -> bool:
    """Whether a section with defaults has a key in the file but no content."""
    field = Job.model_fields.get(key)
    return value is None and field is not None and isinstance(field.default, BaseModel)


def _key_problems(detail: ErrorDetails) -> Iterator[tuple[str, str]]:
    context = detail.get("ctx", {})
    if detail["type"] == "jobs":
        yield from context["all"]
        return
    loc = _without_tags(detail["loc"])
    if loc and loc[-1] == "[key]":
        yield _dotted_key(loc[:-1]), "keys must be text; put it in quotes"
        return
    key = _dotted_key((*loc, context["key"]) if detail["type"] == "job" and context["key"] else loc)
    yield key, _describe_error(detail)


def _describe_error(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "job":
        return str(context["problem"])
    if kind == "extra_forbidden":
        return _unknown_key_message(_without_tags(detail["loc"]))
    if kind == "missing":
        return "is missing; the job file needs it"
    if kind == "literal_error":
        return _wrong_choice_message(value, context["expected"])
    if kind in ("too_short", "too_long"):
        return f"must be a list of {context.get('min_length', context.get('max_length'))}, not {quote_value(value)}"
    if kind in ("less_than_equal", "greater_than_equal"):
        bound = context.get("le", context.get("ge"))
        return f"must be at {'most' if 'le' in context else 'least'} {bound}, not {quote_value(value)}"
    if kind in _TYPES_IN_WORDS:
        return f"must be {_TYPES_IN_WORDS[kind]}, not {quote_value(value)}"
    return f"{quote_value(value)} does not fit ({detail['msg']})"


def _wrong_choice_message(value: object, expected: str) -> str:
    choices = [choice.strip("' ") for choice in expected.replace(" or ", ", ").split(", ")]
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{quote_value(value)} is not one of {', '.join(choices)}{hint}"


def _unknown_key_message(loc: tuple[int | str, ...]) -> str:
    section = _model_at(loc[:-1])
    name = str(loc[-1])
    known = list(section.attributes_by_key()) if section is not None else []
    for parent in Job.model_fields:
        child = _model_at((parent,))
        if child is not None and name in child.attributes_by_key():
            return f"unknown key; did you mean {parent}.{name}?"
    if near := difflib.get_close_matches(name, known, n=1):
        return f"unknown key; did you mean {near[0]}?"
    nearest = sorted(known, key=lambda key: -difflib.SequenceMatcher(None, name, key).ratio())
    return f"unknown key; nearest is {nearest[0]} (known: {', '.join(known)})"


def _model_at(loc: tuple[int | str, ...]) -> type[Section] | None:
    """Returns the section at a location in the job file; None where there is no section."""
    node: Any = Job
    for part in loc:
        if inspect.isclass(node) and issubclass(node, Section):
            name = node.attributes_by_key().get(str(part))
            node = node.model_fields[name].annotation if name is not None else None
            if get_origin(node) in (Union, types.UnionType):
                choices = [get_args(arg)[0] if get_origin(arg) is Annotated else arg for arg in get_args(node)]
                node = next((arg for arg in choices if inspect.isclass(arg) and issubclass(arg, Section)), None)
        elif get_origin(node) is dict:
            node = get_args(node)[1]
        else:
            return None
    return node if inspect.isclass(node) and issubclass(node, Section) else None


def _without_tags(loc: tuple[int | str, ...]) -> tuple[int | str, ...]:
    return tuple(part for part in loc if part not in (RANGE, NUMBER))


def _dotted_key(loc: tuple[int | str, ...]) -> str:
    """Formats a location in the job file, e.g. ``inputs.image.preprocessing.mean[0]``."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
