"""Every code block of README.md, docs/ and the examples' pages is run, or at least read by what would run it."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
import yaml
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.infra.job.models import Job
from tests.docs.blocks import ROOT, Block, blocks, commands
from tests.docs.world import enter, filled

BLOCKS = blocks()

PARSED = {
    "demo": "takes two minutes; tests/flows/test_demo.py runs it",
    "embed": "starts Ray and Prefect; tests/flows run it",
    "align": "starts Ray and Prefect; tests/flows run it",
    "fuse": "starts Ray and Prefect; tests/flows run it",
    "train": "starts Ray and Prefect; tests/flows run it",
    "report": "starts Ray and Prefect; tests/flows run it",
    "submit": "needs a Ray cluster; tests/infra/ray/test_submission.py runs it",
    "serve": "needs a Prefect server and stays; tests/flows/test_deployments.py runs it",
    "deploy": "needs a Prefect server; tests/flows/test_deploy.py runs it",
}
"""Commands that are only parsed, and why. `run` gets `--plan`, which reads job and corpus and starts nothing."""

PARSED_LINES = {
    "barycenter init s3://bucket/corpus": "needs an S3 server; tests/flows/test_job_files.py runs it",
    "barycenter --install-completion": "changes the settings of the shell",
    "barycenter predict out/emoji --head gated": "needs a second head; tests/tasks/heads run it",
}
"""Beginnings of lines that are only parsed, and why."""

NAMED = {
    "docker": "needs a Docker daemon", "kubectl": "needs a cluster", "export": "sets a variable of the shell",
    "pip": "fetches packages", "git": "needs a remote", "cd": "is of the shell", "source": "is of the shell",
}  # fmt: skip
"""Programs of which only the files that they name are looked for (tests/test_docs.py), and why."""

COMPILED = {"from prefect.blocks.system import Secret": "writes to Prefect's database"}
"""How Python that is only compiled begins, and why."""

TEXTS = {
    "out/emoji/": "what is in an output",
    "report.json ": "what is in report/",
    '{"engine": "torch",': "part of plan.json, with dots",
}
"""How blocks of no language begin, beside the printed output of the examples."""


def of(language: str) -> list[Block]:
    return [block for block in BLOCKS if block.language == language]


@pytest.fixture
def here(world, tmp_path, monkeypatch):
    """A folder of a block's own, with all that the pages name."""
    enter(world, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_every_block_is_of_a_known_language():
    known = ("shell", "python", "yaml", "csv", "dockerfile")
    unknown = [
        f"{block}: {block.text[:60]!r}"
        for block in BLOCKS
        if block.language not in known
        and block.info != "text"
        and not block.text.lstrip().startswith(tuple(TEXTS))
        and not block.page.startswith("examples/")
    ]
    assert unknown == []


def test_the_lists_of_exceptions_hold_nothing_else():
    lines = [" ".join(words) for block in of("shell") for words in commands(block.text)]
    assert [start for start in PARSED_LINES if not any(line.startswith(start) for line in lines)] == []
    assert [start for start in TEXTS if not any(block.text.lstrip().startswith(start) for block in BLOCKS)] == []
    assert set(PARSED) <= set(typer.main.get_command(app).commands)


@pytest.mark.parametrize("block", of("shell"), ids=str)
def test_commands_run(block, here):
    for words in commands(block.text):
        line = " ".join(words)
        program, arguments = words[0].rpartition("/")[2], words[1:]
        if program == "barycenter":
            run_barycenter(line, arguments)
        elif program == "make":
            targets = re.findall(r"^([\w-]+(?: [\w-]+)*):", (ROOT / "Makefile").read_text(), re.M)
            assert next(word for word in arguments if "=" not in word) in " ".join(targets).split(), line
        elif program.startswith("python"):
            check_python(line, arguments)
        elif program == "prefect":
            parse_prefect(arguments)
        elif program == "ray":
            parse_ray(arguments)
        else:
            assert program in NAMED, f"{line}: say in NAMED why it is not run"


def run_barycenter(line, arguments):
    """Runs a command in this process, or parses it."""
    arguments, target = redirected(arguments)
    name = arguments[0] if arguments else ""
    if name in PARSED or line.startswith(tuple(PARSED_LINES)):
        parse(typer.main.get_command(app), arguments)
        return
    arguments = filled(arguments)
    if name == "run" and "--plan" not in arguments:
        arguments.append("--plan")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, f"{line}\n{result.output}"
    if target is not None:
        Path(target).write_text(result.stdout)


def redirected(words):
    """The words before `>`, and the file behind it."""
    if ">" not in words:
        return words, None
    at = words.index(">")
    return words[:at], words[at + 1]


def parse(group, words):
    """Parses as the command line does; a wrong option raises."""
    root = group.make_context("barycenter", [], resilient_parsing=True)
    name, *rest = words
    if name in group.commands:
        group.commands[name].make_context(name, rest, parent=root).close()
    else:
        group.make_context("barycenter", list(words), resilient_parsing=True).close()


def check_python(line, arguments):
    if arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]) is not None, line
    else:
        assert (ROOT / arguments[0]).is_file(), line


def parse_prefect(arguments):
    """By Prefect's own parser, which raises on an option that it does not know."""
    from prefect.cli._app import _app

    words = [word for word in arguments if word not in ("--prompt", "--no-prompt")]
    _app.parse_args(words, exit_on_error=False, print_error=False)


def parse_ray(arguments):
    from ray.scripts.scripts import cli

    name, command, rest = cli.resolve_command(cli.make_context("ray", list(arguments)), list(arguments))
    command.make_context(name, rest).close()


@pytest.fixture
def one_thread():
    """Threads of a small model wait for each other where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("block", of("python"), ids=str)
def test_python_runs(block, here, one_thread):
    code = compile(block.text, str(block), "exec")
    if block.text.startswith(tuple(COMPILED)):
        return
    rng = np.random.default_rng(0)
    names = {"texts": rng.normal(size=(16, 12)), "images": rng.normal(size=(16, 10))}
    exec(code, names | {"labels": np.arange(16) % 3, "groups": np.arange(16) // 2})


@pytest.mark.parametrize("block", of("yaml"), ids=str)
def test_yaml_is_a_job_file(block):
    read = yaml.safe_load(block.text)
    if "deployments" in read:
        deployment = read["deployments"][0]
        assert set(deployment) <= {"name", "entrypoint", "parameters", "triggers"}
        assert (ROOT / deployment["entrypoint"].partition(":")[0]).is_file()
        return
    Job.model_validate(completed(read))


@pytest.mark.parametrize("block", of("dockerfile"), ids=str)
def test_hadolint_finds_nothing_in_dockerfiles(block):
    hadolint = Path(sys.executable).parent / "hadolint"
    done = subprocess.run([hadolint, "--no-color", "-"], input=block.text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def completed(part):
    """A whole job of a part of one; what a section leaves out that is needed is added."""
    train = part.get("train") or {}
    columns = [train[key] for key in ("target", "group_by", "split") if key in train]
    whole = {
        "corpus": {"path": "a", "keep": columns},
        "inputs": {"vec": {"kind": "vector", "column": "vec"}},
        "output": {"path": "b"},
        "train": None,
    }
    needed = {"corpus": {"path": "a"}, "output": {"path": "b"}, "train": {"target": "label"}}
    return whole | {
        name: needed.get(name, {}) | value if isinstance(value, dict) else value for name, value in part.items()
    }
