"""What workers see of the driver's environment besides storage credentials."""

import os
import sys
from types import SimpleNamespace

import pytest

from barycenter.infra.dispatch.api import Work
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.ray.environment import CERTIFICATES, HUB, PROXIES, DriverEnvironment
from barycenter.infra.storage.credentials import KEYS, SETTINGS
from tests.conftest import ROOT
from tests.infra.dispatch.dispatching import dispatch

NAMES = (*HUB, *PROXIES, *CERTIFICATES)


@pytest.fixture(autouse=True)
def none_set(monkeypatch):
    """None of the variables is set, whatever this machine has, nor after the test."""
    for name in NAMES:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.delitem(sys.modules, "huggingface_hub", raising=False)


def set_here():
    return {name: os.environ[name] for name in NAMES if name in os.environ}


class Environment:
    def run(self, _):
        return set_here()


def test_workers_see_the_token_the_proxies_and_the_certificates_that_their_node_has(
    ray_session, monkeypatch, tmp_path, caplog
):
    there, nowhere = tmp_path / "there.pem", tmp_path / "nowhere.pem"
    there.write_text("certificates")
    expected = {
        "HF_TOKEN": "hf_hush",
        "HTTPS_PROXY": "http://user:hush@proxy:3128",
        "no_proxy": "127.0.0.1",
        "AWS_CA_BUNDLE": str(there),
    }
    for name, value in (expected | {"SSL_CERT_FILE": str(nowhere)}).items():
        monkeypatch.setenv(name, value)
    seen = []
    work = [Work(name, name, 1) for name in ("one", "two")]
    dispatch(work, worker=Environment, allocation=WorkerAllocation(2, 1), on_done=lambda _, value: seen.append(value))
    assert len(seen) == 2
    for found in seen:
        assert found.items() >= expected.items()
        assert found.get("SSL_CERT_FILE") != str(nowhere)
        assert set(found) & set(PROXIES) == {"HTTPS_PROXY", "no_proxy"}
    assert caplog.text.count(f"SSL_CERT_FILE is {nowhere}, which is not on the node ") == 1
    assert "hush" not in caplog.text


def test_proxies_are_the_drivers_as_a_whole_or_the_nodes(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://of-the-node")
    monkeypatch.setenv("HF_TOKEN", "of the node")
    nothing = DriverEnvironment({})
    assert nothing.take_over() is None
    assert set_here() == {"http_proxy": "http://of-the-node", "HF_TOKEN": "of the node"}
    environment = DriverEnvironment({"HTTP_PROXY": "http://a:hush@b"})
    assert environment.take_over() is None
    assert set_here() == {"HTTP_PROXY": "http://a:hush@b", "HF_TOKEN": "of the node"}
    assert "hush" not in repr(environment)


def test_a_saved_login_of_the_hub_is_a_token(monkeypatch):
    assert DriverEnvironment.here().variables == {}
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(get_token=lambda: "hf_saved"))
    assert DriverEnvironment.here().variables == {"HF_TOKEN": "hf_saved"}
    monkeypatch.setenv("HF_TOKEN", "hf_set")
    assert DriverEnvironment.here().variables == {"HF_TOKEN": "hf_set"}
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(get_token=lambda: None))
    assert DriverEnvironment.here().variables == {}


def test_the_page_lists_every_variable():
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    names = {*KEYS, *SETTINGS, *HUB, *CERTIFICATES, *(name.upper() for name in PROXIES)}
    assert sorted(name for name in names if f"`{name}`" not in page) == []
