import json
import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from types import SimpleNamespace

import boto3
import pytest
from prefect.blocks.system import Secret

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.clock import use_clock
from barycenter.infra.corpus.files import Files
from barycenter.infra.dispatch.api import Work
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.infra.storage import Storage, credentials
from barycenter.infra.storage.credentials import (
    Credentials,
    Source,
    _values,
    current_credentials,
    load_credentials_block,
    take_over,
)
from barycenter.infra.storage.filesystems import reopen_filesystems
from tests.flows.secrets import every_record
from tests.infra.dispatch.dispatching import dispatch
from tests.infra.simulation import SimulatedClock
from tests.infra.storage.expiring import VARIABLES, temporary_keys


@pytest.fixture(autouse=True)
def clean(s3_bucket, monkeypatch):
    """No credentials before, none after; the bucket needed some."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "to be restored")
        monkeypatch.delenv(name)
    monkeypatch.setattr(credentials, "_state", credentials._State())


class Reader:
    def run(self, payload):
        return os.environ.get(payload)


def test_a_block_is_loaded_into_the_environment_and_workers_see_it(prefect_server, ray_session):
    Secret(value={"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "hush", "OTHER": "x"}).save("emoji-s3")
    load_credentials_block("secret/emoji-s3")
    assert current_credentials().variables == {"AWS_ACCESS_KEY_ID": "AKIA1", "AWS_SECRET_ACCESS_KEY": "hush"}
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
    assert {name: os.environ[name] for name in keys} == keys
    boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="by-block-alone")
    reopen_filesystems()
    try:
        Storage("s3://by-block-alone/out").write("a", b"1")
    finally:
        reopen_filesystems()
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
    assert current_credentials().variables == {}


@pytest.fixture
def keys(s3_bucket):
    """Temporary keys, not yet handed to anybody, and a folder of a bucket that is open to the newest of them."""
    with temporary_keys() as keys:
        keys.storage = Storage(f"s3://{s3_bucket}/out", keys.url)
        yield keys


def write_profile(path, **settings):
    path.write_text("[default]\n" + "".join(f"{name.lower()} = {value}\n" for name, value in settings.items()))


def test_keys_that_the_server_takes_back_early_are_asked_for_again(keys):
    keys.life = timedelta(hours=6)
    keys.environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{keys.url}/keys")
    keys.storage.write("a", b"1")
    keys.end()
    assert keys.storage.exists("a")
    keys.end()
    assert keys.storage.read("a") == b"1"
    assert keys.refused >= 2
    handed = current_credentials()
    assert handed.renewed
    assert handed.variables == keys.variables | {"AWS_DEFAULT_REGION": "us-east-1"}
    assert "ASIA" not in repr(handed)


def test_a_file_of_profiles_is_read_again(keys, tmp_path):
    """By a request that is refused, and, for workers, once a minute."""
    path = tmp_path / "credentials"
    write_profile(path, **keys.variables)
    keys.environment.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    keys.storage.write("a", b"1")
    keys.end()
    write_profile(path, **keys.variables)
    assert keys.storage.read("a") == b"1"
    assert keys.refused == 1
    clock = SimulatedClock()
    with use_clock(clock):
        assert current_credentials(read_again=True).variables["AWS_ACCESS_KEY_ID"] == "ASIA0001"
        keys.end()
        write_profile(path, **keys.variables)
        assert current_credentials(read_again=True).variables["AWS_ACCESS_KEY_ID"] == "ASIA0001"
        clock.sleep(61)
        assert current_credentials().variables["AWS_ACCESS_KEY_ID"] == "ASIA0001"
        assert current_credentials(read_again=True).variables["AWS_ACCESS_KEY_ID"] == "ASIA0002"
    assert current_credentials().renewed
    assert keys.storage.read("a") == b"1"
    assert keys.refused == 1


def test_a_block_is_read_again(keys, prefect_server, caplog):
    Secret(value=json.dumps(keys.variables)).save("renewed-s3")
    load_credentials_block("secret/renewed-s3")
    keys.storage.write("a", b"1")
    keys.end()
    Secret(value=json.dumps(keys.variables)).save("renewed-s3", overwrite=True)
    with ThreadPoolExecutor() as pool:  # a thread has a context without Prefect's settings
        assert pool.submit(keys.storage.read, "a").result() == b"1"
    keys.end()
    with pytest.raises(RunError, match=r"the Prefect block secret/renewed-s3 has no newer ones; put new ones into it"):
        keys.storage.read("a")
    Secret.delete("renewed-s3")
    with pytest.raises(RunError, match="have ended"):
        keys.storage.read("a")
    assert caplog.text.count("the run goes on with the credentials that it has") == 1
    assert current_credentials().renewed


REMEDY = (
    "set new ones, or name a source that renews itself "
    "(AWS_PROFILE, a web identity, a role of the container or instance),"
)


@pytest.mark.parametrize("expiry", [None, "2020-01-01T00:00:00Z"])
def test_what_nothing_renews_is_said_at_once(keys, expiry):
    for name, value in keys.variables.items():
        keys.environment.setenv(name, value)
    if expiry is None:
        keys.storage.write("a", b"1")
        assert not current_credentials().renewed
        keys.end()
    else:
        keys.environment.setenv("AWS_CREDENTIAL_EXPIRATION", expiry)
    clock = SimulatedClock()
    with use_clock(clock), pytest.raises(RunError) as raised:
        keys.storage.write("a", b"1")
    assert str(raised.value) == (
        f"{keys.storage.uri('a')}: the storage credentials have ended ({'expired' if expiry else 'ExpiredToken'}) and "
        f"the environment has no newer ones; {REMEDY} and run again; what is done stays done"
    )
    assert clock.monotonic() == 0
    with pytest.raises(RunError, match=r"have ended|without a reason \(400\)"):
        keys.storage.exists("a")
    with pytest.raises(RunError, match=r"have ended|without a reason"):
        Files({"endpoint_url": keys.url}).list(keys.storage.uri("a"))


DRIVER = Source("a driver", "ask it")


def test_a_worker_waits_for_its_driver_if_that_can_renew(keys):
    handed = Credentials(keys.variables, DRIVER, renewed=True)
    take_over(handed)
    keys.storage.write("a", b"1")
    keys.end()
    newer = Credentials(keys.variables, DRIVER, renewed=True)

    class Driver(SimulatedClock):
        def sleep(self, seconds):
            super().sleep(seconds)
            if self.monotonic() > 20:
                take_over(newer)

    with use_clock(Driver()):
        assert keys.storage.read("a") == b"1"
    keys.end()
    clock = SimulatedClock()
    with use_clock(clock), pytest.raises(RunError, match="a driver has no newer ones; ask it and run again"):
        keys.storage.read("a")
    assert clock.monotonic() >= 60
    take_over(Credentials(newer.variables, Source("nothing", "do it"), renewed=False))
    clock = SimulatedClock()
    with use_clock(clock), pytest.raises(RunError, match="nothing has no newer ones"):
        keys.storage.read("a")
    assert clock.monotonic() == 0


def test_what_is_handed_over_replaces_all_that_was_there():
    with temporary_keys() as keys:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_CREDENTIAL_EXPIRATION"):
            keys.environment.setenv(name, "of the node")
        take_over(Credentials({}, DRIVER, renewed=True))
        assert os.environ["AWS_SESSION_TOKEN"] == "of the node"
        take_over(Credentials({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}, DRIVER, renewed=False))
        there = {name: os.environ[name] for name in credentials.KEYS if name in os.environ}
        assert there == {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}


def test_a_source_that_has_none_is_one_line(keys, tmp_path):
    config = tmp_path / "config"
    session = {"sso_account_id": "1", "sso_role_name": "r", "sso_region": "us-east-1", "sso_start_url": "https://sso"}
    write_profile(config, **session)
    keys.environment.setenv("AWS_CONFIG_FILE", str(config))
    keys.environment.setenv("HOME", str(tmp_path))
    with pytest.raises(RunError, match=r"no storage credentials could be had \(Error loading SSO Token") as raised:
        keys.storage.read("a")
    assert len(str(raised.value).splitlines()) == 1


ROLE = "arn:aws:iam::123456789012:role/reader"


@pytest.mark.parametrize("source", ["a web identity", "a role of a profile", "an instance"])
def test_sources_that_renew_themselves(keys, s3_server, tmp_path, source):
    """Workers get keys of their driver's role; only the role of an instance is every node's own."""
    config, token = tmp_path / "config", tmp_path / "token"
    token.write_text("of an identity")
    variables = {"AWS_CONFIG_FILE": str(config), "AWS_ENDPOINT_URL_STS": s3_server}
    if source == "a web identity":
        variables |= {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}
    elif source == "a role of a profile":
        config.write_text(
            f"[profile reader]\nrole_arn = {ROLE}\nsource_profile = base\nregion = eu-west-3\n"
            "[profile base]\naws_access_key_id = a\naws_secret_access_key = b\n"
        )
        variables |= {"AWS_PROFILE": "reader"}
        keys.environment.delenv("AWS_DEFAULT_REGION")
    else:
        variables |= {"AWS_EC2_METADATA_DISABLED": "false", "AWS_EC2_METADATA_SERVICE_ENDPOINT": keys.url}
    for name, value in variables.items():
        keys.environment.setenv(name, value)
    instance = source == "an instance"
    storage = keys.storage if instance else Storage(keys.storage.root, s3_server)
    storage.write("a", b"1")
    handed = current_credentials()
    assert handed.renewed is not instance
    set_here = {name for name in credentials.KEYS if name in handed.variables}
    assert set_here == (set() if instance else {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"})
    region = "eu-west-3" if source == "a role of a profile" else "us-east-1"
    assert handed.variables["AWS_DEFAULT_REGION"] == region


def test_requests_log_no_credentials_at_any_level(keys):
    keys.environment.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{keys.url}/keys")
    with every_record() as lines:
        keys.storage.write("a", b"1")
        assert keys.storage.read("a") == b"1"
        keys.end()
        assert keys.storage.exists("a")
        current_credentials()
    assert len(lines) > 5
    assert [line for line in lines if "ASIA" in line or "secret" in line] == []
