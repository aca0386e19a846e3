"""A run with nothing to do says so before any worker or server is started, and never where there is something to do."""

import json
import os
import shutil
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from typer.testing import CliRunner

from barycenter.flows import server as flow_server
from barycenter.flows.cli import app
from barycenter.fusion.errors import RunError
from barycenter.infra.job.loader import load_job
from barycenter.infra.storage import Storage
from barycenter.infra.versions.commit import promote_version, shown_version
from barycenter.infra.versions.lease import hold
from barycenter.tasks.pipeline import Left, look_at, run_job
from barycenter.tasks.planning.plan import prepare
from barycenter.tasks.run.workers import THIS_PROCESS
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines

ROWS = 60


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with a job that has run, in this process."""
    folder = tmp_path_factory.mktemp("finished")
    rows = text_and_vector_rows(ROWS)
    rows[3]["text"] = None
    corpus = write_lines(folder / "rows.jsonl", rows)
    job = text_and_vector_job(corpus, folder / "out", "again", train={"target": "label"})
    job["corpus"]["path"], job["output"]["path"] = "rows.jsonl", "out"
    path = write_job(folder / "job.yaml", job)
    run_job(prepare(load_job(path)), THIS_PROCESS)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    """It, put back afterwards with the times of its files: a job elsewhere would be another."""
    kept = shutil.copytree(finished, tmp_path / "kept")
    yield finished
    shutil.rmtree(finished)
    shutil.copytree(kept, finished)


def left_of(folder: Path, *overrides: str, **flags: bool) -> Left:
    return look_at(prepare(load_job(folder / "job.yaml", list(overrides)), **flags))


def one(folder: Path, pattern: str) -> Path:
    return next(path for path in sorted((folder / "out").glob(pattern)) if path.is_file())


def test_a_run_that_changes_nothing_has_nothing_to_do(folder):
    left = left_of(folder, "ray.workers=2")
    assert left.nothing
    number, committed = left.version.number, left.version.committed
    assert left.said() == f"nothing to do: version {number} of {committed} has it all"


@pytest.mark.parametrize(
    ("change", "stages"),
    [
        (["alignment.dim=4"], None),
        (["alignment.folds=4"], None),
        (["output.dtype=float16"], None),
        (["average.method=mean"], None),
        (["corpus.on_duplicate=fail"], None),
        (["corpus.keep=[]", "train=null"], None),
        (["on_bad_input=drop"], None),
        (["inputs.text.column=label"], None),
        (["seed=7"], ("train", "report")),
        (["train.head=mlp"], ("train", "report")),
        (["train=null"], None),
        (["name=other"], ("report",)),
    ],
    ids=lambda each: ",".join(each or ["features"]) if isinstance(each, list) else "",
)
def test_another_job_has_something_to_do(folder, change, stages):
    run = prepare(load_job(folder / "job.yaml", change))
    left = look_at(run)
    assert not left.nothing
    assert (left.version is None) == (stages is None)
    assert left.stages == (stages or ())
    assert left.needs_workers(run) == (stages is None or "train.head=mlp" in change)


@pytest.mark.parametrize("flag", ["refit", "retry_bad"])
def test_a_flag_that_asks_for_work_gets_it(folder, flag):
    assert left_of(folder, **{flag: True}).version is None


def grow(folder: Path) -> None:
    write_lines(folder / "rows.jsonl", text_and_vector_rows(ROWS + 1))


def edit(folder: Path) -> None:
    """The same size, a later time."""
    path = folder / "rows.jsonl"
    path.write_text(path.read_text().replace("red", "tan").replace("blue", "teal"))
    os.utime(path, (0, 0))


CHANGES = {
    "a row more": (grow, None),
    "a row edited": (edit, None),
    "an embedding file": ("embeddings/text/**/*.parquet", None),
    "the fit": ("alignment/fits/*.json", None),
    "a feature file": ("features/**/*.parquet", None),
    "a file of rejects": ("rejects/**/*.parquet", None),
    "the manifest": ("manifests/*.json", None),
    "the alignment": ("alignment/*/alignment.safetensors", None),
    "its settings": ("alignment/*/alignment.json", None),
    "the rows that it was fitted on": ("alignment/*/fitted.json", None),
    "the predictions": ("head/**/predictions.parquet", ("train", "report")),
    "the head": ("head/**/head.safetensors", ("train", "report")),
    "its metrics": ("head/**/metrics.json", ("train", "report")),
    "the report": ("report/report.json", ("report",)),
    "its page": ("report/report.html", ("report",)),
    "a picture": ("report/*.png", ("report",)),
    "its samples": ("report/samples.json", ("report",)),
    "the version's report": ("report/versions/*.json", ("report",)),
    "the scores of its rows": ("report/versions/*.rows.parquet", ("report",)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_gone_or_changed_is_made_again(folder, change):
    """And afterwards there is nothing to do."""
    what, stages = CHANGES[change]
    if callable(what):
        what(folder)
        gone = None
    else:
        gone = one(folder, what)
        gone.unlink()
    if change == "the fit":
        assert left_of(folder).nothing, "the manifest of the version says the same"
        return
    run = prepare(load_job(folder / "job.yaml"))
    left = look_at(run)
    assert (left.version is None, left.stages) == (stages is None, stages or ())
    run_job(run, THIS_PROCESS)
    assert gone is None or gone.exists()
    assert left_of(folder).nothing


CUT = {
    "alignment/*/alignment.safetensors": None,
    "alignment/*/alignment.json": None,
    "alignment/fits/*.json": None,
    "features/**/*.parquet": None,
    "head/**/metrics.json": ("train", "report"),
    "report/report.json": ("report",),
    "report/samples.json": ("report",),
    "report/versions/*.rows.parquet": ("report",),
}


@pytest.mark.parametrize("pattern", CUT)
def test_what_is_damaged_is_made_again(folder, pattern):
    """As by a fault of a disk: a file is cut to half."""
    path = one(folder, pattern)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    if "fits" in pattern:
        assert left_of(folder).nothing, "the manifest of the version says the same"
        return
    run = prepare(load_job(folder / "job.yaml"))
    left = look_at(run)
    assert (left.version is None, left.stages) == (CUT[pattern] is None, CUT[pattern] or ())
    run_job(run, THIS_PROCESS)
    assert left_of(folder).nothing
    if not pattern.startswith("report"):
        assert path.read_bytes() == whole


def test_a_plan_that_is_damaged_is_named(folder):
    path = one(folder, "plan.json")
    path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(RunError, match=r"plan\.json is damaged .*; restore it from a copy, or delete it and run again"):
        left_of(folder)


def test_the_line_says_what_readers_see(folder):
    storage = Storage(str(folder / "out"))
    grow(folder)
    manual = "output.promote=manual"
    run_job(prepare(load_job(folder / "job.yaml", [manual])), THIS_PROCESS)
    left = left_of(folder, manual)
    assert left.nothing
    assert left.said().endswith("has it all; readers see version 1, `barycenter promote` changes that")
    left = left_of(folder)
    assert (left.nothing, left.stages) == (False, ("promotion",)), "this job shows its newest version by itself"
    assert "left: promotion" in left.said()
    run_job(prepare(load_job(folder / "job.yaml")), THIS_PROCESS)
    assert shown_version(storage) == 2
    assert left_of(folder).said().endswith("has it all")
    with hold(storage, "rollback") as lease:
        promote_version(storage, 1, lease)
    assert left_of(folder).said().endswith("readers see version 1, `barycenter promote` changes that")


def test_what_another_listing_saw_is_reported(folder):
    (folder / "out" / "report" / "report.json").write_text(
        (folder / "out" / "report" / "report.json").read_text().replace('"taken": 1', '"taken": 2')
    )
    assert left_of(folder).stages == ("report",)


def test_the_report_of_a_run_with_nothing_to_do_is_that_of_one_on_workers(folder):
    """Of both the rows were kept; what was drawn is taken as it is."""
    picture = one(folder, "report/*.png")
    picture.write_bytes(b"drawn before")
    report = run_job(prepare(load_job(folder / "job.yaml")), THIS_PROCESS)
    assert report["reuse"]["vec"] | {"gone": 0} == report["reuse"]["vec"]
    assert report["reuse"]["vec"]["kept"] == report["reuse"]["vec"]["read"] == ROWS
    assert picture.read_bytes() == b"drawn before"
    assert report == json.loads((folder / "out" / "report" / "report.json").read_text())


@pytest.fixture
def nothing_starts(monkeypatch, tmp_path):
    """No Prefect server is configured, the temporary one and Ray do not start."""

    class Server:
        api = "http://127.0.0.1:9/api"

        def __init__(self, *_):
            pass

        def wait(self):
            raise AssertionError("the server is waited for")

        def stop(self):
            pass

    def start(*_args, **_kwargs):
        raise AssertionError("Ray is started")

    monkeypatch.setattr(flow_server, "TemporaryServer", Server)
    monkeypatch.setattr(flow_server, "LOCAL_API", "http://127.0.0.1:9/api")
    monkeypatch.setattr("barycenter.infra.ray.connection.connect", start)
    with temporary_settings(restore_defaults={PREFECT_API_URL}):
        yield


@pytest.mark.usefixtures("nothing_starts")
def test_the_command_says_so_and_starts_neither_ray_nor_a_server(folder):
    result = CliRunner().invoke(app, ["run", str(folder / "job.yaml")])
    assert result.exit_code == 0, result.stderr
    assert "nothing to do: version 1 of " in result.stderr
    assert f"report    {folder}/out/report/report.html" in result.stdout
    planned = CliRunner().invoke(app, ["run", str(folder / "job.yaml"), "--plan"])
    assert "nothing to do: version 1 of " in planned.stdout

    grow(folder)
    result = CliRunner().invoke(app, ["run", str(folder / "job.yaml")])
    assert "nothing to do" not in result.output
    assert "Ray is started" in result.stderr


@pytest.mark.usefixtures("prefect_server")
def test_on_a_server_the_run_is_shown_without_ray(folder, monkeypatch):
    """Its page says that nothing was to do; the report alone needs no workers either."""

    def start(*_args, **_kwargs):
        raise AssertionError("Ray is started")

    monkeypatch.setattr("barycenter.infra.ray.connection.connect", start)
    result = CliRunner().invoke(app, ["run", str(folder / "job.yaml"), "-v"])
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("nothing to do: version 1 of ") == 1
    assert "nothing new: version " in result.stderr
    (folder / "out" / "report" / "report.html").unlink()
    result = CliRunner().invoke(app, ["run", str(folder / "job.yaml")])
    assert result.exit_code == 0, result.stderr
    assert "has the features; left: report" in result.stderr
    assert (folder / "out" / "report" / "report.html").exists()
