"""The report of a corpus whose texts are hostile and whose labels are drawn by lot."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import barycenter.tasks.report.stage
from barycenter.flows.cli import app
from tests.browser import DESKTOP, PHONE, chromium, opened
from tests.flows.corpora import run_here, write_job, write_lines

ROWS = 200
HOSTILE = (
    "<script>document.title='pwned';alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style></title><svg onload=alert(1)>",
    "\u202eمرحبا שלום\u202c",
    "👩‍👩‍👧‍👦🏳️‍🌈",
    "w" * 10_000,
    "[link](javascript:alert(1)) `$x$` | {{ 7 * 7 }}",
)
LABELS = ("<script>alert('label')</script>", "\u202eتسمية", "🏳️‍🌈 " + "l" * 300)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """The job, its report and its output folder; the label has nothing to do with text or picture."""
    folder = tmp_path_factory.mktemp("hostile")
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    rows = []
    for number in range(ROWS):
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        picture = Image.new("RGB", (24, 24), color)
        picture.save(folder / "images" / f"{number}.png")
        words = rng.choice(["red", "small", "new", "kite"], 3)
        rows.append(
            {
                "id": f"<b>{number:03d}</b>",
                "text": f"{' '.join(words)} {HOSTILE[number % len(HOSTILE)]}",
                "image": f"images/{number}.png" if number % 10 else "images/missing.png",
                "label": LABELS[int(rng.integers(len(LABELS)))],
            }
        )
    corpus = write_lines(folder / "metadata.jsonl", rows)
    job = {
        "name": "<i>hostile</i>",
        "corpus": {"path": str(corpus), "key": "id", "keep": ["label"], "rows_per_shard": 64},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing", "batch": 512},
            "image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor", "batch": 16},
        },
        "alignment": {"method": "joint", "dim": 16},
        "output": {"path": str(folder / "out")},
        "train": {"target": "label"},
        "ray": {"workers": 1, "threads_per_worker": 1},
    }
    return job, run_here(job, drawn=True), folder / "out"


def test_labels_drawn_by_lot_are_no_signal(hostile):
    _, report, _ = hostile
    for probe in (report["probe"], report["probe"]["cross_validated"]):
        assert not probe["signal"]["found"]
        low, high = probe["intervals"]["fused"]["complete"]
        assert low <= probe["baseline"] + 0.05
        assert high >= 1 / 3 - 0.05
    assert barycenter.tasks.report.stage.markdown(report).splitlines()[2].startswith("**No signal:")


def test_report_json_has_its_evidence_and_stays_small(hostile):
    _, report, out = hostile
    probe, alignment = report["probe"], report["alignment"]
    assert set(probe["intervals"]) == set(probe["candidates"])
    assert [point["dim"] for point in probe["dimensions"]] == [4, 8, 16]
    assert all(point["low"] <= point["complete"] <= point["high"] for point in probe["dimensions"])
    assert len(alignment["test_correlations"]) == alignment["dim"]
    assert 0 < alignment["noise_edge"] < 1
    assert (out / "report" / "report.json").stat().st_size < 50_000
    samples = json.loads((out / "report" / "samples.json").read_text())
    assert {case["good"] for case in samples["neighbors"]} <= {True, False}
    assert any("thumbnail" in case for case in samples["neighbors"])
    assert all(len(case["text"]) <= 400 for case in samples["neighbors"])
    assert len(samples["map"]["x"]) == ROWS
    assert [row["key"] for row in samples["errors"]] == [row["key"] for row in report["mistakes"]["worst"]]
    assert any("thumbnail" in row for row in samples["errors"])
    assert report["answers"]["verdict"]["tone"] == "none"


def _written(out):
    """When each file was written, but for those of the newest run: report, lease and progress."""
    own = {"report", "lease", "progress.json"}
    files = [path for path in out.rglob("*") if path.is_file() and not own & set(path.parts)]
    return {path: path.stat().st_mtime_ns for path in files}


def test_the_report_is_rebuilt_without_computing_anything(hostile, prefect_server, monkeypatch, tmp_path):
    job, report, out = hostile
    before = _written(out)
    (out / "report" / "report.html").unlink()

    def refuse(*_args, **_more):
        raise AssertionError("computed again")

    for name in (
        "probe_rows",
        "retrieval",
        "neighbor_examples",
        "project_to_plane",
        "dimension_curve",
        "learning_curve",
        "error_examples",
    ):
        monkeypatch.setattr(barycenter.tasks.report.stage, name, refuse)
    result = CliRunner().invoke(app, ["report", str(write_job(tmp_path / "job.yaml", job))])
    assert result.exit_code == 0, result.output
    assert "No signal" in " ".join(result.stdout.split())
    assert (out / "report" / "report.html").stat().st_size > 10_000
    assert json.loads((out / "report" / "report.json").read_text()) == json.loads(json.dumps(report))
    after = _written(out)
    assert after == before


def test_hostile_texts_render_safely_in_a_browser(hostile):
    path = Path(hostile[2]) / "report" / "report.html"
    with chromium() as browser:
        for size in (PHONE, DESKTOP):
            for scheme in ("light", "dark"):
                result = opened(browser, path, size, scheme)
                assert result.said == []
                assert result.asked == []
                assert result.overflow <= 0
                assert "hostile" in result.page.title()
                assert result.page.evaluate("() => document.scripts.length") == 0
                shown = result.page.evaluate("() => document.body.innerText")
                assert "<script>" in shown
                assert "pwned" not in result.page.title()


def test_neighbors_of_a_hostile_key(hostile):
    result = CliRunner().invoke(app, ["neighbors", str(hostile[2]), "--key", "<b>007</b>", "--top", "3"])
    assert result.exit_code == 0, result.output
    assert "<b>007</b>" not in result.stdout
    assert result.stdout.count("<b>") == 3
