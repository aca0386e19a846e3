"""How many workers of which size a cluster is asked for."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.job.places import WorkerRange
from barycenter.infra.ray.sizing import Machines, Node, NodeGroup

GIB = 2**30
SMALL, LARGE = Node(4, 0), Node(16, 4)


def machine(*nodes):
    return Machines("local", tuple(Node(*node) for node in nodes), own=True)


@pytest.mark.parametrize(
    ("nodes", "asked", "plan"),
    [
        ([(2, 0)], {}, WorkerAllocation(1, 2, 0, 2)),
        ([(1, 0)], {}, WorkerAllocation(1, 1, 0, 1)),
        ([(16, 0)], {}, WorkerAllocation(4, 4, 0, 4)),
        ([(16, 0)], {"rows": 300}, WorkerAllocation(2, 4, 0, 4)),
        ([(16, 0)], {"rows": 0}, WorkerAllocation(1, 4, 0, 4)),
        ([(2, 0)], {"workers": 2}, WorkerAllocation(2, 1, 0, 1)),
        ([(2, 0)], {"workers": 4}, WorkerAllocation(4, 1, 0, 0.5)),
        ([(2, 0)], {"workers": 1, "threads": 8}, WorkerAllocation(1, 8, 0, 2)),
        ([(2, 0)], {"threads": 1}, WorkerAllocation(2, 1, 0, 1)),
        ([(0, 0), (4, 0), (8, 0)], {}, WorkerAllocation(3, 4, 0, 4)),
        ([(2, 2)], {"gpus": 0.5}, WorkerAllocation(4, 1, 0.5, 0.5)),
        ([(16, 4)], {}, WorkerAllocation(4, 4, 1, 4)),
        ([(64, 8), (64, 0)], {}, WorkerAllocation(8, 8, 1, 8)),
        ([(16, 4)], {"gpus": 2}, WorkerAllocation(2, 8, 2, 8)),
        ([(16, 4)], {"gpus": 0}, WorkerAllocation(4, 4, 0, 4)),
    ],
)
def test_a_split_uses_the_machines_and_places_every_worker(nodes, asked, plan):
    got = machine(*nodes).allocate_workers(**asked)
    assert got == plan
    assert sum(Node(*node).holds(got.cpus, got.gpus_per_worker) for node in nodes) >= got.workers


def test_ranks_are_no_more_than_run_at_once():
    """Other workers than these may take turns at the GPUs."""
    four = machine((16, 2))
    assert four.allocate_workers(workers=4).workers == 4
    assert four.allocate_ranks(workers=4) == replace(four.allocate_workers(workers=4), workers=2)
    assert machine((2, 0)).allocate_ranks(workers=4) == machine((2, 0)).allocate_workers(workers=4)


def test_workers_are_placed_on_unequal_nodes():
    plan = machine((3, 0), (1, 0)).allocate_workers(workers=3, threads=2)
    assert plan.threads == 2
    assert sum(node.holds(plan.cpus, 0) for node in machine((3, 0), (1, 0)).nodes) >= 3


@pytest.mark.parametrize("gpus", [1, 0.5, 1.5])
def test_gpus_that_are_not_there_name_the_key(gpus):
    with pytest.raises(JobError, match=r"^ray\.gpus_per_worker: "):
        machine((2, 0)).allocate_workers(gpus=gpus)


def test_a_cluster_without_cpus_is_one_line():
    with pytest.raises(RunError, match="no node with a CPU"):
        machine((0, 0)).allocate_workers()


def joined(*nodes, groups=(), grows=False):
    return Machines("head:6379", tuple(Node(*node) for node in nodes), tuple(groups), grows)


def size(allocation):
    return allocation.workers, allocation.threads, allocation.gpus_per_worker, allocation.cpus, allocation.at_first


EMPTY = [(0, 0)]


@pytest.mark.parametrize(
    ("machines", "asked", "wanted"),
    [
        (joined((2, 0)), {"workers": 8}, (8, 2, 0, 2, None)),
        (joined((2, 0)), {"workers": 8, "threads": 4}, (8, 4, 0, 2, None)),
        (joined((16, 0)), {}, (4, 4, 0, 4, None)),
        (joined((16, 2)), {}, (2, 8, 1, 8, None)),
        (joined(*EMPTY, grows=True), {"rows": 2560}, (10, 1, 0, 1, 2)),
        (joined(*EMPTY, grows=True), {"rows": 0}, (1, 1, 0, 1, 1)),
        (joined(*EMPTY, grows=True), {"workers": 8, "threads": 4}, (8, 4, 0, 4, None)),
        (joined(*EMPTY, grows=True), {"gpus": 1, "rows": 2560}, (10, 1, 1, 1, 2)),
        (joined((4, 0), grows=True), {"rows": 256 * 100}, (100, 4, 0, 4, 2)),
        (joined(*[(4, 0)] * 5, grows=True), {"rows": 256 * 100}, (100, 4, 0, 4, 5)),
        (joined(*EMPTY), {"workers": WorkerRange(max=6), "rows": 10**6}, (6, 1, 0, 1, 2)),
        (joined(*EMPTY), {"workers": WorkerRange(min=3, max=6), "rows": 100}, (3, 1, 0, 1, 3)),
        (joined(*EMPTY), {"workers": WorkerRange(max=6), "gpus": 1, "rows": 10**6}, (6, 1, 1, 1, 2)),
        (joined(*EMPTY, groups=[NodeGroup(SMALL, 3)]), {"rows": 10**6}, (3, 4, 0, 4, 2)),
        (joined(*EMPTY, groups=[NodeGroup(SMALL, None)]), {"rows": 10**6}, (256, 4, 0, 4, 2)),
        (joined(*EMPTY, groups=[NodeGroup(SMALL, 3), NodeGroup(LARGE, 2)]), {"rows": 10**6}, (8, 4, 1, 4, 2)),
        (joined((4, 0), groups=[NodeGroup(SMALL, 3)]), {"rows": 10**6}, (3, 4, 0, 4, 2)),
        (joined((4, 0), (4, 0), groups=[NodeGroup(SMALL, 1)]), {"rows": 10**6}, (2, 4, 0, 4, 2)),
        (joined((8, 0), groups=[NodeGroup(SMALL, 3)]), {"rows": 10**6}, (5, 4, 0, 4, 2)),
    ],
)
def test_a_cluster_that_grows_is_asked_for_what_the_work_is_worth(machines, asked, wanted):
    assert size(machines.allocate_workers(**asked)) == wanted


@pytest.mark.parametrize(
    ("nodes", "workers", "wanted"),
    [([(16, 0)], WorkerRange(max=2), 2), ([(16, 0)], WorkerRange(min=6, max=8), 6), ([(2, 0)], WorkerRange(max=9), 1)],
)
def test_on_a_machine_of_its_own_a_range_is_kept_to(nodes, workers, wanted):
    got = machine(*nodes).allocate_workers(workers)
    assert got.workers == wanted
    assert sum(Node(*node).holds(got.cpus, 0) for node in nodes) >= wanted


def test_inputs_side_by_side_get_smaller_workers():
    assert size(machine((2, 0)).allocate_workers(inputs=2))[:2] == (2, 1)
    assert size(machine((8, 0)).allocate_workers(inputs=2))[:2] == (4, 2)
    assert size(machine((64, 0)).allocate_workers(inputs=3))[:2] == (16, 4)


@pytest.mark.parametrize(("cpus", "alone", "beside"), [(8, 8, 7), (32, 8, 8), (1, 1, 1)])
def test_a_worker_with_a_gpu_leaves_a_cpu_to_an_input_beside_it(cpus, alone, beside):
    assert machine((cpus, 1)).allocate_workers(gpus=1).threads == alone
    assert machine((cpus, 1)).allocate_workers(gpus=1, inputs=2).threads == beside


def test_memory_is_reserved_where_every_node_says_what_it_has():
    two = Machines("local", (Node(8, 0, 3 * GIB), Node(8, 0, 16 * GIB)), own=True)
    got = two.allocate_workers(threads=1, memory=2 * GIB)
    assert (got.workers, got.memory) == (9, 2 * GIB)
    assert two.allocate_workers(memory=99 * GIB).memory == 16 * GIB, "the largest node is the most that can be had"
    assert replace(two, nodes=(*two.nodes, Node(8, 0))).allocate_workers(memory=GIB).memory == 0
    assert joined(*EMPTY, grows=True).allocate_workers(memory=GIB).memory == 0


@pytest.mark.parametrize("groups", [(), [NodeGroup(SMALL, 3)]])
def test_a_share_of_gpus_that_never_comes_names_the_key(groups):
    with pytest.raises(JobError, match=r"^ray\.gpus_per_worker: 1 asked for, but no node"):
        joined((4, 0), groups=groups).allocate_workers(gpus=1)


def test_a_cluster_without_cpus_that_does_not_grow_says_what_to_do():
    with pytest.raises(RunError, match=r"no node with a CPU, .* ray\.workers: \{max: N\}"):
        joined(*EMPTY).allocate_workers()


@pytest.mark.parametrize(
    ("machines", "asked", "wanted"),
    [
        (joined(*EMPTY, grows=True), {}, 1),
        (joined(*EMPTY, grows=True), {"workers": 8}, 8),
        (joined(*EMPTY, groups=[NodeGroup(LARGE, 2)]), {"workers": 99}, 8),
        (joined((16, 4), grows=True), {}, 4),
    ],
)
def test_ranks_are_no_more_than_may_run_at_once(machines, asked, wanted):
    assert machines.allocate_ranks(**asked).workers == wanted


@given(
    nodes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3)), max_size=4),
    groups=st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3), st.integers(0, 5)), max_size=3),
    workers=st.one_of(st.just("auto"), st.integers(1, 9)),
    rows=st.one_of(st.none(), st.integers(0, 10**5)),
)
def test_every_worker_that_is_asked_for_fits_on_a_node_that_may_come(nodes, groups, workers, rows):
    kinds = [NodeGroup(Node(cpus, gpus), most) for cpus, gpus, most in groups]
    machines = joined(*nodes, groups=kinds, grows=True)
    got = machines.allocate_workers(workers, rows=rows)
    shapes = [Node(*node) for node in nodes] + [kind.node for kind in kinds]
    usable = [shape for shape in shapes if shape.cpus]
    assert got.workers >= 1
    if usable and any(shape.gpus >= got.gpus_per_worker for shape in usable):
        assert any(shape.holds(got.cpus, got.gpus_per_worker) for shape in usable)
