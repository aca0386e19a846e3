"""The JSON Schema of a job file: what is kept in docs/ is what the models say, and it agrees with them."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from barycenter.infra.job.json_schema import job_schema
from tests.infra.job.reference import reference

ROOT = Path(__file__).parents[3]
EXAMPLES = sorted(ROOT.glob("examples/*.yaml")) + sorted(ROOT.glob("examples/*/job.yaml"))
SMALL = {"corpus": {"path": "a"}, "inputs": {"vec": {"kind": "vector", "column": "vec"}}, "output": {"path": "b"}}


def problems(job):
    return [error.message for error in jsonschema.Draft202012Validator(job_schema()).iter_errors(job)]


def test_the_schema_in_docs_is_current():
    kept = (ROOT / "docs" / "job.schema.json").read_text()
    assert json.loads(kept) == job_schema(), "run `barycenter schema > docs/job.schema.json`"
    assert kept == json.dumps(job_schema(), indent=2) + "\n"


def test_the_page_of_every_key_is_current():
    kept = (ROOT / "docs" / "job.md").read_text()
    assert kept == reference(), "run `python -m tests.infra.job.reference > docs/job.md`"
    assert "| `trust_remote_code` | true, false | `false` | Run code that comes with the model." in kept


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_are_valid(path):
    assert problems(yaml.safe_load(path.read_text())) == []


def test_a_section_with_defaults_may_be_empty():
    assert problems(SMALL | {"alignment": None, "train": None}) == []
    assert problems(SMALL | {"corpus": None}) != []


@pytest.mark.parametrize(
    "change",
    [
        {"alignment": {"metod": "cca"}},
        {"alignment": {"method": "ccca"}},
        {"seed": -1},
        {"train": {"head": "mlp"}},
        {"ray": {"workers": 0}},
        {"limits": {"max_bad_fraction": 1.5}},
        {"output": {"path": 7}},
    ],
)
def test_what_the_models_refuse_is_invalid(change):
    assert len(problems(SMALL | change)) == 1


def test_every_property_says_what_it_is():
    schema = job_schema()
    sections = {"Job": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, part in section["properties"].items()
        if "description" not in part and "$ref" not in json.dumps(part)
    ]
    assert silent == []
