"""`barycenter compare` on versions that real runs committed."""

import json

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from barycenter.infra.versions.manifests import report_path
from tests.flows.corpora import output, run_here, text_and_vector_job, text_and_vector_rows, write_lines


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A job whose output has two versions: twenty rows came, ten went, five texts are others, another dimension."""
    folder = tmp_path_factory.mktemp("compared")
    rows = text_and_vector_rows(120)
    for row in rows[50:55]:
        row["label"] = "class 0" if row["label"] != "class 0" else "class 1"
    corpus = folder / "rows.jsonl"
    job = text_and_vector_job(write_lines(corpus, rows[:100]), folder / "out", "compared", train={"target": "label"})
    run_here(job)
    write_lines(corpus, rows[10:])
    job["alignment"]["dim"] = 6
    run_here(job)
    return job


def invoke(*arguments):
    return CliRunner().invoke(app, ["compare", *arguments], env={"COLUMNS": "200"})


def test_two_versions_beside_each_other_as_json(job):
    out = job["output"]["path"]
    result = invoke(f"{out}@1", f"{out}@2", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["job"] == {"alignment.dim": [8, 6]}
    keys = found["data"]["keys"]
    assert (keys["kept"], keys["added"], keys["removed"]) == (90, 20, 10)
    assert set(keys["examples"]["removed"]) == {f"r{row:04d}" for row in range(10)}
    assert found["data"]["sources"]["changed"] == ["rows.jsonl"]
    assert found["encoders"] == {}
    assert found["alignment"]["dim"] == [8, 6]
    fused = found["figures"]["scores"]["fused"]["complete"]
    assert fused["difference"]["within_noise"] is True
    assert found["figures"]["paired"] == 90
    assert found["moved"]["by"] == "neighbors"
    assert found["moved"]["overlap"] > 3 * found["moved"]["chance"]
    assert found["predictions"]["n"] > 0
    assert found["notes"] == [
        "the alignments differ, so vectors cannot be compared one by one; the nearest rows of each are"
    ]


def test_two_versions_beside_each_other_on_a_terminal(job):
    out = job["output"]["path"]
    text = " ".join(invoke(f"{out}@1", out).stdout.split())
    for line in (
        "the jobs differ in 1 key: alignment.dim",
        "rows: 90 are in both, 20 came, 10 went",
        ", within noise, paired over 90 rows",
        "differences paired over 90 rows",
        "alignment.dim 8 6",
        "sources changed: 1 (rows.jsonl)",
        "note: the alignments differ",
    ):
        assert line in text


def test_a_version_beside_itself_has_not_moved(job):
    out = job["output"]["path"]
    text = " ".join(invoke(out, out).stdout.split())
    assert "the jobs do not differ" in text
    assert "100.0 % have not moved" in text
    assert "0 are predicted differently" in text


def test_a_version_without_report_and_head_is_compared_all_the_same(job):
    storage, out = output(job), job["output"]["path"]
    version = json.loads(storage.read("manifests/1.json"))["version"]
    kept = {path: storage.read(path) for path in [report_path(version), *storage.list(f"head/{version}")]}
    storage.remove(list(kept))
    try:
        result = invoke(f"{out}@1", out)
    finally:
        for path, content in kept.items():
            storage.write(path, content)
    assert result.exit_code == 0, result.output
    text = " ".join(result.stdout.split())
    assert "note: no report on" in text
    assert "note: no head is trained on" in text
    assert "90 are in both" in text


@pytest.mark.parametrize("name", ["report.json", "metrics.json", "head.json"])
def test_a_damaged_file_is_one_line(job, name):
    storage, out = output(job), job["output"]["path"]
    version = json.loads(storage.read("manifests/1.json"))["version"]
    paths = [report_path(version), *storage.list(f"head/{version}")]
    path = next(path for path in paths if path.endswith(name) or name == "report.json")
    content = storage.read(path)
    storage.write(path, content[: len(content) // 2])
    try:
        result = invoke(f"{out}@1", out)
    finally:
        storage.write(path, content)
    assert result.exit_code == 1
    assert f"{storage.uri(path)} is damaged" in "".join(result.stderr.split("\n"))


def test_what_is_not_there_is_one_line(job, tmp_path):
    missing = invoke(f"{job['output']['path']}@9", job["output"]["path"])
    assert missing.exit_code == 1
    assert "there is no version 9 (there are: 1, 2)" in missing.stderr
    nothing = invoke(str(tmp_path / "none"), job["output"]["path"])
    assert nothing.exit_code == 1
    assert "nothing has been committed here yet" in nothing.stderr
