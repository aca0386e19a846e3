"""Garbage is not looked for while test modules are imported: it would be a fifth of what that takes."""

import gc

import pytest

gc.disable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """From here on it is, but no longer in what the imports left."""
    gc.freeze()
    gc.enable()
