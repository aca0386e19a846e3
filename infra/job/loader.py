"""Reading and printing the job file; every mistake in it is one line that begins with the key's path."""

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
from barycenter.infra.job.fields import show
from barycenter.infra.job.models import Job

_NULLS = ("", "null", "~")
_FLAGS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_SCALARS: list[tuple[re.Pattern[str], type[int] | type[float]]] = [
    (re.compile(r"[+-]?\d+"), int),
    (re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"), float),
]
_KINDS = {
    "string_type": "text",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a section (key: value lines)",
    "model_type": "a section (key: value lines)",
    "model_attributes_type": "a section (key: value lines)",
    "float_type": "a number",
    "float_parsing": "a number",
}


def load_job(path: Path | str, overrides: Sequence[str] = ()) -> Job:
    """Reads a job file.

    Args:
        path: The YAML file.
        overrides: ``key.path=value`` each; they win over the file. The value is text where the key holds text, else
            a number, true, false, null, or a YAML list or section.

    Returns:
        The validated job, its relative paths resolved from the file's folder.

    Raises:
        JobError: The file is missing, is no YAML, or holds something wrong; one line.
    """
    path = Path(path)
    data = _read_yaml(path)
    for override in overrides:
        _override(data, override)
    return parse_job(data).resolved(path.absolute().parent)


def parse_job(data: Mapping[str, Any]) -> Job:
    """Validates job file contents; paths stay as they are.

    Raises:
        JobError: Names the first wrong key, and the keys of the other mistakes.
    """
    filled = {key: value for key, value in data.items() if not _is_empty_section(key, value)}
    try:
        return Job.model_validate(filled)
    except ValidationError as error:
        problems = [problem for detail in error.errors() for problem in _problems(detail)]
    key, problem = problems[0]
    others = list(dict.fromkeys(other for other, _ in problems[1:] if other != key))
    also = f" (also wrong: {', '.join(others)})" if others else ""
    raise JobError(key, problem + also)


def dump_job(job: Job) -> str:
    """The job as YAML with every default spelled out."""
    return yaml.safe_dump(
        job.model_dump(mode="json", by_alias=True),
        sort_keys=False,
        allow_unicode=True,
        default_flow_style=None,
        width=120,
    )


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice."""

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
        raise JobError("", f"no such job file: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise JobError("", f"cannot read the job file {path}: {reason}") from None
    data = _parse_yaml(text, path.name)
    if data is None:
        raise JobError("", f"the job file {path} is empty")
    if not isinstance(data, dict):
        raise JobError("", f"{path.name} must hold key: value lines, not {show(data)}")
    return data


def _parse_yaml(text: str, source: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{source}, line {mark.line + 1}, column {mark.column + 1}" if mark else source
        raise JobError("", f"{where}: {error.problem or 'not YAML'}") from None
    except yaml.YAMLError as error:
        raise JobError("", f"{source}: {' '.join(str(error).split())}") from None


def _override(data: dict[str, Any], override: str) -> None:
    path, equals, text = override.partition("=")
    parts = path.strip().split(".")
    if not equals or not all(parts):
        raise JobError("--set", f"{override!r} is not of the form key.path=value")
    value = _value(tuple(parts), text)
    node = data
    for depth, part in enumerate(parts[:-1], 1):
        if node.get(part) is None:
            node[part] = {}
        if not isinstance(node[part], dict):
            raise JobError(path.strip(), f"{'.'.join(parts[:depth])} is {show(node[part])}, which has no keys below it")
        node = node[part]
    node[parts[-1]] = value


def _value(path: tuple[str, ...], text: str) -> Any:
    """What a value on the command line means: text as it is where the key holds text, else one YAML value.

    A command line has no comments, and no dates or times of day.
    """
    text = text.strip()
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
    kinds = _kinds_at(path)
    if not quoted and text not in _NULLS and str in kinds and not (list in kinds and text.startswith("[")):
        return text
    if not quoted and not text.startswith(("[", "{")):
        for pattern, kind in _SCALARS:
            if pattern.fullmatch(text):
                return kind(text)
        return None if text in _NULLS else _FLAGS.get(text.lower(), text)
    try:
        value = _parse_yaml(text, "--set")
        node = yaml.compose(text, Loader=_Loader)
    except JobError as error:
        raise JobError(".".join(path), f"the value {text!r} is not YAML ({error.problem})") from None
    if node is not None and text[node.end_mark.index :].strip():
        raise JobError(".".join(path), f"the value {text!r} goes on after its end; put all of it in quotes")
    return value


def _kinds_at(path: tuple[str, ...]) -> set[type]:
    """The plain types that a key may hold, lists as ``list``."""
    section = _model_at(path[:-1]) if len(path) > 1 else Job
    field = next(
        (field for name, field in section.model_fields.items() if (field.alias or name) == path[-1]), None
    ) if section is not None else None  # fmt: skip
    found: set[type] = set()
    left: list[Any] = [field.annotation] if field is not None else []
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
    field = Job.model_fields.get(key)
    return value is None and field is not None and isinstance(field.default, BaseModel)


def _problems(detail: ErrorDetails) -> Iterator[tuple[str, str]]:
    context = detail.get("ctx", {})
    if detail["type"] == "jobs":
        yield from context["all"]
        return
    loc = detail["loc"]
    if loc and loc[-1] == "[key]":
        yield _dotted(loc[:-1]), "keys must be text; put it in quotes"
        return
    key = _dotted((*loc, context["key"]) if detail["type"] == "job" and context["key"] else loc)
    yield key, _words(detail)


def _words(detail: ErrorDetails) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "job":
        return str(context["problem"])
    if kind == "extra_forbidden":
        return _unknown(detail["loc"])
    if kind == "missing":
        return "is missing; the job file needs it"
    if kind == "literal_error":
        return _not_one_of(value, context["expected"])
    if kind in ("too_short", "too_long"):
        return f"must be a list of {context.get('min_length', context.get('max_length'))}, not {show(value)}"
    if kind in ("less_than_equal", "greater_than_equal"):
        bound = context.get("le", context.get("ge"))
        return f"must be at {'most' if 'le' in context else 'least'} {bound}, not {show(value)}"
    if kind in _KINDS:
        return f"must be {_KINDS[kind]}, not {show(value)}"
    return f"{show(value)} does not fit ({detail['msg']})"


def _not_one_of(value: object, expected: str) -> str:
    choices = [choice.strip("' ") for choice in expected.replace(" or ", ", ").split(", ")]
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"{show(value)} is not one of {', '.join(choices)}{hint}"


def _unknown(loc: tuple[int | str, ...]) -> str:
    section = _model_at(loc[:-1])
    name = str(loc[-1])
    known = list(_keys(section)) if section is not None else []
    for parent in Job.model_fields:
        child = _model_at((parent,))
        if child is not None and name in _keys(child):
            return f"unknown key; did you mean {parent}.{name}?"
    if near := difflib.get_close_matches(name, known, n=1):
        return f"unknown key; did you mean {near[0]}?"
    nearest = sorted(known, key=lambda key: -difflib.SequenceMatcher(None, name, key).ratio())
    return f"unknown key; nearest is {nearest[0]} (known: {', '.join(known)})"


def _keys(model: type[BaseModel]) -> Iterator[str]:
    return (field.alias or name for name, field in model.model_fields.items())


def _model_at(loc: tuple[int | str, ...]) -> type[BaseModel] | None:
    node: Any = Job
    for part in loc:
        if inspect.isclass(node) and issubclass(node, BaseModel):
            node = next(
                (field.annotation for name, field in node.model_fields.items() if (field.alias or name) == part), None
            )
            if get_origin(node) in (Union, types.UnionType):
                node = next(
                    (arg for arg in get_args(node) if inspect.isclass(arg) and issubclass(arg, BaseModel)), None
                )
        elif get_origin(node) is dict:
            node = get_args(node)[1]
        else:
            return None
    return node if inspect.isclass(node) and issubclass(node, BaseModel) else None


def _dotted(loc: tuple[int | str, ...]) -> str:
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
