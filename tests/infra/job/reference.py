"""Prints docs/job.md, every key of a job file: `python -m tests.infra.job.reference > docs/job.md`."""

from typing import Any

from barycenter.infra.job.json_schema import job_schema

_HEAD = """# Every key of a job file

Made of the schema that `barycenter schema` prints. Relative paths are read from the job file's folder; an unknown key
is an error that names the nearest one; `--set key.path=value` on the command line replaces a value. `inputs` has a
section for each input, whose name is letters, digits and `_`. `barycenter init` writes a job file to begin with
([start](start.md)). What the keys of `corpus` and `inputs` read is in [corpora](corpora.md), targets, splits and
heads are in [training](training.md), methods in [alignment](alignment.md) and [learned](learned.md).
"""
_COLUMNS = "| key | values | default | |\n| --- | --- | --- | --- |\n"


def reference() -> str:
    """Returns the page."""
    schema = job_schema()
    return _HEAD + "".join(_tables(schema, schema, ""))


def _tables(schema: dict[str, Any], section: dict[str, Any], path: str) -> list[str]:
    rows, below = [], []
    for name, part in section["properties"].items():
        inner = _section_of(schema, part)
        if inner is None:
            rows.append(f"| `{name}` | {_values(schema, part)} | {_default(name, part, section)} | {_said(part)} |\n")
            continue
        place = f"{path}.{name}" if path else name
        place += ".<name>" if "additionalProperties" in part else ""
        below += _tables(schema, inner, place)
    said = "" if not path else f"{section['description']}\n\n"
    head = f"\n## {f'`{path}`' if path else 'The whole'}\n\n{said}{_COLUMNS}"
    return [head, *rows, *below]


def _section_of(schema: dict[str, Any], part: dict[str, Any]) -> dict[str, Any] | None:
    """The section that a property is, or maps names to; None for values, and for a section in place of a value."""
    options = [part, *part.get("anyOf", []), part.get("additionalProperties", {})]
    names = [option["$ref"] for option in options if isinstance(option, dict) and "$ref" in option]
    return schema["$defs"][names[0].rpartition("/")[2]] if names else None


def _values(schema: dict[str, Any], part: dict[str, Any]) -> str:
    options = [option for option in part.get("anyOf", part.get("oneOf", [part])) if option.get("type") != "null"]
    return " or ".join(_value(option) if "type" in option else _nested(schema, option) for option in options)


def _nested(schema: dict[str, Any], part: dict[str, Any]) -> str:
    """A choice within a choice, or a section in place of a value."""
    if "$ref" not in part:
        return _values(schema, part)
    keys = schema["$defs"][part["$ref"].rpartition("/")[2]]["properties"]
    return "`{" + ", ".join(f"{key}: ..." for key in keys) + "}`"


def _value(part: dict[str, Any]) -> str:
    if "enum" in part or "const" in part:
        return ", ".join(f"`{value}`" for value in part.get("enum", [part.get("const")]))
    kinds = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true, false"}
    if part["type"] == "array":
        return f"list of {_value(part['items'])}" + ("" if "minItems" not in part else f", {part['minItems']} of them")
    if part["type"] == "object":
        return "section"
    low, high = part.get("minimum", part.get("exclusiveMinimum")), part.get("maximum")
    if high is not None:
        return f"{kinds[part['type']]} from {low} to {high}"
    return kinds[part["type"]] + ("" if low is None else f" {'from' if 'minimum' in part else 'above'} {low}")


def _default(name: str, part: dict[str, Any], section: dict[str, Any]) -> str:
    if name in section.get("required", []):
        return "needed"
    default = part.get("default")
    if isinstance(default, list) and len(default) > 4:
        return f"{', '.join(map(str, default))}"
    return "" if default in (None, {}, []) else f"`{str(default).lower() if isinstance(default, bool) else default}`"


def _said(part: dict[str, Any]) -> str:
    return str(part["description"]).replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    print(reference(), end="")
