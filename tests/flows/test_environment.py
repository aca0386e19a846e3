import os
import subprocess
import sys

import pytest
from rich.table import Table

from barycenter.flows.console import out
from barycenter.flows.environment import _reach_this_machine_directly

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch):
    for name in PROXIES:
        monkeypatch.setenv(name, "")
        monkeypatch.setenv(name.upper(), "")


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, None),
        ({"HTTP_PROXY": "http://p:1"}, "localhost,127.0.0.1,::1"),
        ({"https_proxy": "http://p:1", "no_proxy": "corp.example, 127.0.0.1"}, "corp.example,127.0.0.1,localhost,::1"),
        ({"ALL_PROXY": "http://p:1", "NO_PROXY": "*"}, "*"),
    ],
)
def test_a_proxy_is_kept_out_of_the_way_to_this_machine(monkeypatch, given, named):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    _reach_this_machine_directly()
    assert (os.environ["no_proxy"], os.environ["NO_PROXY"]) == ((named, named) if named else ("", ""))


def test_httpx_goes_to_this_machine_without_the_proxy(monkeypatch):
    """In a process of its own, as the variables are read when a client is made."""
    code = (
        "import barycenter.flows.environment, httpx; client = httpx.Client(); "
        "print(client._transport_for_url(httpx.URL('http://127.0.0.1:4200')) is client._transport, "
        "client._transport_for_url(httpx.URL('http://example.org')) is client._transport)"
    )
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert said == ["True", "False"]


def test_brackets_and_colons_in_names_are_no_markup():
    table = Table(title="corpus[/v2]")
    table.add_column("name[/]")
    table.add_row("[red]a[/blue] :crab:")
    with out.capture() as shown:
        out.print(table)
        out.print("gone[/]")
    assert all(name in shown.get() for name in ("corpus[/v2]", "name[/]", "[red]a[/blue] :crab:", "gone[/]"))
