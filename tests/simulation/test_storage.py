"""The simulated disk and bucket: what the operating system and S3 do, and what they may do to a writer."""

import itertools

import pytest

from barycenter.fusion.errors import RunError
from barycenter.infra.storage import Storage
from tests.simulation.objects import LATEST_SECONDS
from tests.simulation.schedule import Replay
from tests.simulation.world import World, current_world, entered, simulated


def played(kind, body, actions=None, contents=None, power=False):
    """Runs a body in one process ``p``; the world and its errors afterwards."""
    world = World(kind, 0, Replay(actions or {}), contents, page=2)
    with simulated(), entered(world):
        if power:
            world.kernel.on_event["power"] = world.lose_power
        world.start("p", lambda: body(world.storage()))
        world.start("q", lambda: world.kernel.sleep(2 * LATEST_SECONDS))
        world.kernel.run()
    del world.outcomes["q: done"]
    return world


@pytest.mark.parametrize("kind", ["local", "linkless", "s3"])
def test_the_storage_is_the_storage(kind):
    seen = []

    def body(storage):
        storage.write("a/b", b"one")
        storage.write("a/b", b"two")
        seen.extend([storage.create("a/c", b"c"), storage.create("a/c", b"d"), storage.read("a/c")])
        storage.write("large", b"x" * 1000)
        seen.extend([storage.list(), storage.sizes("a"), storage.exists("a/b"), storage.exists("a")])
        seen.extend([storage.replace("a/b", b"three", b"one"), storage.replace("a/b", b"four", b"two")])
        with storage.open("a/b") as stream:
            seen.append(stream.read())
        storage.remove(["a/b", "a/c", "never"])
        seen.append(storage.list())
        assert Storage(storage.root) == storage

    played(kind, body)
    assert seen == [
        *(True, False, b"c"),
        *(["a/b", "a/c", "large"], {"a/b": 3, "a/c": 1}, True, False),
        *(False, True, b"four", ["large"]),
    ]


def torn(actions):
    """Whether a file that was written before the power went is there, and whole."""
    world = played("local", lambda storage: storage.write("a/b", b"content"), actions, power=True)
    return world.store.contents().get("a/b")


def test_what_was_written_and_synced_outlasts_the_power():
    steps = played("local", lambda storage: storage.write("a/b", b"content")).kernel.steps
    states = {torn({f"p#{step}": ("power",)}) for step in range(1, steps + 1)}
    assert states <= {None, b"content"}
    assert None in states

    def body(storage):
        storage.write("a/b", b"content")
        storage.write("c/d", b"later")

    for step in range(steps + 1, steps + 5):
        world = played("local", body, {f"p#{step}": ("power",)}, power=True)
        assert world.store.contents()["a/b"] == b"content"


def test_a_file_lasts_in_folders_that_another_process_made_and_did_not_sync():
    """The other is killed at each of its steps; the folder of the output is not there before."""
    steps = played("local", lambda storage: storage.write("a/b", b"content")).kernel.steps
    for step, seed in itertools.product(range(1, steps + 1), range(6)):
        world = World("local", seed, Replay({f"p#{step}": ("kill",)}))

        def late(world=world):
            world.kernel.sleep(10)
            world.storage().create("a/c", b"late")

        with simulated(), entered(world):
            world.start("p", lambda world=world: world.storage().write("a/b", b"content"))
            world.start("q", late)
            world.kernel.run()
            world.lose_power()
        assert world.store.contents().get("a/c") == b"late", f"killed at step {step}"


@pytest.mark.parametrize("kind", ["local", "linkless"])
def test_a_file_of_a_killed_process_lasts_once_another_has_synced_its_folders(kind):
    """It is killed at each of its steps, between the name's being there and its being synced, too."""
    steps = played(kind, lambda storage: storage.create("a/b", b"content")).kernel.steps
    seen = set()
    for step, seed in itertools.product(range(1, steps + 1), range(6)):
        world = World(kind, seed, Replay({f"p#{step}": ("kill",)}))

        def look(world=world, step=step):
            world.kernel.sleep(10)
            if world.storage().exists("a/b"):
                world.storage().sync_folders(["", "a", "never"])
                seen.add((step, world.seed))

        with simulated(), entered(world):
            world.start("p", lambda world=world: world.storage().create("a/b", b"content"))
            world.start("q", look)
            world.kernel.run()
            world.lose_power()
        if (step, world.seed) in seen:
            assert world.store.contents().get("a/b") == b"content", f"killed at step {step}"
    assert len({step for step, _ in seen}) > 1


