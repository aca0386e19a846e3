import os
import signal
from pathlib import Path

import pytest
import ray
import torch

from barycenter.fusion.errors import JobError, RunError
from barycenter.fusion.training.context import Checkpoint, LocalContext, load_state, pack_state
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.ray import training
from barycenter.infra.ray.checkpoints import CheckpointStore
from barycenter.infra.ray.executor import RayExecutor
from barycenter.infra.ray.training import train
from barycenter.infra.storage import Storage

ONE, TWO = WorkerAllocation(1, 1, cpus_per_worker=0.5), WorkerAllocation(2, 1, cpus_per_worker=0.5)


def descend(context, config):
    """Least squares by SGD on this rank's share of the rows; a mark in ``folder`` kills it once at ``die_at``."""
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.1)
    saved = context.latest_checkpoint()
    if saved is not None:
        load_state(saved.tensors, module, optimizer)
    parallel = context.prepare_module(module)
    rows = torch.randn(64, 3, generator=torch.Generator().manual_seed(1))[context.rank :: context.world_size]
    began = saved.step if saved else 0
    for step in range(began, config["steps"]):
        mark = Path(config["folder"]) / "died"
        if step == config.get("die_at") and context.rank == context.world_size - 1 and not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        loss = ((parallel(rows) - rows.sum(dim=1, keepdim=True)) ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        context.save(Checkpoint(step + 1, pack_state(module, optimizer), {"began": began}))
    return Checkpoint(config["steps"], pack_state(module), {"began": began, "world": context.world_size})


def wrong_job(context, config):
    (Path(config["folder"]) / f"try-{os.getpid()}").touch()
    raise JobError("train.target", "nothing to learn")


def weights(checkpoint):
    return torch.cat([checkpoint.tensors["module.weight"].flatten(), checkpoint.tensors["module.bias"]])


def test_a_killed_worker_goes_on_from_the_newest_checkpoint(ray_session, tmp_path):
    config = {"steps": 30, "folder": str(tmp_path)}
    alone = descend(LocalContext(), config)
    storage = Storage(str(tmp_path / "out"))
    trained = train(descend, config | {"die_at": 20}, allocation=TWO, storage=storage, folder="head/a")
    assert trained.state == {"began": 20, "world": 2}
    torch.testing.assert_close(weights(trained), weights(alone), rtol=0, atol=1e-5)
    assert storage.list("head/a") == ["head/a/trained.safetensors"]
    again = train(wrong_job, config, allocation=TWO, storage=storage, folder="head/a")
    assert torch.equal(weights(again), weights(trained)), "what is done is not trained again"


def test_the_loops_own_error_is_reported_at_once(ray_session, tmp_path):
    with pytest.raises(JobError, match="nothing to learn"):
        train(wrong_job, {"folder": str(tmp_path)}, allocation=ONE, storage=Storage(str(tmp_path / "out")), folder="a")
    assert len(list(tmp_path.glob("try-*"))) == 1


def wrong_on_one_rank(context, config):
    if context.rank == 1:
        raise JobError("train.target", "nothing to learn")
    return Checkpoint(0, {"sum": context.all_reduce_sum(torch.ones(1))}, {})


def test_an_error_on_one_rank_ends_those_that_wait_for_it(ray_session, tmp_path):
    with pytest.raises(JobError, match="nothing to learn"):
        train(wrong_on_one_rank, {}, allocation=TWO, storage=Storage(str(tmp_path / "out")), folder="a")


def test_a_later_run_goes_on_where_the_last_one_gave_up(ray_session, tmp_path):
    storage = Storage(str(tmp_path / "out"))
    config = {"steps": 12, "folder": str(tmp_path), "die_at": 7}
    with pytest.raises(RunError, match=r"lost 1 times.*run again"):
        train(descend, config, allocation=ONE, storage=storage, folder="a", attempts=1)
    trained = train(descend, config, allocation=ONE, storage=storage, folder="a")
    assert trained.state["began"] == 7
    assert torch.equal(weights(trained), weights(descend(LocalContext(), config)))


def test_a_worker_that_dies_while_it_starts_is_replaced(ray_session, tmp_path, monkeypatch):
    original, killed = RayExecutor.start, []

    def start(executor, strategy):
        worker = original(executor, strategy)
        if not killed:
            killed.append(worker.name)
            ray.kill(worker.handle)
        return worker

    monkeypatch.setattr(RayExecutor, "start", start)
    config = {"steps": 2, "folder": str(tmp_path)}
    trained = train(descend, config, allocation=ONE, storage=Storage(str(tmp_path / "out")), folder="a")
    assert trained.step == 2
    assert len(killed) == 1


def test_ranks_start_together_or_not_at_all(ray_session, tmp_path, monkeypatch, caplog):
    """Of three ranks two would have room."""
    monkeypatch.setattr(training, "_QUIET_SECONDS", 0.5)
    three = WorkerAllocation(3, 1, cpus_per_worker=1.0)
    where = {"storage": Storage("out"), "folder": "b", "name": "t"}
    with pytest.raises(RunError, match=r"training t: no room for 3 workers at once: each needs 1 CPUs and 0 GPUs"):
        train(wrong_job, {"folder": str(tmp_path)}, allocation=three, start_seconds=2.0, **where)
    assert not list(tmp_path.glob("try-*"))
    assert caplog.text.count("training t waits for room for 3 workers at once: each needs 1 CPUs and 0 GPUs") == 1
    assert ray.util.placement_group_table() == {} or all(
        group["state"] == "REMOVED" for group in ray.util.placement_group_table().values()
    )


def see_credentials(_place, _config):
    return Checkpoint(0, {"none": torch.zeros(1)}, {"key": os.environ.get("AWS_SECRET_ACCESS_KEY")})


def test_workers_have_the_credentials_of_the_driver_and_show_them_nowhere(ray_session, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "of-a-block-loaded-late")
    trained = train(see_credentials, {}, allocation=ONE, storage=Storage(str(tmp_path / "out")), folder="a")
    assert trained.state["key"] == "of-a-block-loaded-late"
    assert "of-a-block-loaded-late" not in caplog.text
    logs = Path(ray._private.worker.global_worker.node.get_logs_dir_path())
    files = [path for path in logs.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path.name for path in files if b"of-a-block-loaded-late" in path.read_bytes()]


def test_checkpoints_on_s3(s3_server, s3_bucket):
    store = CheckpointStore(Storage(f"s3://{s3_bucket}/out", s3_server), "head/a")
    assert (store.newest(), store.step(), store.done()) == (None, -1, None)
    for step in (9, 10):
        store.save(Checkpoint(step, {"a": torch.full((2,), float(step))}, {"best": [0.5, None]}))
    newest = store.newest()
    assert (newest.step, newest.state, newest.tensors["a"].tolist()) == (10, {"best": [0.5, None]}, [10.0, 10.0])
    store.finish(newest)
    store.clear()
    assert (store.newest(), store.done().step) == (None, 10)


def test_a_damaged_checkpoint_is_reported(tmp_path):
    Storage(str(tmp_path)).write("a/checkpoint-0000000003.safetensors", b"not a checkpoint")
    with pytest.raises(RunError, match=r"checkpoint-0000000003.safetensors is no checkpoint of a training"):
        CheckpointStore(Storage(str(tmp_path)), "a").newest()
