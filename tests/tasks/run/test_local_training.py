"""Training in the calling process stops when the time of the run is over."""

import pytest
import torch

from barycenter.fusion.errors import DeadlineError
from barycenter.fusion.training.context import Checkpoint
from barycenter.fusion.training.loop import train
from barycenter.infra.clock import use_clock
from barycenter.infra.deadline import deadline_in, until
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.storage import Storage
from barycenter.tasks.run.workers import THIS_PROCESS
from tests.infra.simulation import SimulatedClock


def test_it_stops_at_the_step_at_which_the_time_is_over_and_leaves_the_module_as_it_was(tmp_path):
    clock, module, taken = SimulatedClock(), torch.nn.Linear(1, 1), []

    def loss(parallel, batch):
        found = parallel(batch).sum()
        clock.sleep(3600)
        taken.append(clock.now)
        return found

    def loop(context, _):
        optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
        batches = [torch.ones(1, 1)] * 9
        train(context, module, optimizer, loss, lambda _: batches, steps=9, steps_per_epoch=9, seed=0, save_every=9)
        return Checkpoint(9, {})

    def run():
        where = {"storage": Storage(str(tmp_path)), "folder": "training", "name": "test"}
        THIS_PROCESS.train(loop, {}, allocation=WorkerAllocation(1, 1, cpus_per_worker=1.0), **where)

    with use_clock(clock):
        with until(deadline_in(2.5 * 3600, "limits.deadline (150m)")), pytest.raises(DeadlineError):
            run()
        assert len(taken) == 3
        run()
        assert len(taken) == 3 + 9
    assert not module._forward_pre_hooks
