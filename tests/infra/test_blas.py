import sys
from types import ModuleType

import numpy as np  # noqa: F401 - brings a numerical library
import pytest
from threadpoolctl import ThreadpoolController, threadpool_info

from barycenter.infra import blas
from barycenter.infra.blas import limited_threads


def threads():
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_threads_are_limited_in_the_block_and_as_before_after_it():
    before = threads()
    with limited_threads(2), limited_threads(1):
        assert threads() == {1}
    assert threads() == before


def test_libraries_are_looked_for_again_only_once_more_is_imported(monkeypatch):
    looked = []
    monkeypatch.setattr(blas, "_found", None)
    monkeypatch.setattr(blas, "ThreadpoolController", lambda: looked.append(1) or ThreadpoolController())
    for _ in range(3):
        with limited_threads(1):
            pass
    assert len(looked) == 1
    monkeypatch.setitem(sys.modules, "tests.infra.never", ModuleType("never"))
    with limited_threads(1):
        pass
    assert len(looked) == 2


def test_an_error_in_the_block_goes_on():
    with pytest.raises(ZeroDivisionError), limited_threads(1):
        raise ZeroDivisionError
