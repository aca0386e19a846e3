import json

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.infra.storage import Storage
from barycenter.infra.versions import lease as leases
from barycenter.infra.versions.lease import acquire, hold
from barycenter.tasks.run.status import describe_status
from tests.flows.corpora import run_here, text_and_vector_job, text_and_vector_rows, write_lines

AT_WORK = {"stage": "embed text", "rows": 1_000, "total": 4_000, "rows_per_s": 20.0}


def shown(folder, *flags):
    """The lines of the table, by their first cell, without the frame."""
    result = CliRunner().invoke(app, ["status", str(folder), *flags], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.stdout.splitlines() if "│" in line]
    return dict(cells)


def test_a_run_at_work(tmp_path):
    storage = Storage(str(tmp_path))
    with hold(storage, "run emoji"):
        storage.write("progress.json", json.dumps({"stages": [AT_WORK, AT_WORK | {"stage": "embed vec"}]}).encode())
        lines = shown(tmp_path)
        lease = describe_status(storage)["lease"]
    assert lines["held by"] == f"run emoji ({lease['who']})"
    assert lines["since"] == lease["since"]
    assert lines["its process"] == "is running"
    assert lines["stage"] == "embed text: 1,000/4,000 rows, 20 rows/s, about 150 s left"
    assert lines[""] == "embed vec: 1,000/4,000 rows, 20 rows/s, about 150 s left"
    assert lines["newest version"] == "none is committed yet"
    assert lines["readers see"] == "nothing yet"
    assert lines["report"] == "none is written yet"


@pytest.mark.parametrize(
    ("alive", "line"), [(False, "is gone: the next run takes over"), (None, "cannot be seen from here: try --watch")]
)
def test_a_holder_that_is_not_known_to_live(tmp_path, monkeypatch, alive, line):
    acquire(Storage(str(tmp_path)), "run emoji")
    monkeypatch.setattr(leases, "process_lives", lambda process: alive)
    assert shown(tmp_path)["its process"] == line


def test_after_runs(tmp_path):
    corpus = write_lines(tmp_path / "rows.jsonl", text_and_vector_rows(40))
    job = text_and_vector_job(corpus, tmp_path / "out", "emoji")
    first = run_here(job)
    storage = Storage(str(tmp_path / "out"))
    storage.write("progress.json", json.dumps({"stages": [AT_WORK]}).encode())
    lines = shown(tmp_path / "out")
    assert lines["held by"] == "nobody"
    assert lines["last held by"].startswith("run emoji (")
    assert lines["last stage"] == "embed text: 1,000/4,000 rows, 20 rows/s, when it was last written"
    assert lines["newest version"].startswith(f"1: {first['version']}, 40 rows, committed 20")
    assert lines["readers see"] == "version 1"
    assert lines["report"] == f"of version 1: {first['version']}, run emoji"
    before = storage.read("report/report.json")
    run_here(job | {"corpus": job["corpus"] | {"keep": []}})
    storage.write("report/report.json", before)
    lines = shown(tmp_path / "out")
    assert lines["an earlier run's"] == "embed text: 1,000/4,000 rows, 20 rows/s"
    assert lines["stage"] == "none has reported rows"
    assert lines["report"].endswith("; not of the newest, for which `barycenter report` writes one")


def test_json_is_what_the_function_returns(tmp_path):
    with hold(Storage(str(tmp_path)), "run [/bold] Möbel"):
        result = CliRunner().invoke(app, ["status", str(tmp_path), "--json"])
        assert json.loads(result.stdout) == describe_status(Storage(str(tmp_path)))


def test_what_is_no_output_is_one_line_and_exit_1(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        result = CliRunner().invoke(app, ["status", str(folder)])
        assert (result.exit_code, result.stdout) == (1, "")
        assert result.stderr == f"barycenter: {folder} does not exist or is empty; no run has held it yet\n"
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.slow
def test_an_output_on_s3(s3_server, s3_bucket):
    folder = f"s3://{s3_bucket}/out"
    with hold(Storage(folder, s3_server), "run emoji"):
        lines = shown(folder, "--endpoint-url", s3_server)
    assert lines["held by"].startswith("run emoji (")
    result = CliRunner().invoke(app, ["status", f"s3://{s3_bucket}/other", "--endpoint-url", s3_server])
    assert result.exit_code == 1
    assert f"s3://{s3_bucket}/other does not exist or is empty" in result.stderr
