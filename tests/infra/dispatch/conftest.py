import pytest

from barycenter.infra.clock import use_clock
from tests.infra.simulation import SimulatedClock


@pytest.fixture
def clock():
    clock = SimulatedClock()
    with use_clock(clock):
        yield clock
