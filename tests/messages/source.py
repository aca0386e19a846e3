"""The source as parsed modules: where a name comes from, and what a function assigns, returns or yields."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("flows", "tasks", "infra", "fusion")

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Module:
    """One file of the package: its functions, constants, imports and classes with their bases, by name."""

    name: str
    tree: ast.Module
    functions: dict[str, list[Function]] = field(default_factory=dict)
    constants: dict[str, ast.expr] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    bases: dict[str, list[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                self.functions.setdefault(node.name, []).append(node)
            elif isinstance(node, ast.ClassDef):
                self.bases[node.name] = [getattr(base, "id", "") for base in node.bases]
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                self.imports |= {each.asname or each.name: (node.module, each.name) for each in node.names}
        for node in self.tree.body:
            self.constants |= dict(assignments(node))


@cache
def modules() -> dict[str, Module]:
    """Every module of the package by its name."""
    found = {}
    for part in PARTS:
        for path in sorted((ROOT / part).rglob("*.py")):
            dotted = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            name = f"barycenter.{dotted}"
            found[name] = Module(name, ast.parse(path.read_text(encoding="utf-8")))
    return found


def find_functions(module: Module, name: str) -> list[tuple[Module, Function]]:
    """The functions that a name in a module may mean: its own, else the one that it imports."""
    if name in module.functions:
        return [(module, each) for each in module.functions[name]]
    origin, original = module.imports.get(name, ("", ""))
    return find_functions(modules()[origin], original) if origin in modules() else []


def find_constant(module: Module, name: str) -> tuple[Module, ast.expr] | None:
    """The value of a constant of a module, or of the one that it imports."""
    if name in module.constants:
        return module, module.constants[name]
    origin, original = module.imports.get(name, ("", ""))
    return find_constant(modules()[origin], original) if origin in modules() else None


def assignments(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names and values of an assignment; of tuples of names each with its own."""
    if isinstance(node, ast.AnnAssign | ast.NamedExpr) and isinstance(node.target, ast.Name) and node.value:
        yield node.target.id, node.value
    if not isinstance(node, ast.Assign):
        return
    for target in node.targets:
        if isinstance(target, ast.Name):
            yield target.id, node.value
        elif isinstance(target, ast.Tuple):
            for position, name in enumerate(target.elts):
                if isinstance(name, ast.Name):
                    yield from ((name.id, each) for each in _elements(node.value, position))


def _elements(value: ast.expr, position: int) -> Iterator[ast.expr]:
    """What an element of a tuple may be, also of a choice between two tuples."""
    if isinstance(value, ast.Tuple) and position < len(value.elts):
        yield value.elts[position]
    elif isinstance(value, ast.IfExp):
        yield from _elements(value.body, position)
        yield from _elements(value.orelse, position)


@cache
def parameters(function: Function) -> set[str]:
    """Names of a function's parameters, whose values come from its callers."""
    given = function.args
    return {each.arg for each in [*given.posonlyargs, *given.args, *given.kwonlyargs]}


def local_values(function: Function, name: str) -> list[ast.expr]:
    """Everything that a function assigns to a name."""
    return _assigned(function).get(name, [])


@cache
def _assigned(function: Function) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in ast.walk(function):
        for name, value in assignments(node):
            found.setdefault(name, []).append(value)
    return found


@cache
def results(function: Function) -> list[ast.expr]:
    """What a function returns or yields."""
    found = [node.value for node in ast.walk(function) if isinstance(node, ast.Return | ast.Yield) and node.value]
    return [each for each in found if not (isinstance(each, ast.Constant) and each.value is None)]
