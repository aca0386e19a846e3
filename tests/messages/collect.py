"""Every message that can end a command with exit code 1 or 2, as templates found in the source.

A template is the text with ``<placeholders>`` for what is filled in. Words that a message takes from a constant, a
condition or a function of the package are part of it.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product

from tests.messages.placeholders import is_transparent, placeholder
from tests.messages.source import (
    Function,
    Module,
    find_constant,
    find_functions,
    local_values,
    modules,
    parameters,
    results,
)

_ROOT_CLASSES = {"BarycenterError", "UnreadableError", "TargetError"}
"""What ends a command, and two that are turned into it where they are caught, with their own words."""
_PREFIXES = {"UnreadableError": "corpus.path: <file> ", "TargetError": "train.target: "}
"""What those two are preceded by where they are caught."""
_BUILDERS = ("invalid", "encoder_errors", "fail")
"""Functions that make an error of their arguments, or print its line."""
_RUN = "1:"
"""Begins what is put around messages of exit code 1 in the next two; the others are of exit code 2."""
_RESULTS = {
    "barycenter.infra.job.models": dict.fromkeys(("_name_problems", "_column_problems", "_method_problems"), "{}"),
    "barycenter.infra.job.column_names": dict.fromkeys(("column_name_problems", "_case_conflicts"), "{}"),
    "barycenter.infra.job.loader": {"_key_problems": "{}"},
    "barycenter.infra.versions.manifests": {"_why_missing": f"{_RUN}<path>: {{}}"},
    "barycenter.infra.corpus.corpus": {"index_source": "corpus.path: {}"},
    "barycenter.tasks.fuse.folders": dict.fromkeys(
        ("column_problem", "value_problem", "empty_problem", "spelling_problem"), "output.partition_by: {}"
    ),
    "barycenter.tasks.fuse.partitions": {"_problem": "output.partition_by: {}"},
    "barycenter.tasks.fuse.kept_columns": {
        "kept_problem": "corpus.keep: '<name>' is <type>: {}; cast it in the corpus, or leave it out"
    },
}
"""Functions whose results are messages that another place raises, with what it puts around them."""
_VARIABLES = {
    ("barycenter.infra.corpus.corpus", "_unify_types", "conflict"): "<key>: {}",
    (
        "barycenter.tasks.fuse.partitions",
        "check_folders",
        "problem",
    ): f"{_RUN}output.partition_by: {{}}; nothing was committed",
}
"""Variables of functions that hold messages, likewise."""
PYTHON = 0
"""In place of an exit code: raised to callers of the library."""
_MOST_VARIANTS = 4
_DEPTH = 6


@dataclass(frozen=True, order=True)
class Message:
    """One message: its template, the module that raises it, and the exit code that it ends a command with."""

    text: str
    module: str
    code: int


@cache
def collect() -> tuple[Message, ...]:
    """Every message of the package, sorted, each once for a module."""
    classes = _error_classes()
    found = set()
    for module in modules().values():
        for function, call in _calls(module):
            from_python = _name(call) in ("ValueError", "TypeError") and module.name.startswith("barycenter.fusion")
            if _name(call) in classes or _name(call) in _BUILDERS or from_python:
                found |= {Message(text, module.name, _code(call)) for text in _texts(module, function, call)}
        for name, around in _RESULTS.get(module.name, {}).items():
            for function in module.functions[name]:
                texts = filter(has_words, _results(module, function))
                found |= {_around(around, text, module.name) for text in texts}
    for (name, of, variable), around in _VARIABLES.items():
        module = modules()[name]
        for function in module.functions[of]:
            texts = (
                text for value in local_values(function, variable) for text in _Scope(module, function).variants(value)
            )
            found |= {_around(around, text, name) for text in filter(has_words, texts)}
    return tuple(sorted(each for each in found if has_words(each.text)))


def _around(around: str, text: str, module: str) -> Message:
    code = 1 if around.startswith(_RUN) else 2
    return Message(around.removeprefix(_RUN).replace("{}", text), module, code)


def passed_on() -> set[str]:
    """Functions that raise an error without words of their own: its message comes from elsewhere."""
    return {
        f"{module.name.removeprefix('barycenter.')}.{function.name}"
        for module in modules().values()
        for function, call in _calls(module)
        if function is not None and (_name(call) in _error_classes() or _name(call) in _BUILDERS)
        if not any(has_words(text) for text in _texts(module, function, call))
    }


def has_words(text: str) -> bool:
    """Whether a template says anything by itself."""
    return any(word.isalpha() and len(word) > 1 for word in _without_placeholders(text).split())


def _without_placeholders(text: str) -> str:
    parts = text.split("<")
    return parts[0] + "".join(part.partition(">")[2] for part in parts[1:])


@cache
def _error_classes() -> set[str]:
    bases = {name: above for module in modules().values() for name, above in module.bases.items()}
    classes, before = set(_ROOT_CLASSES), 0
    while len(classes) != before:
        before = len(classes)
        classes |= {name for name, above in bases.items() if classes.intersection(above)}
    return classes


def _name(call: ast.Call) -> str:
    """What a call calls: a name, or the last part of a dotted one."""
    return call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "")


def _code(call: ast.Call) -> int:
    if _name(call) in ("ValueError", "TypeError"):
        return PYTHON
    if _name(call) == "fail" and isinstance(call.args[1], ast.Constant):
        return int(str(call.args[1].value))
    return 2 if _name(call) in ("JobError", *_PREFIXES, "invalid", "encoder_errors") else 1


def _calls(module: Module) -> Iterator[tuple[Function | None, ast.Call]]:
    """Every call, with the function that it is in."""

    def walk(node: ast.AST, function: Function | None) -> Iterator[tuple[Function | None, ast.Call]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.Call):
                yield function, child
            yield from walk(child, child if isinstance(child, Function) else function)

    yield from walk(module.tree, None)


def _texts(module: Module, function: Function | None, call: ast.Call) -> Iterator[str]:
    scope, name, args = _Scope(module, function), _name(call), call.args
    if name in ("JobError", "encoder_errors") and len(args) == 2:
        place = "inputs.<input>." if module.name.startswith("barycenter.fusion.encoders") else ""
        end = ": <reason>" if name == "encoder_errors" else ""
        for key, text in product(scope.variants(args[0], words_only=False), scope.variants(args[1])):
            yield f"{place}{key}: {text}{end}" if key else text
    elif name == "invalid":
        key = scope.variants(args[1], words_only=False)[0] if len(args) > 1 else ""
        yield from (f"<section>.{key}: {text}" if key else f"<key>: {text}" for text in scope.variants(args[0]))
    elif args:
        yield from (_PREFIXES.get(name, "") + text for text in scope.variants(args[0]))


def _results(module: Module, function: Function) -> Iterator[str]:
    scope = _Scope(module, function)
    for result in results(function):
        if isinstance(result, ast.Tuple) and len(result.elts) == 2:
            for key, text in product(scope.variants(result.elts[0], words_only=False), scope.variants(result.elts[1])):
                yield f"{key.replace('<dotted key>', '<key>')}: {text}"
        else:
            yield from scope.variants(result)


class _Scope:
    """What expressions of a function may say."""

    def __init__(self, module: Module, function: Function | None, depth: int = _DEPTH) -> None:
        self._module, self._function, self._depth = module, function, depth

    def variants(self, node: ast.expr, *, words_only: bool = True) -> list[str]:
        """The templates of an expression; only a placeholder where none of them has words."""
        found = self._variants(node)
        if (
            words_only
            and not any(has_words(each) for each in found)
            and not isinstance(node, ast.JoinedStr | ast.Constant)
        ):
            return [placeholder(node)]
        return found

    def _variants(self, node: ast.expr) -> list[str]:
        match node:
            case ast.Constant(value=str(text)):
                return [text]
            case ast.JoinedStr(values=values):
                return _joined([self._part(each) for each in values])
            case ast.BinOp(op=ast.Add()):
                return _joined([self.variants(node.left), self.variants(node.right)])
            case ast.IfExp():
                return list(dict.fromkeys([*self._variants(node.body), *self._variants(node.orelse)]))
            case ast.BoolOp():
                return list(dict.fromkeys(text for each in node.values for text in self._variants(each)))
            case ast.Name(id=name):
                return self._named(name) or [placeholder(node)]
            case ast.Call(func=ast.Name(id="counted"), args=[_, ast.Constant()]):
                return [placeholder(node)]
            case ast.Call():
                return self._called(node) or [placeholder(node)]
        return [placeholder(node)]

    def _part(self, node: ast.expr) -> list[str]:
        if not isinstance(node, ast.FormattedValue):
            return self._variants(node)
        if isinstance(number := self._number(node.value), int | float):
            return [f"{number:g}"]
        found = self.variants(node.value, words_only=not isinstance(node.value, ast.IfExp))
        found = [placeholder(node.value)] if len(found) > _MOST_VARIANTS else found
        return [f"'{each}'" if node.conversion == ord("r") else each for each in found]

    def _number(self, node: ast.expr) -> object:
        if isinstance(node, ast.Name) and (constant := find_constant(self._module, node.id)) is not None:
            value = constant[1]
            return value.value if isinstance(value, ast.Constant) and not isinstance(value.value, bool) else None
        return None

    def _named(self, name: str) -> list[str]:
        if not self._depth:
            return []
        if self._function is not None and name in parameters(self._function):
            return []
        if self._function is not None and (values := local_values(self._function, name)):
            inner = _Scope(self._module, self._function, self._depth - 1)
            return list(dict.fromkeys(text for value in values for text in inner.variants(value)))
        if (constant := find_constant(self._module, name)) is not None:
            return _Scope(constant[0], None, self._depth - 1).variants(constant[1])
        return []

    def _called(self, node: ast.Call) -> list[str]:
        own = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") in ("self", "cls")
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr if own else ""
        if not self._depth or is_transparent(name):
            return []
        found = [
            text
            for module, function in find_functions(self._module, name)
            for result in results(function)
            for text in _Scope(module, function, self._depth - 1).variants(result)
        ]
        return list(dict.fromkeys(each for each in found if has_words(each) or not each))


def _joined(parts: list[list[str]]) -> list[str]:
    return list(dict.fromkeys("".join(each) for each in product(*parts)))
