"""The examples run from a clone: each makes its data without the network, and its job plans on it."""

import shutil

import pytest
import yaml
from typer.testing import CliRunner

from barycenter.flows.cli import app
from tests.docs.blocks import ROOT, blocks_of
from tests.docs.world import EXAMPLES


def plan(path, *arguments):
    result = CliRunner().invoke(app, ["run", str(path), "--plan", *arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_plans_on_the_data_that_it_makes(name, world):
    job = world / "examples" / name / "job.yaml"
    output = plan(job)
    assert all(name in output for name in yaml.safe_load(job.read_text())["inputs"])


def test_the_emoji_job_plans_on_data_of_its_form(world, tmp_path):
    job = shutil.copy(ROOT / "examples" / "emoji.yaml", tmp_path)
    shutil.copytree(world / "examples" / "symbols" / "data", tmp_path / "data" / "emojitwo")
    settings = {"text.encoder": "builtin/hashing", "image.encoder": "builtin/descriptor", "image.weights": "null"}
    plan(job, *(part for key, value in settings.items() for part in ("--set", f"inputs.{key}={value}")))


def test_every_example_has_a_page_that_says_how_to_run_it():
    for name in EXAMPLES:
        page = (ROOT / "examples" / name / "README.md").read_text()
        assert f"python examples/{name}/prepare.py" in page
        assert f"barycenter run examples/{name}/job.yaml" in page


@pytest.mark.parametrize("name", ["patients", "functions"])
def test_a_tutorial_shows_the_job_file_of_its_example(name):
    job = yaml.safe_load((ROOT / "examples" / name / "job.yaml").read_text())
    pages = ROOT.glob("docs/tutorial-*.md")
    shown = [yaml.safe_load(block.text) for page in pages for block in blocks_of(page) if block.info == "yaml"]
    assert job in shown
