"""Runs scikit-learn's checks of an estimator, those that are expected to fail included."""

from collections.abc import Callable, Mapping
from unittest import SkipTest

import pytest


def run_check(check: Callable, estimator: object, expected_failures: Mapping[str, str]) -> None:
    """Runs one check; one that is expected to fail must fail, and is reported with its reason.

    Caught here and not by a mark: to print a failure, pytest parses the file of all checks, which takes a second.
    """
    reason = expected_failures.get(check.func.__name__)
    if reason is None:
        check(estimator)
        return
    try:
        check(estimator)
    except SkipTest:
        raise
    except Exception:  # noqa: BLE001 - checks fail in any way
        failed = True
    else:
        failed = False
    if not failed:
        pytest.fail(f"{check.func.__name__} passes, and is expected to fail: {reason}")
    pytest.xfail(reason)
