"""What is sent to a cluster, and how; `tests/flows/test_wheel.py` sends a job to a Ray of its own."""

import importlib.metadata
import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
from ray.job_submission import JobStatus
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.clock import current_clock, use_clock
from barycenter.infra.job.loader import load_job
from barycenter.infra.job.models import Job
from barycenter.infra.ray import submission
from barycenter.infra.ray.submission import package_folder
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines

AUTH = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@pytest.fixture(autouse=True)
def no_authentication(monkeypatch):
    for name in AUTH:
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)


@pytest.fixture
def job_path(tmp_path):
    corpus = write_lines(tmp_path / "data" / "rows.jsonl", text_and_vector_rows(60))
    data = text_and_vector_job(corpus, tmp_path / "out", "a job, sent")
    data["corpus"]["path"], data["output"]["path"] = "data/rows.jsonl", "out"
    return write_job(tmp_path / "job.yaml", data)


def test_what_is_sent_is_code_and_the_job_with_paths_resolved(job_path, tmp_path):
    with package_folder(load_job(job_path)) as folder:
        sent = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
        job = load_job(folder / "job.yaml")
    assert {path.parts[:2] for path in sent} >= {("barycenter", part) for part in ("flows", "tasks", "infra", "fusion")}
    assert not any("__pycache__" in path.parts or path.suffix in (".parquet", ".jsonl", ".png") for path in sent)
    assert job.corpus.path == str(tmp_path / "data" / "rows.jsonl")
    assert job.output.path == str(tmp_path / "out")
    assert job.ray.address == "auto"


def test_a_cluster_by_its_address_stays(job_path):
    job = Job.model_validate(load_job(job_path, ["ray.address=head:6379"]))
    with package_folder(job) as folder:
        assert load_job(folder / "job.yaml").ray.address == "head:6379"


def test_the_version_travels(job_path):
    with package_folder(load_job(job_path)) as folder:
        asked = "import importlib.metadata as m; print(m.version('barycenter'))"
        answer = subprocess.run(
            [sys.executable, "-S", "-c", asked], cwd=folder, capture_output=True, text=True, check=True
        )
    assert answer.stdout.strip() == importlib.metadata.version("barycenter")


@pytest.mark.parametrize(
    ("variables", "address", "mode"),
    [
        ({}, "http://127.0.0.1:8265", "disabled"),
        ({}, "http://localhost:8265", "disabled"),
        ({"RAY_AUTH_TOKEN": "abc"}, "https://head:8265", "token"),
        ({"RAY_AUTH_MODE": "token"}, "http://127.0.0.1:8265", "token"),
    ],
)
def test_how_it_authenticates(monkeypatch, variables, address, mode):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    submission._authenticate(address)
    assert os.environ["RAY_AUTH_MODE"] == mode


def test_a_cluster_elsewhere_needs_a_token():
    with pytest.raises(RunError, match="RAY_AUTH_TOKEN"):
        submission._authenticate("http://head:8265")
    with pytest.raises(JobError, match="--address"):
        submission._authenticate("head:8265")


