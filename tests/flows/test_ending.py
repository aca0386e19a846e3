"""How a flow's function ends its run; the states themselves are in test_run_page.py."""

import cloudpickle
import pytest

from barycenter.flows import pipeline, stages
from barycenter.fusion.errors import JobError


@pytest.mark.parametrize(
    "flow", [pipeline.pipeline, stages.embed, stages.align, stages.fuse, stages.train, stages.report]
)
def test_a_flow_can_be_sent_to_the_process_that_runs_it(flow):
    """As ``serve`` does: a function that a decorator made is pickled with all that it refers to."""
    assert cloudpickle.loads(cloudpickle.dumps(flow)).name == flow.name


def test_outside_of_a_flow_run_the_function_is_itself():
    with pytest.raises(JobError):
        stages.embed.fn("/nowhere/job.yaml")
