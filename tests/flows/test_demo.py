"""The demo as a user gets it: the label needs both inputs, and the fused vector predicts it."""

import json

import pytest
from typer.testing import CliRunner

from barycenter.flows.cli import app

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ray_session", "prefect_server")]


def test_fused_beats_each_input_alone(tmp_path):
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "features" / "report" / "report.json").read_text())
    candidates = report["probe"]["candidates"]
    for name in ("text", "image"):
        assert candidates["fused"]["complete"] >= candidates[name]["complete"] + 0.10
    for line in ("features", "manifest", "report"):
        assert line in result.stdout
    again = CliRunner().invoke(app, ["inspect", str(tmp_path / "features"), "--verify"])
    assert again.exit_code == 0, again.output
    assert " as in the manifest" in again.stdout
    for line in ("sources", "built on", "made by", "builtin/hashing"):
        assert line in again.stdout
