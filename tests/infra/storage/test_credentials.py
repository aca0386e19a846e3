import os
from types import SimpleNamespace

import boto3
import pytest
from prefect.blocks.system import Secret

from barycenter.fusion.errors import JobError
from barycenter.infra.dispatch.api import Work
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.storage import Storage
from barycenter.infra.storage.credentials import _values, environment_credentials, load_credentials_block
from barycenter.infra.storage.filesystems import _filesystem
from tests.infra.dispatch.dispatching import dispatch

KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL")


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """No credentials before, none after."""
    for name in KEYS:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    load_credentials_block.cache_clear()


class Reader:
    def run(self, payload):
        return os.environ.get(payload)


def test_a_block_is_loaded_into_the_environment_and_workers_see_it(prefect_server, ray_session):
    Secret(value={"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "hush", "OTHER": "x"}).save("emoji-s3")
    load_credentials_block("secret/emoji-s3")
    assert environment_credentials() == {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "hush"}
    assert "OTHER" not in os.environ
    seen = []
    work = [Work("one", "AWS_SECRET_ACCESS_KEY", 1)]
    dispatch(work, worker=Reader, allocation=WorkerAllocation(1, 1), on_done=lambda _, value: seen.append(value))
    assert seen == ["hush"]


def test_a_block_may_name_the_endpoint(prefect_server, s3_server):
    """Nothing but the block knows keys and address."""
    keys = {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "hush", "AWS_ENDPOINT_URL": s3_server}
    Secret(value=keys).save("emoji-endpoint")
    load_credentials_block("secret/emoji-endpoint")
    assert environment_credentials() == keys
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="by-block-alone")
    _filesystem.cache_clear()
    try:
        Storage("s3://by-block-alone/out").write("a", b"1")
    finally:
        _filesystem.cache_clear()
    assert Storage("s3://by-block-alone/out", s3_server).read("a") == b"1"


def test_an_aws_block_has_the_same_by_other_names():
    parameters = SimpleNamespace(endpoint_url="http://127.0.0.1:9000")
    hidden = SimpleNamespace(get_secret_value=lambda: "hush")
    block = SimpleNamespace(
        aws_access_key_id="AKIA1",
        aws_secret_access_key=hidden,
        aws_session_token=None,
        region_name="eu-central-1",
        aws_client_parameters=parameters,
    )
    assert _values(block) == {
        "AWS_ACCESS_KEY_ID": "AKIA1",
        "AWS_SECRET_ACCESS_KEY": "hush",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9000",
    }


def test_a_block_that_is_not_there_or_holds_none_is_one_line(prefect_server):
    with pytest.raises(JobError, match="'secret/nowhere' cannot be loaded") as caught:
        load_credentials_block("secret/nowhere")
    assert caught.value.key == "storage.credentials_block"
    Secret(value="just hush").save("no-keys")
    with pytest.raises(JobError, match="holds no AWS_ACCESS_KEY_ID") as caught:
        load_credentials_block("secret/no-keys")
    assert "hush" not in str(caught.value)
    assert environment_credentials() == {}
