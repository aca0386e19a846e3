"""The image: what a linter says, what it copies, and that its user is the pods' user."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.infra.deploy.rendering import pods_of, render

DOCKERFILE = Path(__file__).resolve().parents[3] / "infra" / "deploy" / "Dockerfile"
TEXT = DOCKERFILE.read_text()


def test_hadolint_finds_nothing():
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "--no-color", DOCKERFILE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_user_is_a_number_and_the_one_that_the_pods_name():
    user, group = re.search(r"^USER (\d+):(\d+)$", TEXT, re.MULTILINE).groups()
    assert f"useradd --create-home --uid {user} --user-group" in TEXT
    for name, pod in pods_of(render("overlays/gpu-job")).items():
        context = pod["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group)), name


def test_every_package_is_copied():
    copied = set(re.findall(r"^COPY (\w+) \1$", TEXT, re.MULTILINE))
    assert copied == {"flows", "tasks", "infra", "fusion", "barycenter"}


@pytest.mark.parametrize(("device", "code", "index"), [("cpu", 0, "wheels"), ("cuda", 0, ""), ("rocm", 2, "")])
def test_the_device_chooses_the_wheels(device, code, index):
    """The instruction as the image's shell runs it, with ``echo`` in place of pip."""
    assert re.search(r"^ARG DEVICE=cpu$", TEXT, re.MULTILINE)
    choice = re.search(r"^RUN (case .*? esac)", TEXT, re.MULTILINE | re.DOTALL)[1].replace("\\\n", "")
    script = choice + ' && echo "$PIP_EXTRA_INDEX_URL"'
    environment = {"DEVICE": device, "TORCH_INDEX": "wheels"}
    done = subprocess.run(["/bin/sh", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (code, index)


def test_all_libraries_are_the_pinned_ones():
    assert re.findall(r"pip install (.*)$", TEXT, re.MULTILINE) == [
        "--constraint infra/constraints.txt torch torchvision",
        "--constraint infra/constraints.txt .",
    ]
