import pytest

from barycenter.fusion.errors import DeadlineError
from barycenter.infra.clock import use_clock
from barycenter.infra.deadline import check_deadline, deadline_in, until
from barycenter.infra.dispatch.api import Work, dispatch
from barycenter.infra.dispatch.in_process import InProcessExecutor
from barycenter.infra.logs import bound, bound_fields
from barycenter.infra.storage import Storage
from barycenter.infra.versions.lease import acquire, newest_term
from barycenter.tasks.observability.progress import StageProgress
from tests.infra.simulation import SimulatedClock


@pytest.fixture
def clock():
    clock = SimulatedClock()
    with use_clock(clock):
        yield clock


def test_it_passes_after_its_time_and_says_where(clock):
    check_deadline()
    with until(deadline_in(60, "limits.deadline (1m)")):
        clock.sleep(59)
        check_deadline()
        clock.sleep(1)
        with bound(stage="fit"), pytest.raises(DeadlineError) as caught:
            check_deadline()
    assert str(caught.value).startswith("limits.deadline (1m) is over: stopped in stage fit; what is done stays done")
    check_deadline()


def test_it_says_that_it_passed_before_the_first_stage_while_waiting_or_as_a_stage_begins(clock):
    with until(deadline_in(60, "limits.deadline (1m)")):
        clock.sleep(61)
        with pytest.raises(DeadlineError, match="is over: stopped in stage plan;"):
            check_deadline()
        with pytest.raises(DeadlineError, match="is over: stopped while waiting for the output;"):
            check_deadline("while waiting for the output")
        with (
            pytest.raises(DeadlineError, match="is over: stopped in stage embed text;"),
            StageProgress("embed text", 1),
        ):
            pass
    assert bound_fields() == {}


def test_of_two_the_sooner_counts(clock):
    with until(deadline_in(60, "one")), until(deadline_in(600, "other")), until(deadline_in(None, "none")):
        clock.sleep(61)
        with pytest.raises(DeadlineError, match=r"^one is over"):
            check_deadline()
    with until(deadline_in(600, "one")), until(deadline_in(60, "other")):
        clock.sleep(61)
        with pytest.raises(DeadlineError, match=r"^other is over"):
            check_deadline()


CLOCK = SimulatedClock()


class Hourly:
    def run(self, payload):
        CLOCK.sleep(3600)
        return payload


def test_units_that_were_done_stay_done():
    done = []
    units = [Work(str(number), number, 1) for number in range(9)]
    with use_clock(CLOCK), until(deadline_in(2.5 * 3600, "limits.deadline (150m)")), pytest.raises(DeadlineError):
        dispatch(units, InProcessExecutor(Hourly, (), 1), on_done=lambda _, number: done.append(number))
    assert done == [0, 1, 2]


def test_who_waits_for_an_output_stops_waiting(clock, tmp_path):
    storage = Storage(str(tmp_path))
    holder = acquire(storage, "run nightly")
    with until(deadline_in(30, "limits.deadline (30s)")), pytest.raises(DeadlineError):
        acquire(storage, "run late")
    assert newest_term(storage).number == holder.number
