"""Credentials and endpoint of object storage: from the environment, or out of a Prefect block into it.

They are written nowhere.
"""

import json
import os
from functools import lru_cache
from typing import Any

from barycenter.fusion.errors import JobError

_KEY = "storage.credentials_block"
_ATTRIBUTES = {
    "AWS_ACCESS_KEY_ID": "aws_access_key_id",
    "AWS_SECRET_ACCESS_KEY": "aws_secret_access_key",
    "AWS_SESSION_TOKEN": "aws_session_token",
    "AWS_DEFAULT_REGION": "region_name",
    "AWS_ENDPOINT_URL": "aws_client_parameters.endpoint_url",
}
"""The variables that S3's clients read, and where Prefect's ``AwsCredentials`` block has them."""


def environment_credentials() -> dict[str, str]:
    """The credentials of this process and its endpoint, to be handed to workers in memory."""
    return {name: os.environ[name] for name in _ATTRIBUTES if os.environ.get(name)}


@lru_cache(maxsize=8)
def load_credentials_block(name: str) -> None:
    """Puts the credentials of a Prefect block into this process's environment, once, and its endpoint if it has one.

    ``storage.endpoint_url`` of the job comes before the block's endpoint.

    Args:
        name: Type and name, such as ``secret/emoji-s3`` (a JSON object with AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY
            and, where needed, AWS_SESSION_TOKEN, AWS_DEFAULT_REGION and AWS_ENDPOINT_URL) or
            ``aws-credentials/emoji-s3``.

    Raises:
        JobError: There is no such block, no Prefect server, or no credentials in it.
    """
    from prefect.blocks.core import Block
    from prefect.blocks.system import Secret

    try:
        block: Any = Secret.load(name.removeprefix("secret/")) if name.startswith("secret/") else Block.load(name)
    except Exception as error:  # noqa: BLE001 - whatever Prefect raises, without what it may quote
        reason = type(error).__name__ if not isinstance(error, ValueError) else "there is no such block"
        raise JobError(_KEY, f"{name!r} cannot be loaded ({reason}); check PREFECT_API_URL and the name") from None
    found = _values(block.get() if isinstance(block, Secret) else block)
    if not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= found.keys():
        raise JobError(_KEY, f"{name!r} holds no AWS_ACCESS_KEY_ID with an AWS_SECRET_ACCESS_KEY")
    os.environ.update(found)


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
