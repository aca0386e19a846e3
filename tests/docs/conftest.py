from pathlib import Path

import pytest

from tests.docs.world import make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that commands, Python and examples run on."""
    folder = tmp_path_factory.mktemp("world")
    make_world(folder)
    return folder
