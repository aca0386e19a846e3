"""Ray's private interfaces are used where they are, and done without where they are not."""

import importlib

import pytest
from ray.train.v2.api.exceptions import ControllerError

from barycenter.fusion.errors import RunError
from barycenter.infra.ray import private, training
from barycenter.infra.ray.executor import WorkerAllocation
from barycenter.infra.storage import Storage


@pytest.fixture
def without_private_modules(monkeypatch):
    original = importlib.import_module

    def only_public(name, *args):
        if "_private" in name or "_internal" in name:
            raise ImportError(name)
        return original(name, *args)

    monkeypatch.setattr(private, "import_module", only_public)


def test_what_ray_prints_about_workers_goes_to_the_log(capsys, caplog):
    private.silence_worker_output()
    worker = importlib.import_module("ray._private.worker")
    with caplog.at_level("DEBUG", logger=private.__name__):
        worker.print_to_stdstream({"pid": "raylet", "lines": ["a worker died"]}, ignore_prefix=False)
    assert "a worker died" in caplog.text
    assert capsys.readouterr().out == ""


def test_a_ray_without_that_function_prints(without_private_modules):
    private.silence_worker_output()


def test_a_ray_that_moved_the_function_prints(monkeypatch):
    monkeypatch.setattr(private, "import_module", lambda name: object())
    private.silence_worker_output()
    assert private.placement_errors() == ()


def test_a_failed_placement_counts_as_a_loss_where_its_class_is_not_known(
    without_private_modules, tmp_path, monkeypatch
):
    assert private.placement_errors() == ()
    tries = []

    def fit(trainer):
        tries.append(trainer)
        raise ControllerError(TimeoutError("no place"))

    monkeypatch.setattr(training.TorchTrainer, "fit", fit)
    storage = Storage(str(tmp_path))
    with pytest.raises(RunError, match="workers were lost 2 times: no place"):
        training.train(print, {}, allocation=WorkerAllocation(1, 1), storage=storage, folder="a", attempts=2)
    assert len(tries) == 2
