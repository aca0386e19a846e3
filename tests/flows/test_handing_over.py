"""The command line opens a corpus, and the flow that it starts goes on with what was opened."""

import json
from contextlib import nullcontext

import pytest
import yaml
from typer.testing import CliRunner

import barycenter.flows.commands.jobs as jobs
import barycenter.tasks.run.context
from barycenter.infra.job.models import Job
from barycenter.tasks.planning.plan import hand_over, prepare, prepared


@pytest.fixture
def job_path(tmp_path):
    rows = "".join(json.dumps({"id": f"r{n}", "text": f"row {n}"}) + "\n" for n in range(8))
    (tmp_path / "rows.jsonl").write_text(rows)
    job = {
        "corpus": {"path": "rows.jsonl", "key": "id"},
        "inputs": {"text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"}},
        "output": {"path": "out"},
    }
    path = tmp_path / "job.yaml"
    path.write_text(yaml.safe_dump(job))
    return path


@pytest.fixture
def opened(monkeypatch):
    """How often a corpus was opened."""
    calls = []
    original = barycenter.tasks.run.context.open_tables

    def open_tables(*args):
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(barycenter.tasks.run.context, "open_tables", open_tables)
    return calls


@pytest.mark.parametrize(
    "command", [["run"], ["run", "--refit"], ["run", "--adopt"], ["embed", "--adopt"], ["embed"], ["train"]]
)
def test_a_command_opens_its_corpus_once(job_path, opened, monkeypatch, command):
    runs = []

    def run_flow(module, name, job, server, *, workers=True, **flags):
        runs.append(prepared(job.resolved(job_path.parent), **flags))
        return {}

    monkeypatch.setattr(jobs, "run_flow", run_flow)
    monkeypatch.setattr(jobs, "PrefectServer", nullcontext)
    monkeypatch.setattr(jobs, "_show_report", lambda *_: None)
    outcome = CliRunner().invoke(jobs.app, [command[0], str(job_path), *command[1:]])
    assert outcome.exit_code == 0, outcome.output
    assert (len(runs), len(opened)) == (1, 1)
    assert runs[0].adopt == ("--adopt" in command)


def test_what_was_opened_for_other_settings_is_opened_again(job_path, opened):
    job = jobs.load(job_path, None)
    other = Job.model_validate(job.model_dump(by_alias=True) | {"seed": 3})
    for asked, flags in ((other, {}), (job, {"refit": True}), (job, {"adopt": True})):
        run = prepare(job)
        hand_over(run)
        assert prepared(asked, **flags) is not run
    run = prepare(job)
    hand_over(run)
    assert prepared(job) is run
    assert prepared(job) is not run
