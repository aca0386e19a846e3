import fcntl
import gc
import os
import subprocess

os.environ.update(
    PREFECT_SERVER_ANALYTICS_ENABLED="false",
    DO_NOT_TRACK="1",
    RAY_USAGE_STATS_ENABLED="0",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120",
    AWS_EC2_METADATA_DISABLED="true",
    PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED="false",
    PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED="false",
    PREFECT_SERVER_SERVICES_FOREMAN_ENABLED="false",
)

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.skips import (  # noqa: F401 - hooks
    pytest_collectreport,
    pytest_runtest_logreport,
    pytest_sessionfinish,
    pytest_terminal_summary,
)

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")

ROOT = Path(__file__).resolve().parents[1]
_SLOW = {"ray_session", "prefect_server", "s3_server", "minilm", "browser"}
"""Fixtures that make a test slow."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks as slow what needs Ray, Prefect, an S3 server, a browser or a pretrained model."""
    for item in items:
        if _SLOW & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Leaves what was imported out of every later collection of garbage: runs of a few rows collect it twice each."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of shared data and weights."""
    folder = Path(os.environ.get("BARYCENTER_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared assets at {folder}; set BARYCENTER_SHARED")
    return folder


@pytest.fixture(scope="session")
def minilm(shared: Path) -> Path:
    """The folder of all-MiniLM-L6-v2, fetched once for a clone."""
    folder = ROOT / "out" / "models" / "all-MiniLM-L6-v2"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fetched = subprocess.run([shared / "get-minilm", folder], capture_output=True, text=True, check=False)
    if fetched.returncode:
        pytest.skip(f"get-minilm failed: {fetched.stderr.strip()[-200:]}")
    return folder


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """One Ray of two CPUs for the whole test session."""
    import ray

    ray.init(
        address="local",
        num_cpus=2,
        num_gpus=0,
        include_dashboard=False,
        log_to_driver=False,
        object_store_memory=256 * 2**20,
        logging_level="ERROR",
    )
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prefect's home for the servers of the session: the first of them makes the tables that the others copy."""
    return tmp_path_factory.getbasetemp() / "prefect-home"


@pytest.fixture(scope="session")
def prefect_server(prefect_home: Path) -> Iterator[None]:
    """One Prefect server with a database of its own for the whole test session."""
    from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_DATABASE_CONNECTION_URL, temporary_settings

    from barycenter.flows.temporary_server import TemporaryServer

    server = TemporaryServer(prefect_home, 120, {})
    server.wait()
    database = f"sqlite+aiosqlite:///{server._database}"
    with temporary_settings({PREFECT_API_URL: server.api, PREFECT_SERVER_DATABASE_CONNECTION_URL: database}):
        yield
    server.stop()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of an S3 server in this process, with credentials for it in the environment."""
    from moto.server import ThreadedMotoServer

    names = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}
    before = {name: os.environ.get(name) for name in names}
    os.environ.update(names)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


@pytest.fixture
def s3_bucket(s3_server: str) -> str:
    """The name of a new, empty bucket."""
    import secrets

    import boto3

    name = f"bucket-{secrets.token_hex(4)}"
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=name)
    return name
