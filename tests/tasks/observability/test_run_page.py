"""Which log records go to the page of a run, and how many."""

import logging
import uuid

import pytest
from prefect.logging.handlers import set_api_log_sink

from barycenter.infra.clock import use_clock
from barycenter.infra.logs import bound
from barycenter.tasks.observability.run_page import _PageHandler, _Rate
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


def test_lines_that_come_too_fast_are_left_out_and_counted_but_no_warning(page, clock):
    logger, lines = page
    logger.handlers[-1]._rate = _Rate(1.0, 5)
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


def test_lines_about_shards_leave_room_for_the_others(page, clock):
    logger, lines = page
    for number in range(100):
        logger.info("%d done", number, extra={"shard": str(number)})
        clock.sleep(0.1)
    logger.info("embedded")
    shown = [line["message"] for line in lines]
    assert shown[:10] == [f"{number} done" for number in range(10)]
    assert 11 <= len(shown) <= 14
    assert shown[-1].startswith("embedded")
