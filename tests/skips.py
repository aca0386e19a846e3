"""Which skips pass where nothing may be left out: with CI set, as `make test` sets it, any other fails the run."""

import os
from typing import Any

import pytest

ACCEPTED = (
    "no GPU",
    "no shared assets at",  # data and weights beside the repository, which a clone does not have
    "no Chromium on this machine",  # a package of the system
    "no kubectl or kustomize on this machine",  # binaries that no Python package brings
    "a file system of its own cannot be mounted here",  # needs root
    "a control group cannot be made here",  # needs root, and a kernel that lets it
    "root may read every folder",
    "not a git checkout",
    "SCIPY_ARRAY_API is not set",  # of scikit-learn's checks: for estimators that compute on a GPU
)
"""How the reasons begin: what a machine or a copy of the project cannot have by `make install`."""

_others: list[tuple[str, str]] = []


def pytest_runtest_logreport(report: Any) -> None:
    """Remembers a test that was skipped for another reason."""
    if report.skipped and not hasattr(report, "wasxfail"):
        _remember(report)


def pytest_collectreport(report: Any) -> None:
    """Remembers a file that was skipped for another reason."""
    if report.skipped:
        _remember(report)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fails the run."""
    if _others and os.environ.get("CI") and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Says why the run failed."""
    if _others and os.environ.get("CI"):
        terminalreporter.section("skips that tests/skips.py does not accept", sep="=")
        for name, reason in _others:
            terminalreporter.write_line(f"{name}: {reason}")


def _remember(report: Any) -> None:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ACCEPTED):
        _others.append((report.nodeid, reason))
