"""Workers and training ranks outlive the temporary keys that they began with."""

import threading
import time

import pytest
import torch
from botocore.exceptions import CredentialRetrievalError

from barycenter.fusion.training.context import Checkpoint
from barycenter.infra.dispatch.api import Work
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.ray.renewal import GROUP, Edition, Receiver, Renewal
from barycenter.infra.ray.training import train
from barycenter.infra.storage import Storage
from barycenter.infra.storage.credentials import Credentials, Source
from tests.infra.dispatch.dispatching import dispatch
from tests.infra.storage.expiring import temporary_keys

ONE = WorkerAllocation(1, 1, cpus_per_worker=0.5)


@pytest.fixture
def keys(monkeypatch, s3_bucket):
    """Temporary keys that this process alone can ask for: Ray began before it could."""
    monkeypatch.setattr("barycenter.infra.ray.renewal._LOOK_SECONDS", 0.2)
    with temporary_keys() as keys:
        keys.bucket = s3_bucket
        keys.environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{keys.url}/keys")
        yield keys


def wait_for(storage, name):
    while not storage.exists(name):
        time.sleep(0.1)


class Writer:
    def __init__(self, storage):
        self.storage = storage

    def run(self, name):
        if name == "two":
            wait_for(self.storage, "go")
        self.storage.write(name, name.encode())
        return self.storage.exists(name)


def test_workers_go_on_with_newer_keys(ray_session, keys):
    storage = Storage(f"s3://{keys.bucket}/out", keys.url)
    storage.write("begin", b"")
    done = []

    def on_done(work, value):
        done.append((work.id, value))
        if work.id == "one":
            keys.end()
            storage.write("go", b"")

    work = [Work(name, name, 1) for name in ("one", "two")]
    assert dispatch(work, worker=Writer, args=(storage,), allocation=ONE, on_done=on_done) == []
    assert sorted(done) == [("one", True), ("two", True)]
    assert storage.list() == ["begin", "go", "one", "two"]


def meet_in_storage(context, config):
    config["storage"].write("here", b"")
    wait_for(config["storage"], "go")
    return Checkpoint(1, {"sum": context.all_reduce_sum(torch.ones(1))}, {})


def test_a_training_rank_gets_newer_keys_in_the_middle_of_a_call(ray_session, keys):
    storage = Storage(f"s3://{keys.bucket}/out", keys.url)
    storage.write("begin", b"")

    def end_keys():
        wait_for(storage, "here")
        keys.end()
        storage.write("go", b"")

    ending = threading.Thread(target=end_keys)
    ending.start()
    trained = train(meet_in_storage, {"storage": storage}, allocation=ONE, storage=storage, folder="head/a")
    ending.join()
    assert trained.tensors["sum"].item() == 1


class Handle:
    """An actor that notes what it is sent."""

    def __init__(self):
        self.sent, self.came = [], threading.Event()
        self.renew = self

    def options(self, concurrency_group):
        assert concurrency_group == GROUP
        return self

    def remote(self, edition):
        self.sent.append(edition)
        self.came.set()


def test_only_workers_that_are_behind_are_sent_newer_credentials(keys):
    Storage(f"s3://{keys.bucket}/out", keys.url).write("begin", b"")
    renewal, early, late, gone = Renewal(), Handle(), Handle(), Handle()
    first = renewal.newest()
    renewal.add("early", early, first)
    renewal.add("gone", gone, first)
    renewal.remove("gone")
    keys.end()
    second = renewal.newest()
    renewal.add("late", late, second)
    assert early.came.wait(60)
    assert (first.number, second.number) == (0, 1)
    assert second.credentials.variables["AWS_ACCESS_KEY_ID"] == "ASIA0001"
    assert (early.sent, late.sent, gone.sent) == ([second], [], [])
    watching = renewal._thread
    renewal.remove("early")
    renewal.remove("late")
    watching.join(60)
    assert renewal._thread is None


def test_a_source_that_gives_none_any_more_is_said_once(monkeypatch, caplog):
    none = CredentialRetrievalError(provider="container-role", error_msg="http://user:password@host is gone")
    first, second = (Credentials({"AWS_ACCESS_KEY_ID": name}, Source("it", "ask it"), True) for name in "ab")
    answers = [first, none, none, second]

    def answer(read_again):
        given = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(given, Exception):
            raise given
        return given

    monkeypatch.setattr("barycenter.infra.ray.renewal._LOOK_SECONDS", 0.01)
    monkeypatch.setattr("barycenter.infra.ray.renewal.current_credentials", answer)
    renewal, handle = Renewal(), Handle()
    renewal.add("worker", handle, renewal.newest())
    assert handle.came.wait(60)
    renewal.remove("worker")
    assert [edition.credentials for edition in handle.sent] == [second]
    assert caplog.text.count("credentials of the workers could not be renewed: s3://: no storage credentials") == 1
    assert "password" not in caplog.text


def test_what_is_not_renewed_is_not_watched():
    with temporary_keys() as keys:
        for name, value in keys.variables.items():
            keys.environment.setenv(name, value)
        renewal = Renewal()
        edition = renewal.newest()
        renewal.add("worker", Handle(), edition)
        assert edition.credentials.variables == keys.variables | {"AWS_DEFAULT_REGION": "us-east-1"}
        assert edition.credentials.source.name == "the environment"
        assert not edition.credentials.renewed
        assert renewal._thread is None


def test_a_worker_keeps_later_credentials(monkeypatch):
    with temporary_keys():
        taken = []
        monkeypatch.setattr("barycenter.infra.ray.renewal.take_over", taken.append)
        editions = [Edition(n, Credentials({"AWS_ACCESS_KEY_ID": str(n)}, Source("", ""), True)) for n in range(3)]
        receiver = Receiver()
        for number in (1, 0, 2, 1):
            receiver.receive(editions[number])
        assert taken == [editions[1].credentials, editions[2].credentials]
