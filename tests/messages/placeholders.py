"""Names for what only a run knows: ``<path>`` of ``self._storage.uri(name)``."""

import ast

_WORDS = {"uri": "path", "len": "number", "sum": "number", "strerror": "reason", "exc": "error"}
_OF_THEIR_ARGUMENT = {
    *("str", "repr", "sorted", "list", "set", "float", "int", "min", "max", "next", "iter", "type"),
    *("quote_value", "first_line", "_first_line", "without_userinfo"),
}
_OF_THEIR_OBJECT = {"format", "strip", "rstrip", "removeprefix", "get", "keys"}


def is_transparent(function: str) -> bool:
    """Whether a call of a function is named by its argument."""
    return function in _OF_THEIR_ARGUMENT


def placeholder(node: ast.expr) -> str:
    """What is put for the value of an expression.

    >>> placeholder(ast.parse("', '.join(map(repr, self.known_names))", mode="eval").body)
    '<known names>'
    >>> placeholder(ast.parse("counted(len(files), 'file')", mode="eval").body)
    '<number> files'
    """
    match node:
        case ast.Call(func=ast.Name(id="counted"), args=[_, ast.Constant(value=what)]):
            return f"<number> {what}s"
    return f"<{_noun(node)}>"


def _noun(node: ast.expr) -> str:
    if isinstance(node, ast.Call):
        return _noun_of_call(node)
    if isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        return node.slice.value.replace("_", " ")
    if isinstance(node, ast.Attribute) and node.attr != "__name__":
        return _in_words(node.attr)
    if isinstance(node, ast.Name):
        return _in_words(node.id)
    if isinstance(node, ast.Constant):
        return str(node.value)
    inner = _first_part(node)
    return "value" if inner is None else _noun(inner)


def _noun_of_call(node: ast.Call) -> str:
    if isinstance(node.func, ast.Attribute):
        if node.func.attr == "join" and node.args:
            return _noun(node.args[0])
        return _noun(node.func.value) if node.func.attr in _OF_THEIR_OBJECT else _in_words(node.func.attr)
    name = getattr(node.func, "id", "")
    if name == "map":
        return _noun(node.args[1])
    return _noun(node.args[0]) if name in _OF_THEIR_ARGUMENT and node.args else _noun(node.func)


def _first_part(node: ast.expr) -> ast.expr | None:
    """The part of an expression that it is named by."""
    match node:
        case ast.Attribute(value=part) | ast.Subscript(value=part) | ast.Starred(value=part):
            return part
        case ast.FormattedValue(value=part) | ast.BinOp(left=part) | ast.IfExp(body=part):
            return part
        case ast.BoolOp(values=[part, *_]) | ast.GeneratorExp(elt=part) | ast.ListComp(elt=part):
            return part
        case ast.JoinedStr(values=values):
            return next((each for each in values if isinstance(each, ast.FormattedValue)), None)
    return None


def _in_words(name: str) -> str:
    return _WORDS.get(name, name.strip("_").replace("_", " ").lower())
