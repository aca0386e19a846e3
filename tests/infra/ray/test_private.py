"""Ray's private interfaces are used where they are, and done without where they are not."""

import importlib

import pytest

from barycenter.infra.ray import private


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


def test_the_dashboard_is_where_ray_or_the_environment_says(monkeypatch):
    worker = importlib.import_module("ray._private.worker")
    monkeypatch.delenv("RAY_OVERRIDE_DASHBOARD_URL", raising=False)
    for address, url in (("10.0.0.1:8265", "http://10.0.0.1:8265"), ("", None), (None, None)):
        monkeypatch.setattr(worker, "get_dashboard_url", lambda address=address: address)
        assert private.dashboard_url() == url
    monkeypatch.setenv("RAY_OVERRIDE_DASHBOARD_URL", "https://ray.example/x")
    assert private.dashboard_url() == "https://ray.example/x"


@pytest.mark.usefixtures("without_private_modules")
def test_a_ray_that_does_not_say_has_no_dashboard(monkeypatch):
    monkeypatch.delenv("RAY_OVERRIDE_DASHBOARD_URL", raising=False)
    assert private.dashboard_url() is None
