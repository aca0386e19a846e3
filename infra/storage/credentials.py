"""Credentials of object storage: as botocore finds them, renewed in long runs, handed to workers, written nowhere.

botocore renews what comes from a source that it can ask again (a role, a web identity, SSO, a container, an instance).
Here is what it does not do: a run's workers get the keys that its driver has, and newer ones as soon as it has them;
keys in a file of profiles or in a Prefect block are read again; and what a server refuses is looked for once more.
"""

import json
import logging
import os
import threading
from collections.abc import Iterable, Mapping
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from barycenter.fusion.errors import JobError
from barycenter.infra.clock import current_clock
from barycenter.infra.storage.filesystems import opened_s3, reopen_filesystems

log = logging.getLogger(__name__)

KEYS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_SECURITY_TOKEN",
    "AWS_CREDENTIAL_EXPIRATION",
)
"""Variables that are credentials: a process that is handed some has no other of them."""

SETTINGS = ("AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")
"""Variables that go with them, each by itself."""

_JOB_KEY = "storage.credentials_block"
_ATTRIBUTES = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_DEFAULT_REGION": "region_name",
    "AWS_ENDPOINT_URL": "aws_client_parameters.endpoint_url",
}
_READ_AGAIN_SECONDS = 60.0
_INSTANCE, _ENVIRONMENT = "iam-role", "env"
_FILES = ("shared-credentials-file", "config-file", "boto-config-file")
_SIGN_IN = {"sso": "aws sso login", "login": "aws login"}


class Source(NamedTuple):
    """Where credentials come from, and what to do where it has no newer ones, in the words of messages."""

    name: str
    remedy: str


@dataclass(frozen=True)
class Credentials:
    """Storage credentials on the way from a driver to its workers.

    Attributes:
        variables: Variables of the environment; none where every node has credentials of its own.
        source: Where the driver has them from.
        renewed: Whether newer ones may follow.
    """

    variables: Mapping[str, str] = field(repr=False)
    source: Source
    renewed: bool

    @property
    def temporary(self) -> bool:
        """Whether they end by themselves."""
        return "AWS_SESSION_TOKEN" in self.variables or "AWS_SECURITY_TOKEN" in self.variables


@dataclass
class _State:
    """What this process knows of its credentials.

    Attributes:
        block: The Prefect block that they come from.
        settings: The context that has Prefect's settings; a thread of its own would ask another server.
        handed: What a driver handed over.
        version: How often they changed.
        source: Where botocore found them.
        read_at: When they were read again, on the monotonic clock.
        warned: What was last said of a block that cannot be read.
        lock: Held while they are looked for again.
    """

    block: str | None = None
    settings: Context | None = None
    handed: Credentials | None = None
    version: int = 0
    source: Source | None = None
    read_at: float = float("-inf")
    warned: str = ""
    lock: Any = field(default_factory=threading.Lock)


_state = _State()


def current_credentials(*, read_again: bool = False) -> Credentials:
    """The credentials of this process for its workers; renewed before if they are about to end.

    Without an open S3 file system they are those of the environment: no other source is asked in vain.

    Args:
        read_again: Whether to read temporary ones again, once a minute, that nothing but a new reading renews: those in
            a file of profiles or in a Prefect block.

    Raises:
        Exception: Whatever botocore raises where a source has none.
    """
    settings = _set_variables(SETTINGS)
    found = _find()
    if found is None:
        return Credentials(settings | _set_variables(KEYS), _source(_ENVIRONMENT), _state.block is not None)
    if read_again and found.temporary and not found.renewing and _may_be_read_again(found.method) and _is_time():
        with _state.lock:
            _read_again()
        found = _find() or found
    region = {"AWS_DEFAULT_REGION": found.region} if found.region and "AWS_REGION" not in settings else {}
    renewed = bool(found.variables) and (found.renewing or _may_be_read_again(found.method))
    return Credentials(found.variables | region | settings, _source(found.method), renewed)


def _set_variables(names: Iterable[str]) -> dict[str, str]:
    return {name: value for name in names if (value := os.environ.get(name))}


def take_over(credentials: Credentials) -> None:
    """Makes a driver's credentials those of this process."""
    _set_environment(credentials.variables)
    _state.handed = credentials
    _state.version += 1
    reopen_filesystems()


def _set_environment(variables: Mapping[str, str]) -> None:
    """Sets variables; where credentials are among them, no others stay."""
    if variables.keys() & set(KEYS):
        for name in set(KEYS) - variables.keys():
            os.environ.pop(name, None)
    os.environ.update(variables)


def credentials_version() -> int:
    """A number that changes with the credentials of this process."""
    return _state.version


def look_for_newer(refused: int) -> bool:
    """Looks for newer credentials after those of a version were refused; whether another request is worth it.

    A worker waits for its driver, which alone can ask.
    """
    handed = _state.handed
    if handed is not None and handed.variables.keys() & set(KEYS):
        return (handed.renewed and handed.temporary) or _state.version != refused
    with _state.lock:
        if _state.version != refused:
            return True
        try:
            changed, found = _read_again(), _find()
        except RuntimeError:  # botocore found credentials that have ended, too
            return False
        except Exception as error:  # noqa: BLE001 - the next request meets it, too, and reports it
            log.debug("no newer credentials: %s", type(error).__name__)
            return True
        return changed or (found is not None and found.renewing)