def test_what_was_not_synced_may_be_lost_or_torn():
    found = set()
    for seed in range(40):
        world = World("local", seed, Replay({"p#99": ("power",)}))
        disk = world.store

        def body(disk=disk, world=world):
            folder = "/world/out"
            disk.make_folder("/world")
            disk.make_folder(folder)
            for above in ("/", "/world"):
                disk.sync_folder(above)
            with disk.open_new(f"{folder}/t") as stream:
                stream.write(b"content")
            disk.replace(f"{folder}/t", f"{folder}/file")
            disk.sync_folder(folder)
            world.lose_power()

        with simulated(), entered(world):
            world.start("p", body)
            world.kernel.run()
        found.add(disk.contents().get("file"))
    assert {b"", b"content", bytes(7)} <= found
    assert any(each not in (b"", b"content", bytes(7)) for each in found)


@pytest.mark.parametrize("fault", ["slow_down", "server_error", "timeout", "lost_answer", "conflict"])
def test_s3_faults_in_passing_are_tried_again(fault):
    def body(storage):
        assert storage.create("a/b", b"one")
        assert storage.read("a/b") == b"one"

    world = played("s3", body, {"p#1": (fault,)})
    assert world.outcomes == {"p: done": 1}


def test_a_late_request_arrives_after_its_sender_has_gone_on():
    def body(storage):
        storage.write("a", b"first")
        storage.write("a", b"second")

    world = played("s3", body, {"p#1": ("late",)})
    assert world.store.contents() == {"a": b"first"}


def test_a_request_under_way_outlives_its_sender():
    world = played("s3", lambda storage: storage.write("a", b"sent"), {"p#1": ("kill_sent",)})
    assert (world.outcomes, world.store.contents()) == ({"p: killed": 1}, {"a": b"sent"})


def test_a_full_disk_is_one_line():
    world = played("local", lambda storage: storage.write("a", b"1"), {"p#1": ("full",)})
    assert world.outcomes == {"p: RunError": 1}
    assert "no space left" in world.errors["p"]


def test_a_fault_while_another_is_handled_is_tried_again():
    def body(storage):
        try:
            storage.read("nowhere")
        except RunError:
            storage.write("a", b"1")

    world = played("s3", body, {"p#2": ("timeout",)})
    assert world.outcomes == {"p: done": 1}


def beside(kind, first, second, step, fault=None):
    """Runs ``second`` in another process at a step of ``first``; the errors."""
    world = World(kind, 0, Replay({f"p#{step}": ("switch", "q")} | ({"p#1": (fault,)} if fault else {})))
    with simulated(), entered(world):
        world.start("p", lambda: first(world.storage()))
        world.start("q", lambda: second(world.storage()))
        world.kernel.run()
    return world.errors


@pytest.mark.parametrize("kind", ["local", "linkless"])
def test_a_create_begins_again_when_its_temporary_file_is_taken_away(kind):
    taken = []

    def create(storage):
        assert storage.create("a/b", b"1")
        assert storage.list() == ["a/b"]

    def clear(storage):
        temporary = [path for path in storage.list() if storage.is_temporary(path) and ".claim." not in path]
        storage.remove(temporary)
        taken.extend(temporary)

    assert [beside(kind, create, clear, step) for step in range(2, 14)] == [{}] * 12
    assert len(taken) >= 2


def test_a_create_whose_object_is_gone_again_is_no_error():
    def create(storage):
        storage.create("a/b", b"1")

    def remove(storage):
        current_world().kernel.wait(lambda: current_world().kernel.steps >= 2)
        storage.remove(["a/b"])

    assert [beside("s3", create, remove, step, "lost_answer") for step in range(2, 8)] == [{}] * 6
