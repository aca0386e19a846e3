import io
import json
import logging

import pytest

from barycenter.infra import logs
from barycenter.infra.logs import JsonLines, bound, log_options, say, set_up_logs, shown_logs


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


@pytest.fixture
def package(monkeypatch):
    """A package of its own for what is shown, so that no handler of the tests' is in the way."""
    name = "package_shown_by_test_logs"
    monkeypatch.setattr(logs, "PACKAGE", name)
    monkeypatch.setattr(logs, "_shown", logs._Shown())
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    return logger


@pytest.mark.parametrize("level", [logging.INFO, logging.CRITICAL, None])
def test_a_line_is_shown_once_whether_or_not_another_console_shows_it(package, capsys, level):
    """As Prefect's console does of whatever a worker runs; the command line sets it to CRITICAL."""
    console = logging.StreamHandler()
    console.setLevel(level or logging.NOTSET)
    if level is not None:
        package.addHandler(console)
    say(package, "fit: 40/40 rows")
    package.removeHandler(console)
    assert capsys.readouterr().err.splitlines() == ["fit: 40/40 rows"]


@pytest.mark.parametrize(
    ("log_format", "verbosity", "options"),
    [
        (None, 0, ()),
        (None, 1, ("-v",)),
        (None, 5, ("-vv",)),
        ("json", -1, ("--log-format", "json", "-q")),
        ("text", -2, ("--log-format", "text", "-qq")),
    ],
)
def test_the_options_can_be_passed_on(package, log_format, verbosity, options):
    with shown_logs(log_format, verbosity):
        assert log_options() == options
    assert log_options() == ()
