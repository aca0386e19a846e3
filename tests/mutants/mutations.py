"""The changes: every place of a file that can be changed, and what it becomes."""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import CodeType
from typing import Any

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_CALCULATED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Div,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_OPPOSITE = {"min": "max", "any": "all", "minimum": "maximum", "argmin": "argmax", "popleft": "pop"}
_OPPOSITE |= {after: before for before, after in _OPPOSITE.items() if after != "pop"}

# Of these a change is speed, strictness towards ourselves or read-only memory, never a result.
_KEYWORDS_LEFT = {
    "strict",
    "check_finite",
    "overwrite_a",
    "frozen",
    "slots",
    "eq",
    "kw_only",
    "order",
    "casting",
    "copy",
    "exc_info",
}
_TYPES = {"Literal", "dict", "list", "tuple", "Callable", "Iterator", "Mapping", "Sequence", "OrderedDict"}
_TINY = 1e-2


@dataclass(frozen=True)
class Mutant:
    """One change of one file.

    Attributes:
        file: Relative to the repository.
        line: Where the changed code stands.
        before: The statement, or the head of the block, as it is.
        after: The same, changed.
        compiled: Makes the code of the changed file.
    """

    file: str
    line: int
    before: str
    after: str
    compiled: Callable[[], CodeType] = field(compare=False)

    @property
    def change(self) -> tuple[str, str, str]:
        """What names it in a list that outlives changes of line numbers."""
        return self.file, self.before, self.after


def mutants_of(root: Path, file: str) -> list[Mutant]:
    """Every change of a file, in order; one that reads as another does is left out."""
    return mutants_of_source((root / file).read_text(), file, str(root / "barycenter" / file))


def mutants_of_source(source: str, file: str, compiled_as: str = "") -> list[Mutant]:
    """Every change of a source text."""
    tree = ast.parse(source)
    found: dict[tuple[int, str, str], Mutant] = {}
    texts: dict[ast.stmt, str] = {}
    for place in _places(tree, tree.body, None):
        nodes = list(place.replacements())
        if not nodes:
            continue
        if place.statement not in texts:
            texts[place.statement] = _text(place.statement)
        before, line = texts[place.statement], getattr(place.node, "lineno", place.statement.lineno)
        for node in nodes:
            with place.holding(node):
                after = _text(node if place.is_statement else place.statement)
            if before != after:
                code = partial(_compiled, tree, place, node, compiled_as or file)
                found.setdefault((line, before, after), Mutant(file, line, before, after, code))
    return list(found.values())


def _compiled(tree: ast.Module, place: "_Place", node: ast.AST, name: str) -> CodeType:
    with place.holding(node):
        return compile(ast.fix_missing_locations(tree), name, "exec")


@dataclass(frozen=True)
class _Place:
    """A node, where it hangs, and the statement that it is part of (itself, if it is one)."""

    node: ast.AST
    parent: ast.AST
    field: str
    index: int | None
    statement: ast.stmt
    droppable: bool = False
    negatable: bool = False

    @property
    def is_statement(self) -> bool:
        return self.node is self.statement

    @contextmanager
    def holding(self, node: ast.AST) -> Iterator[None]:
        """Puts another node here for the length of a block."""
        self._put(node)
        yield
        self._put(self.node)

    def _put(self, node: ast.AST) -> None:
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node

    def replacements(self) -> Iterator[ast.AST]:
        node = self.node
        if self.droppable:
            yield ast.copy_location(ast.Pass(), node)
        if self.negatable and not _negates_itself(node):
            yield ast.copy_location(ast.UnaryOp(ast.Not(), node), node)
        yield from (ast.copy_location(each, node) for each in _changed(node))


def _places(parent: ast.AST, body: list[ast.stmt], assigned: set[str] | None) -> Iterator[_Place]:
    """The places of a block; ``assigned`` are the names that the function has given a value before."""
    name = next(name for name, value in ast.iter_fields(parent) if value is body)
    for index, statement in enumerate(body):
        if _is_left(statement):
            continue
        yield _Place(statement, parent, name, index, statement, droppable=_droppable(statement, assigned))
        yield from _inside(statement, statement)
        inner = assigned
        if isinstance(statement, ast.FunctionDef):
            inner = {node.arg for node in ast.walk(statement.args) if isinstance(node, ast.arg)}
        elif isinstance(statement, ast.ClassDef):
            inner = None
        for block in [statement, *getattr(statement, "handlers", ())]:
            for _, value in ast.iter_fields(block):
                if isinstance(value, list) and value and isinstance(value[0], ast.stmt):
                    yield from _places(block, value, inner)
        if assigned is not None:
            assigned |= _stored(statement)


