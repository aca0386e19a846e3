"""What is wrong in a job file or a flag: exit 2, one line, the key's path, and nothing started."""

import os
import shutil
import signal
from pathlib import Path

import prefect
import pytest
import ray
import torch
import typer
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.flows.console import report_errors
from barycenter.infra.storage import Storage
from barycenter.infra.versions.lease import hold, newest_term
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines


@pytest.fixture(autouse=True)
def started(monkeypatch):
    """What was started; a wrong job starts nothing."""
    calls = []
    monkeypatch.setattr(ray, "init", lambda *args, **kwargs: calls.append("ray"))
    monkeypatch.setattr(prefect.Flow, "__call__", lambda *args, **kwargs: calls.append("prefect"))
    yield calls
    assert calls == []


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    rows = text_and_vector_rows(50)
    for row in rows:
        Image.new("RGB", (8, 8)).save(folder / "dot.png")
        row |= {"image": "dot.png", "wide": [*row["vec"], 1.0], "group": row["label"]}
    return write_lines(folder / "rows.jsonl", rows)


@pytest.fixture
def command(corpus, tmp_path):
    def call(*flags, change=None):
        data = text_and_vector_job(corpus, tmp_path / "out", "wrong")
        if change is not None:
            change(data)
        return CliRunner().invoke(app, ["run", str(write_job(tmp_path / "job.yaml", data)), *flags])

    return call


def refused(result, *parts):
    assert result.exit_code == 2, (result.exit_code, result.output)
    lines = result.stderr.splitlines()
    assert len(lines) == 1, lines
    assert not result.stdout
    for part in parts:
        assert part in lines[0]
    return lines[0]


def test_an_unknown_key_names_the_nearest(command):
    refused(command(change=lambda job: job["alignment"].update(metod="cca")), "alignment.metod: ", "method")


def test_an_unknown_key_at_the_top_names_the_nearest(command):
    refused(command(change=lambda job: job.update(outptu={"path": "x"})), "outptu: ", "output")


def test_a_missing_column(command):
    line = refused(
        command(change=lambda job: job["inputs"]["text"].update(column="txt")), "inputs.text.column: ", "txt"
    )
    assert "text" in line


def test_a_missing_kept_column(command):
    refused(command(change=lambda job: job["corpus"].update(keep=["label", "color"])), "corpus.keep: ", "color")


def test_a_missing_key_column(command):
    refused(command(change=lambda job: job["corpus"].update(key="uid")), "corpus.key: ", "uid")


def test_a_missing_corpus_file(command):
    refused(command(change=lambda job: job["corpus"].update(path="nowhere/rows.jsonl")), "corpus.path: ", "rows.jsonl")


def test_a_missing_job_file(tmp_path):
    refused(CliRunner().invoke(app, ["run", str(tmp_path / "none.yaml")]), "none.yaml")


def test_a_folder_without_rows(command, tmp_path):
    (tmp_path / "empty").mkdir()
    refused(command(change=lambda job: job["corpus"].update(path="empty")), "corpus.path: ")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_an_unreadable_folder(command, tmp_path, corpus):
    closed = tmp_path / "closed"
    closed.mkdir()
    shutil.copy(corpus, closed)
    closed.chmod(0)
    try:
        refused(command(change=lambda job: job["corpus"].update(path="closed")), "corpus.path: ")
    finally:
        closed.chmod(0o700)


def test_a_file_of_an_unknown_kind(command, tmp_path):
    (tmp_path / "rows.doc").write_text("no table")
    refused(command(change=lambda job: job["corpus"].update(path="rows.doc")), "corpus.path: ", "rows.doc")


def test_a_dim_above_the_widths(command):
    def change(job):
        job["inputs"]["other"] = {"kind": "vector", "column": "wide"}
        del job["inputs"]["text"]
        job["alignment"] = {"method": "joint", "dim": 14}

    refused(command(change=change), "alignment.dim: ", "14", "13", "vec 6", "other 7")


def test_a_default_dim_above_the_widths_is_no_mistake(command, started):
    def change(job):
        del job["inputs"]["text"]
        job["alignment"] = {"method": "pca"}

    assert command("--plan", change=change).exit_code == 0


def test_a_target_that_is_no_column(command):
    refused(command(change=lambda job: job.update(train={"target": "nope"})), "train.target: ", "nope")


@pytest.mark.parametrize("encoder", ["builtin/nope", "./models/nope"])
def test_an_unknown_encoder(command, encoder):
    refused(command(change=lambda job: job["inputs"]["text"].update(encoder=encoder)), "inputs.text.encoder: ", "nope")


