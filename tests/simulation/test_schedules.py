"""Schedules of the run from dispatch to commit hold; with a fault planted into the code, one fails."""

import json
from functools import partial

import pytest

from tests.simulation import __main__ as command
from tests.simulation.planted import FAULTS, planted
from tests.simulation.run import explore, first_failure, shorten, trace_of

RARE = ("parent", "fences", "intention settled", "condition", "frees numbers")


def test_schedules_hold_and_a_seed_is_one_schedule():
    tally = explore(0, 120)
    assert [f"SEED={failure.seed}: {failure.error}" for failure in tally.failures] == []
    assert all(tally.checks.values())
    assert len(tally.checks) >= 12
    assert explore(0, 20).steps == explore(0, 20).steps


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) if any(each in name for each in RARE) else name for name in FAULTS],
)
@pytest.mark.timeout(600)
def test_a_planted_fault_is_found(name):
    assert first_failure(2000, partial(planted, name)) is not None


def test_a_failure_is_shortened_and_shown_step_by_step():
    name = "a collection in the wrong order"
    failure = first_failure(200, partial(planted, name))
    with planted(name):
        short = shorten(failure)
        lines = trace_of(short)
    assert short.invariant == failure.invariant == "kept"
    assert len(short.scenario.actors) <= len(failure.scenario.actors)
    assert len(short.actions) < len(failure.actions)
    assert "unlink" in lines[-1] or "delete" in lines[-1]


def test_the_command_ends_with_one_line_of_json(capsys):
    assert command.main(["N=4", "WORKERS=1"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert json.loads(said[-1])["schedules"] == 4


@pytest.mark.slow
def test_whole_runs_hold():
    from tests.simulation.whole import explore_whole  # imports all stages, for seconds

    assert explore_whole(0, 3)["failed"] == {}
