import io
import json
import logging

import pytest

from barycenter.infra import logs
from barycenter.infra.logs import JsonLines, bound, set_up_logs


@pytest.fixture
def logged():
    """Records of one logger as JSON lines."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("barycenter.infra.test_logs")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield logger, lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    logger.removeHandler(handler)


def test_every_line_knows_run_stage_and_shard(logged):
    logger, lines = logged
    with bound(run="emoji"):
        with bound(stage="embed text"):
            logger.info("%s done", "s1", extra={"shard": "s1", "rows": 20})
        logger.warning("between stages")
    logger.info("outside")
    inner, between, outside = lines()
    assert inner["run"] == "emoji"
    assert (inner["stage"], inner["shard"], inner["rows"]) == ("embed text", "s1", 20)
    assert (inner["level"], inner["message"], inner["logger"]) == ("info", "s1 done", "barycenter.infra.test_logs")
    assert "stage" not in between
    assert between["run"] == "emoji"
    assert "run" not in outside
    assert inner["time"].endswith("+00:00")


def test_an_error_stays_on_its_line(logged):
    logger, lines = logged
    try:
        raise ValueError("a\nb")
    except ValueError:
        logger.exception("failed")
    (line,) = lines()
    assert "ValueError: a\nb" in line["error"]


def test_json_only_where_asked_for(monkeypatch):
    name = "package_of_test_logs"
    monkeypatch.setattr(logs, "PACKAGE", name)
    monkeypatch.setattr(logs, "_shown", logs._shown)  # put back afterwards
    monkeypatch.delenv("BARYCENTER_LOG", raising=False)
    set_up_logs()
    assert not logging.getLogger(name).handlers
    monkeypatch.setenv("BARYCENTER_LOG", "json")
    set_up_logs()
    set_up_logs()
    (handler,) = logging.getLogger(name).handlers
    assert isinstance(handler.formatter, JsonLines)