def test_nobody_there_is_one_line(job_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        result = CliRunner().invoke(app, ["submit", str(job_path), "--address", address])
    assert result.exit_code == 1
    assert f"no Ray dashboard answers at {address}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_flags_go_with_the_job(job_path, monkeypatch):
    seen = []
    monkeypatch.setattr(submission, "submit", lambda address, job, flags, write: seen.append(flags) or 0)
    words = ["submit", str(job_path), "--address", "http://127.0.0.1:9", "--refit", "--as-of", "2024-01-31"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert CliRunner().invoke(app, [*words[:4], "-qq", "--log-format", "json"]).exit_code == 0
    assert seen == [["-v", "--refit", "--as-of", "2024-01-31"], ["--log-format", "json", "-qq"]]
    assert CliRunner().invoke(app, [*words[:-1], "31 January"]).exit_code == 2


def test_what_the_jobs_page_would_show_holds_no_secret(job_path, monkeypatch, capsys):
    sent = []

    class Client:
        def submit_job(self, **options):
            sent.append(options)
            return options["submission_id"]

    monkeypatch.setattr(submission, "_client", lambda address: Client())
    monkeypatch.setattr(submission, "_ended", lambda *_: SimpleNamespace(status=JobStatus("SUCCEEDED")))
    address = "http://user:hush@127.0.0.1:8265"
    monkeypatch.setenv("PREFECT_API_URL", "http://prefect:4200/api")
    written = []
    assert submission.submit(address, load_job(job_path), write=written.append) == 0
    assert sent[0]["runtime_env"]["env_vars"]["PREFECT_API_URL"] == "http://prefect:4200/api"
    monkeypatch.setenv("PREFECT_API_URL", "http://user:hush@prefect:4200/api")
    with pytest.raises(JobError, match="PREFECT_API_URL: holds a user name or password") as raised:
        submission.submit(address, load_job(job_path), write=written.append)
    assert len(sent) == 1
    assert "http://***@127.0.0.1:8265" in "".join(written)
    assert "hush" not in "".join([*written, str(sent), str(raised.value)])


class Quick:
    """A clock on which waiting takes no time."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Dashboard:
    """Answers in turn: each is what one connection to the log gives, an exception at its end, and the status after."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def tail_job_logs(self, submission):
        pieces, error, self.status = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        for piece in pieces:
            yield piece
        if error is not None:
            raise error

    def get_job_info(self, submission):
        return SimpleNamespace(status=JobStatus(self.status), message="why\nit ended", driver_exit_code=2)


def followed(*answers):
    """(exit code, what was written)."""
    written = []
    with use_clock(Quick()):
        info = submission._ended(Dashboard(*answers), "job-1", written.append, "http://head:8265")
        code = submission._exit_code(info, "job-1", written.append)
    return code, "".join(written)


BROKEN = RuntimeError("WebSocket connection closed with close code 1006")


@pytest.mark.parametrize(
    ("status", "code", "last"),
    [
        ("SUCCEEDED", 0, ""),
        ("FAILED", 2, "job-1: failed: why it ended\n"),
        ("STOPPED", 143, "job-1: stopped: why it ended\n"),
    ],
)
def test_the_log_goes_on_where_a_connection_broke(status, code, last):
    cut = [(["one ", "two"], BROKEN, "RUNNING"), (["one tw"], ConnectionError("gone"), "RUNNING")]
    quiet = (["one two three"], None, "RUNNING")
    whole = (["one two three ", "four\n"], None, status)
    assert followed(*cut, quiet, whole) == (code, "one two three four\n" + last)


def test_connections_that_each_last_for_long_may_break_as_often_as_they_will():
    class Lasting(Dashboard):
        async def tail_job_logs(self, submission):
            current_clock().sleep(600)
            async for piece in super().tail_job_logs(submission):
                yield piece

        def get_job_info(self, submission):
            if len(self.answers) > 1:
                raise ConnectionError("not now")
            return super().get_job_info(submission)

    breaks = [(["x" * n], BROKEN, "RUNNING") for n in range(1, 6)]
    written = []
    with use_clock(Quick()):
        info = submission._ended(Lasting(*breaks, (["x" * 6], None, "SUCCEEDED")), "j", written.append, "http://head")
    assert (info.status, "".join(written)) == (JobStatus.SUCCEEDED, "x" * 6)


def test_the_end_of_a_job_is_found_where_its_log_cannot_be_read():
    assert followed(([], BROKEN, "FAILED")) == (2, "job-1: failed: why it ended\n")


def test_what_cannot_be_written_is_no_fault_of_the_cluster():
    def full(_):
        raise OSError(28, "No space left on device")

    with use_clock(Quick()), pytest.raises(OSError, match="No space left"):
        submission._ended(Dashboard((["one"], None, "RUNNING")), "job-1", full, "http://head:8265")


def test_a_cluster_that_stays_away_is_one_sentence_with_what_to_do():
    class Gone(Dashboard):
        def get_job_info(self, submission):
            raise ConnectionError("nobody answers")

    with use_clock(Quick()), pytest.raises(RunError, match=r"has not answered for 120 s \(.*ray job status job-1"):
        submission._ended(Gone(([], BROKEN, "RUNNING")), "job-1", print, "http://head:8265")
