"""Pretrained encoders on real pictures and texts, through the command."""

import json

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app
from tests.flows.corpora import write_job, write_lines

pytestmark = [pytest.mark.slow, pytest.mark.shared, pytest.mark.usefixtures("prefect_server")]


def test_minilm_and_mobilenet_on_emoji(shared, minilm, tmp_path):
    data = shared / "data" / "emojitwo"
    lines = (data / "metadata.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines[:: len(lines) // 64]][:64]
    pictures = data / "images" if (data / "images").is_dir() else data
    for row in rows:
        row["image"] = str(pictures / row["image"])
    job = {
        "name": "emoji",
        "corpus": {
            "path": str(write_lines(tmp_path / "rows.jsonl", rows)),
            "key": "id",
            "keep": ["label", "base"],
            "rows_per_shard": 32,
        },
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": str(minilm), "batch": 1024},
            "image": {
                "kind": "image",
                "column": "image",
                "encoder": "torchvision/mobilenet_v2",
                "weights": str(shared / "weights" / "mobilenet_v2" / "mobilenet_v2.safetensors"),
                "batch": 8,
            },
        },
        "alignment": {"dim": 16},
        "output": {"path": str(tmp_path / "out")},
        "limits": {"outside_corpus": True},
        "train": {"target": "label", "group_by": "base"},
        "ray": {"address": "none", "threads_per_worker": 2},
    }
    result = CliRunner().invoke(app, ["run", str(write_job(tmp_path / "job.yaml", job))])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "out" / "report" / "report.json").read_text())
    assert report["rows"]["read"] == report["rows"]["written"] == 64
    assert report["rows"]["missing"] == {"text": 0, "image": 0}
    assert set(report) >= {"rows", "alignment", "retrieval", "probe", "speed"}
    assert set(report["probe"]["candidates"]) >= {"text", "image", "naive_mean", "concat", "concat_imputed", "fused"}
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert {name: entry["dim"] for name, entry in manifest["inputs"].items()} == {"text": 384, "image": 1280}
