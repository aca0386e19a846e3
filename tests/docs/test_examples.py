"""The examples run from a clone: each makes its data without the network, and its job plans on it."""

import importlib.util
import shutil

import pytest
import yaml
from typer.testing import CliRunner

from barycenter.flows.cli import app
from tests.docs.blocks import ROOT

EXAMPLES = sorted(path.parent.name for path in ROOT.glob("examples/*/job.yaml"))
FEWER = {"products": {"rows": 60}, "questions": {"pictures": 20}}
"""What makes an example smaller here."""


def prepare(name, folder, **fewer):
    """Runs the example's prepare.py into a folder."""
    spec = importlib.util.spec_from_file_location(f"prepare_{name}", ROOT / "examples" / name / "prepare.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.main(folder, **fewer)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """The folder of an example with its data, made when it is first asked for."""
    made = {}

    def folder_of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            prepare(name, made[name], **FEWER.get(name, {}))
        return made[name]

    return folder_of


def plan(path, *arguments):
    result = CliRunner().invoke(app, ["run", str(path), "--plan", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_plans_on_the_data_that_it_makes(name, prepared):
    job = shutil.copy(ROOT / "examples" / name / "job.yaml", prepared(name))
    output = plan(job)
    assert all(name in output for name in yaml.safe_load((ROOT / "examples" / name / "job.yaml").read_text())["inputs"])


def test_the_emoji_job_plans_on_data_of_its_form(prepared, tmp_path):
    job = shutil.copy(ROOT / "examples" / "emoji.yaml", tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "emojitwo").symlink_to(prepared("symbols") / "data")
    settings = {"text.encoder": "builtin/hashing", "image.encoder": "builtin/descriptor", "image.weights": "null"}
    plan(job, *(part for key, value in settings.items() for part in ("--set", f"inputs.{key}={value}")))


def test_every_example_has_a_page_that_says_how_to_run_it():
    for name in EXAMPLES:
        page = (ROOT / "examples" / name / "README.md").read_text()
        assert f"python examples/{name}/prepare.py" in page
        assert f"barycenter run examples/{name}/job.yaml" in page