def test_an_unknown_architecture(command):
    def change(job):
        job["inputs"]["image"] = {"kind": "image", "column": "image", "encoder": "torchvision/nope"}

    refused(command(change=change), "inputs.image.encoder: ", "nope")


def test_weights_that_do_not_fit(command, tmp_path):
    save_file({"foreign.weight": torch.zeros(2)}, tmp_path / "weights.safetensors")

    def change(job):
        image = {"kind": "image", "column": "image", "encoder": "torchvision/resnet18"}
        job["inputs"]["image"] = image | {"weights": "weights.safetensors"}

    refused(command(change=change), "inputs.image.weights: ", "weights.safetensors", "resnet18")


def test_weights_that_are_not_there(command):
    def change(job):
        image = {"kind": "image", "column": "image", "encoder": "torchvision/resnet18"}
        job["inputs"]["image"] = image | {"weights": "none.safetensors"}

    refused(command(change=change), "inputs.image.weights: ", "none.safetensors")


def test_none_on_unequal_widths_names_both(command):
    def change(job):
        job["inputs"] = {
            "narrow": {"kind": "vector", "column": "vec"},
            "broad": {"kind": "vector", "column": "wide"},
        }
        job["alignment"] = {"method": "none"}
        job["average"] = {"method": "mean"}

    refused(command(change=change), "alignment.method: ", "narrow 6", "broad 7")


def test_a_vector_column_that_holds_text(command):
    refused(
        command(change=lambda job: job["inputs"]["vec"].update(column="text")),
        "inputs.vec.column: ",
        "text",
        "lists of numbers",
    )


def test_a_plan_shows_rows_and_shards_and_leaves_nothing(command, started, tmp_path):
    result = command("--plan")
    assert result.exit_code == 0, result.output
    assert "50 rows in 3 shards of 1 file" in result.stdout
    assert "rows_per_shard: 20" in result.stdout
    assert "max_bad_fraction: 0.5" in result.stdout
    assert "measured" in result.stdout
    assert not result.stderr
    assert started == []
    assert not (tmp_path / "out").exists()


def test_set_overrides_the_file(command):
    result = command("--plan", "--set", "corpus.rows_per_shard=5", "--set", "average.method=spherical")
    assert result.exit_code == 0, result.output
    assert "50 rows in 10 shards" in result.stdout
    assert "method: spherical" in result.stdout


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("alignment.dimm=4", ("alignment.dimm: ", "dim")),
        ("alignment.dim", ("--set: ", "alignment.dim", "key.path=value")),
        ("alignment.dim=none", ("alignment.dim: ", "'none'")),
        ("alignment.dim.deep=4", ("alignment.dim.deep: ",)),
        ("inputs.text.column=[", ("inputs.text.column: ",)),
        ("inputs.sound.kind=audio", ("inputs.sound.kind: ", "audio")),
    ],
)
def test_a_wrong_override(command, override, parts):
    refused(command("--set", override), *parts)


@pytest.mark.parametrize("given", ["yesterday", "2024-02-30", "20240131"])
def test_a_wrong_day(command, given):
    refused(command("--plan", "--as-of", given), "--as-of: must be a date such as 2024-01-31", given)


def test_a_day_of_a_corpus_without_dates(command):
    refused(command("--as-of", "2024-01-31"), "corpus.path: ", "is not partitioned by a date", "date=2024-01-31")


@pytest.mark.parametrize("stage", ["embed", "align", "fuse", "train", "report"])
def test_every_stage_refuses_alike(stage, corpus, tmp_path):
    data = text_and_vector_job(corpus, tmp_path / "out", "wrong", alignment={"dim": 10_000})
    result = CliRunner().invoke(app, [stage, str(write_job(tmp_path / "job.yaml", data))])
    refused(result, "alignment.dim: ", "10000")


@pytest.mark.parametrize("arguments", [["run"], ["run", "job.yaml", "--nonsense"], ["nonsense"]])
def test_a_wrong_command_line_is_exit_2(arguments):
    assert CliRunner().invoke(app, arguments).exit_code == 2


def test_an_output_that_holds_nothing_is_exit_1(tmp_path):
    result = CliRunner().invoke(app, ["inspect", str(tmp_path)])
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert str(Path(tmp_path).name) in result.stderr


def test_a_terminated_command_releases_what_it_holds(tmp_path, capsys):
    storage = Storage(str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(typer.Exit) as ended, report_errors(False), hold(storage, "gc", deletes=True):
        signal.raise_signal(signal.SIGTERM)
    assert ended.value.exit_code == 1
    assert "interrupted; run again" in capsys.readouterr().err
    assert newest_term(storage).released
    assert signal.getsignal(signal.SIGTERM) is before
