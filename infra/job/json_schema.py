"""The JSON Schema of a job file, for editors and other programs that check or complete one."""

from typing import Any

from pydantic import BaseModel

from barycenter.infra.job.models import Job

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def job_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a job file: every key, its type, its default and what it says.

    Checks that need two keys, the corpus or an encoder are not in it; ``barycenter run JOB.yaml --plan`` makes them.

    >>> schema = job_schema()
    >>> schema["required"], schema["properties"]["seed"]["default"]
    (['corpus', 'inputs', 'output'], 0)
    """
    schema = Job.model_json_schema(by_alias=True)
    schema |= {"title": "Barycenter job file", "description": "What to embed, align, average and train."}
    for name, field in Job.model_fields.items():
        if isinstance(field.default, BaseModel):  # a section that has defaults may be left empty
            section = schema["properties"][name]
            section["anyOf"] = [{"$ref": section.pop("$ref")}, {"type": "null"}]
            del section["default"]
    return {"$schema": _DIALECT, **_without_titles(schema, keep=True)}


def _without_titles(node: dict[str, Any], *, keep: bool = False) -> dict[str, Any]:
    """Leaves out the titles that pydantic makes of names; a property that is called so stays."""
    made: dict[str, Any] = {}
    for name, value in node.items():
        if name in ("properties", "$defs"):
            made[name] = {key: _without_titles(part) for key, part in value.items()}
        elif isinstance(value, dict):
            made[name] = _without_titles(value)
        elif isinstance(value, list):
            made[name] = [_without_titles(part) if isinstance(part, dict) else part for part in value]
        elif name != "title" or keep:
            made[name] = value
    return made
