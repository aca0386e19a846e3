"""Which log records go to the page of a run, and how many."""

import logging
import uuid

import pytest
from prefect.logging.handlers import set_api_log_sink

from barycenter.infra.clock import use_clock
from barycenter.infra.logs import bound
from barycenter.tasks.observability import run_page
from barycenter.tasks.observability.run_page import _PageHandler
from tests.infra.simulation import SimulatedClock


@pytest.fixture
def clock():
    clock = SimulatedClock()
    with use_clock(clock):
        yield clock


@pytest.fixture
def page(clock):
    """Two loggers whose records go to a page, and the lines there."""
    lines = []
    set_api_log_sink(lines.append)
    handler = _PageHandler(None)
    handler._run = str(uuid.uuid4())
    logger = logging.getLogger("barycenter.tests.page")
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    yield logger, lines
    logger.removeHandler(handler)
    set_api_log_sink(None)


def test_a_line_has_its_run_level_and_stage(page):
    logger, lines = page
    logger.debug("a detail")
    with bound(stage="fit"):
        logger.info("%d rows", 3)
        logger.warning("fit: slow")
    assert [(line["message"], line["level"]) for line in lines] == [("fit: 3 rows", 20), ("fit: slow", 30)]
    assert len({line["flow_run_id"] for line in lines}) == 1


def test_lines_that_come_too_fast_are_left_out_and_counted_but_no_warning(page, clock, monkeypatch):
    monkeypatch.setattr(run_page, "_LINES_AT_ONCE", 5)
    logger, lines = page
    logger.handlers[-1]._room = 5.0
    for number in range(8):
        logger.info("line %d", number)
    logger.warning("a warning")
    clock.sleep(1)
    logger.info("later")
    assert [line["message"] for line in lines] == [
        *(f"line {number}" for number in range(5)),
        "a warning (3 lines before this one are left out here)",
        "later",
    ]