def _inside(parent: ast.AST, statement: ast.stmt) -> Iterator[_Place]:
    """The expressions of one statement, without the statements inside it."""
    for name, value in ast.iter_fields(parent):
        if name in ("annotation", "returns", "decorator_list", "handlers", "bases"):
            continue
        for index, node in enumerate(value if isinstance(value, list) else [value]):
            if not isinstance(node, ast.AST) or isinstance(node, ast.stmt) or _is_left(node):
                continue
            place = index if isinstance(value, list) else None
            yield _Place(node, parent, name, place, statement, negatable=name in ("test", "ifs"))
            yield from _inside(node, statement)


def _is_left(node: ast.AST) -> bool:
    """Code whose change nobody could call a fault: messages, log lines, types."""
    if isinstance(node, ast.Expr):
        return isinstance(node.value, ast.Constant) or _called(node.value).startswith("log.")
    if isinstance(node, ast.If):
        return _name(node.test) == "TYPE_CHECKING"
    if isinstance(node, ast.Assign):
        return _name(node.targets[0]) == "__all__" or _called(node.value) in ("TypeVar", "logging.getLogger")
    if isinstance(node, ast.keyword):
        return node.arg in _KEYWORDS_LEFT
    if isinstance(node, ast.Call):
        return _called(node).endswith(("Error", "warnings.warn")) or _called(node) == "cast"
    if isinstance(node, ast.Subscript):
        return _name(node.value) in _TYPES
    return isinstance(node, ast.JoinedStr | ast.Import | ast.ImportFrom | ast.Assert | ast.Global)


def _called(node: ast.AST) -> str:
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else ""


def _stored(node: ast.AST) -> set[str]:
    names = (each for each in ast.walk(node) if isinstance(each, ast.Name))
    return {each.id for each in names if isinstance(each.ctx, ast.Store)}


def _droppable(statement: ast.stmt, assigned: set[str] | None) -> bool:
    """Whether what is left would still run: without its only value a name is just undefined."""
    if isinstance(statement, ast.Expr | ast.AugAssign | ast.Raise | ast.Break | ast.Continue | ast.Delete):
        return True
    return isinstance(statement, ast.Assign) and assigned is not None and _stored(statement) <= assigned


def _changed(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare):
        for place, operator in enumerate(node.ops):
            for other in _COMPARED[type(operator)]:
                yield _with(node, ops=[*node.ops[:place], other(), *node.ops[place + 1 :]])
    elif isinstance(node, ast.BinOp | ast.AugAssign) and type(node.op) in _CALCULATED:
        yield _with(node, op=_CALCULATED[type(node.op)]())
    elif isinstance(node, ast.UnaryOp) and not isinstance(node.op, ast.UAdd):
        yield node.operand
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.Return) and node.value is not None and not _is_none(node.value):
        yield _with(node, value=ast.Constant(None))
    elif isinstance(node, ast.Name) and node.id in _OPPOSITE:
        yield _with(node, id=_OPPOSITE[node.id])
    elif isinstance(node, ast.Attribute) and node.attr in _OPPOSITE:
        yield _with(node, attr=_OPPOSITE[node.attr])
    elif isinstance(node, ast.Constant):
        yield from (_with(node, value=value) for value in _other_values(node.value))


def _negates_itself(node: ast.AST) -> bool:
    """Whether one of a node's own changes is its negation."""
    return isinstance(node, ast.UnaryOp) or (isinstance(node, ast.Compare) and len(node.ops) == 1)


def _is_none(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and node.value is None


def _other_values(value: Any) -> Iterator[Any]:
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int):
        yield from (value + 1, value - 1)
    elif isinstance(value, float):
        yield 1.0 if value == 0 else value * 1000 if abs(value) < _TINY else value * 2
    elif isinstance(value, str):
        yield f"x{value}"
    elif isinstance(value, bytes):
        yield b"x" + value


def _with(node: Any, **fields: Any) -> Any:
    other = copy(node)
    for name, value in fields.items():
        setattr(other, name, value)
    return other


def _text(statement: ast.AST) -> str:
    """A statement in one line; of a block its head."""
    shown = copy(statement)
    for name in ("body", "orelse", "finalbody", "handlers", "decorator_list"):
        if isinstance(getattr(shown, name, None), list):
            setattr(shown, name, [ast.Pass()] if name == "body" else [])
    return " ".join(ast.unparse(shown).removesuffix("\n    pass").split())
