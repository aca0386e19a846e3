"""The options that every command has: how much of a run is shown on stderr, and how."""

import json
import logging
import os
import subprocess
import sys

import httpx
import pytest
import typer
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.flows.console import _App, fail, report_errors
from barycenter.infra.logs import bound, print_line, say
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines

log = logging.getLogger("barycenter.tests")


@pytest.fixture
def speak():
    """A command that says something of each kind; what it writes to stderr."""
    speaking = _App()

    @speaking.command()
    def run(name: str, times: int = 1) -> None:
        """Says things."""
        with bound(run=name, stage="embed text"):
            print_line("a line")
            say(log, "embed text: a note")
            log.debug("a detail")
            log.info("a record", extra={"shard": "s1"})
            log.warning("a warning")
        print("a result", times)
        fail("the end", 1, debug=False)

    def call(*flags):
        result = CliRunner().invoke(speaking, ["emoji", "--times", "2", *flags])
        assert (result.exit_code, result.stdout) == (1, "a result 2\n")
        return result.stderr.splitlines()

    return call


ALWAYS = ["a line", "embed text: a note"]
WARNING, END = "warning: embed text: a warning", "barycenter: the end"


@pytest.mark.parametrize(
    ("flags", "shown"),
    [
        ([], [*ALWAYS, WARNING, END]),
        (["-v"], [*ALWAYS, "info: embed text: a record", WARNING, END]),
        (["-vv"], [*ALWAYS, "debug: embed text: a detail", "info: embed text: a record", WARNING, END]),
        (["-q"], [WARNING, END]),
        (["-qq"], [END]),
        (["-qqq"], [END]),
    ],
)
def test_a_flag_says_how_much_is_shown(speak, flags, shown):
    assert [line.partition(" ")[2] if line[2:3] == ":" else line for line in speak(*flags)] == shown


def test_json_lines_are_all_that_is_written_where_they_are_asked_for(speak, monkeypatch):
    lines = [json.loads(line) for line in speak("--log-format", "json")]
    assert [line["message"] for line in lines] == ["embed text: a note", "a record", "a warning", "the end"]
    assert [line["level"] for line in lines] == ["info", "info", "warning", "error"]
    assert {line.get("run") for line in lines[:-1]} == {"emoji"}
    assert {line.get("stage") for line in lines[:-1]} == {"embed text"}
    assert lines[1]["shard"] == "s1"
    monkeypatch.setenv("BARYCENTER_LOG", "json")
    assert [json.loads(line)["message"] for line in speak("-q")] == ["a warning", "the end"]
    assert speak("--log-format", "text") == [*ALWAYS, WARNING, END]


def test_a_command_leaves_the_logs_of_the_process_as_they_were(speak):
    package = logging.getLogger("barycenter")
    before = package.level, package.propagate, list(package.handlers)
    speak("-v", "--log-format", "json")
    assert (package.level, package.propagate, list(package.handlers)) == before


@pytest.mark.parametrize("command", ["run", "embed", "submit", "inspect"])
def test_every_command_has_them(command):
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"})
    for option in ("--verbose", "-v", "--quiet", "-q", "--log-format"):
        assert option in result.output


NOWHERE = "http://127.0.0.1:1/api"


def ask_prefect():
    with (
        temporary_settings({PREFECT_API_URL: NOWHERE, PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(sync_client=True) as client,
    ):
        client.read_flow_runs()


@pytest.mark.parametrize(
    ("ask", "line"),
    [
        (ask_prefect, "barycenter: the Prefect server went away (ConnectError); what is done stays done: run again"),
        (lambda: httpx.get(NOWHERE), "barycenter: unexpected ConnectError: "),
    ],
)
def test_only_what_prefects_client_cannot_reach_is_prefects_server(ask, line, capsys):
    with pytest.raises(typer.Exit), report_errors(debug=False):
        ask()
    assert capsys.readouterr().err.startswith(line)


def test_a_table_in_a_pipe_is_not_cut(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(4))
    path = write_job(tmp_path / "job.yaml", text_and_vector_job(corpus, tmp_path / "out", "wide"))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    words = [sys.executable, "-m", "barycenter.flows.cli", "run", str(path), "--plan"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    assert "estimated time" in done.stdout
    assert "…" not in done.stdout