def credentials_source() -> Source:
    """Where the credentials of this process come from, as far as it knows."""
    if _state.handed is not None and _state.handed.variables.keys() & set(KEYS):
        return _state.handed.source
    return _state.source or _source(_ENVIRONMENT)


def load_credentials_block(name: str) -> None:
    """Puts the credentials of a Prefect block into this process's environment, once; long runs read it again.

    So with its endpoint, if it has one; ``storage.endpoint_url`` of the job comes before that.

    Args:
        name: Type and name, such as ``secret/emoji-s3`` (a JSON object with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
            and, where needed, AWS_SESSION_TOKEN, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL) or
            ``aws-credentials/emoji-s3``.

    Raises:
        JobError: There is no such block, no Prefect server, or no credentials in it.
    """
    if _state.block != name:
        _read_block(name)
        _state.block, _state.settings = name, copy_context()
        reopen_filesystems()


def _read_block(name: str) -> None:
    from prefect.blocks.core import Block
    from prefect.blocks.system import Secret

    try:
        block: Any = Secret.load(name.removeprefix("secret/")) if name.startswith("secret/") else Block.load(name)
    except Exception as error:  # noqa: BLE001 - whatever Prefect raises, without what it may quote
        reason = type(error).__name__ if not isinstance(error, ValueError) else "there is no such block"
        raise JobError(_JOB_KEY, f"{name!r} cannot be loaded ({reason}); check PREFECT_API_URL and the name") from None
    found = _values(block.get() if isinstance(block, Secret) else block)
    if not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= found.keys():
        raise JobError(_JOB_KEY, f"{name!r} holds no AWS_ACCESS_KEY_ID with an AWS_SECRET_ACCESS_KEY; add both")
    _set_environment(found)


def _values(block: Any) -> dict[str, str]:
    """The credentials in a secret's JSON object or in a block's attributes."""
    if isinstance(block, str):
        try:
            block = json.loads(block)
        except ValueError:
            return {}
    found = {}
    for name, attribute in _ATTRIBUTES.items():
        value: Any = block.get(name) if isinstance(block, dict) else _attribute(block, attribute)
        value = value.get_secret_value() if hasattr(value, "get_secret_value") else value
        if value:
            found[name] = str(value)
    return found


def _attribute(block: Any, path: str) -> Any:
    """An attribute of a block, or of what one of its attributes holds; None where there is none."""
    for name in path.split("."):
        block = getattr(block, name, None)
    return block


@dataclass(frozen=True)
class _Found:
    """What botocore found: by which provider, as variables, and whether it renews them itself."""

    method: str
    variables: dict[str, str] = field(repr=False)
    renewing: bool
    region: str | None

    @property
    def temporary(self) -> bool:
        return "AWS_SESSION_TOKEN" in self.variables


def _find() -> _Found | None:
    """The credentials of the S3 file system that this process has opened."""
    system = opened_s3()
    if system is None:
        return None
    from fsspec.asyn import sync

    found: _Found | None = sync(system.loop, _ask, system)
    if found is not None:
        _state.source = _source(found.method)
    return found


async def _ask(system: Any) -> _Found | None:
    from botocore.credentials import RefreshableCredentials

    await system.set_session()
    credentials = await system.session.get_credentials()
    if credentials is None:
        return None
    method, region = str(credentials.method), system.session.get_config_variable("region")
    keys = await credentials.get_frozen_credentials()
    if method == _ENVIRONMENT:
        variables = _set_variables(KEYS)
    else:
        named = zip(KEYS, (keys.access_key, keys.secret_key, keys.token), strict=False)
        variables = {} if method == _INSTANCE else {name: value for name, value in named if value}
    renewing = isinstance(credentials, RefreshableCredentials) and method != _ENVIRONMENT
    return _Found(method, variables, renewing, region)


def _may_be_read_again(method: str) -> bool:
    return _state.block is not None or method in _FILES


def _is_time() -> bool:
    now = current_clock().monotonic()
    if now - _state.read_at < _READ_AGAIN_SECONDS:
        return False
    _state.read_at = now
    return True


def _read_again() -> bool:
    """Reads the block again, and lets botocore find what there is by now; whether that is something else."""
    before = _find()
    if _state.block is not None and _state.settings is not None:
        try:
            _state.settings.copy().run(_read_block, _state.block)
            _state.warned = ""
        except JobError as error:
            if _state.warned != str(error):
                log.warning("%s; the run goes on with the credentials that it has", error)
            _state.warned = str(error)
    reopen_filesystems()
    changed = _find() != before
    _state.version += changed
    return changed


def _source(method: str) -> Source:
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE") or "default"
    if _state.block is not None:
        return Source(f"the Prefect block {_state.block}", "put new ones into it")
    if method == _ENVIRONMENT:
        others = "AWS_PROFILE, a web identity, a role of the container or instance"
        return Source("the environment", f"set new ones, or name a source that renews itself ({others}),")
    if method in _FILES:
        return Source(f"the file with the profile {profile}", "renew them there")
    if method in _SIGN_IN:
        return Source(f"the profile {profile}", f"sign in again (`{_SIGN_IN[method]} --profile {profile}`)")
    return Source(f"botocore's provider {method}", "check what it gives")
