"""What the project says of itself in several files is the same in all of them."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
PINS = dict(line.split("==") for line in (ROOT / "infra" / "constraints.txt").read_text(encoding="utf-8").split())
BREAK_THEIR_USERS = {"numpy", "prefect", "pydantic", "ray", "sqlalchemy", "torch", "torchvision", "transformers"}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


REQUIREMENTS = [
    Requirement(line)
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for line in lines
    if not line.startswith("barycenter")
]


def test_the_changelog_ends_with_this_version():
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert headings[1] == PROJECT["version"] == version("barycenter")


@pytest.mark.parametrize("requirement", REQUIREMENTS, ids=lambda requirement: requirement.name)
def test_the_pinned_version_is_within_the_bounds(requirement):
    pins = {canonical(name): pinned for name, pinned in PINS.items()}
    pinned = pins.get(canonical(requirement.name))
    if pinned is not None:
        assert requirement.specifier.contains(pinned), f"{requirement} excludes {pinned} of infra/constraints.txt"


def test_packages_that_break_their_users_have_an_upper_bound():
    bounded = {
        canonical(requirement.name)
        for requirement in map(Requirement, PROJECT["dependencies"])
        if any(each.operator in ("<", "<=", "==", "~=") for each in requirement.specifier)
    }
    assert bounded >= BREAK_THEIR_USERS


def test_ci_runs_the_pythons_that_the_project_names():
    named = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    assert named
    for job in ("test", "plain-install"):
        assert CI["jobs"][job]["strategy"]["matrix"]["python"] == named
    assert all(SpecifierSet(PROJECT["requires-python"]).contains(f"{each}.0") for each in named)


def test_ci_runs_targets_that_there_are():
    steps = [step.get("run", "") for job in CI["jobs"].values() for step in job["steps"]]
    targets = set(re.findall(r"^make ([\w-]+)", "\n".join(steps), re.MULTILINE))
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert {"install", "test", "coverage"} <= targets
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in targets)


def test_hooks_are_tools_of_the_project():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"][0]["hooks"]
    tools = {canonical(Requirement(line).name) for line in PROJECT["optional-dependencies"]["dev"]}
    names = {"lint-imports": "import-linter"}
    called = {hook["entry"].split()[0] for hook in hooks} - {"python"}
    assert {names.get(tool, tool) for tool in called} <= tools


def test_a_folder_called_barycenter_does_not_hide_the_editable_install(tmp_path):
    """As in the folder above a checkout: Python takes it for a package, unless it finds a real one."""
    for name in ("barycenter", "flows", "tasks", "infra", "fusion"):
        shutil.copytree(ROOT / name, tmp_path / "barycenter" / name, symlinks=True)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path / "barycenter" / name)
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    (site,) = environment.glob("lib/*/site-packages")
    (site / "shared.pth").write_text(sysconfig.get_path("purelib"))
    python = environment / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", python, "install"]
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--force-reinstall", "--editable"]
    subprocess.run([*pip, *options, "./barycenter"], check=True, capture_output=True, cwd=tmp_path)
    script = "from barycenter import CCA; print(CCA.__module__)"
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([python, "-c", script], capture_output=True, text=True, cwd=tmp_path, env=plain, check=False)
    assert done.stdout == "barycenter.fusion.alignment.linear\n", done.stderr
