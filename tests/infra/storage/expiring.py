"""A server of temporary keys, as a container has one, and an S3 server that refuses all but the newest of them."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from moto.server import DomainDispatcherApplication, create_backend_app

from barycenter.infra.storage import credentials, filesystems
from tests.chaos.faults import serve

VARIABLES = (
    *credentials.KEYS,
    *credentials.SETTINGS,
    *("AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_CONTAINER_CREDENTIALS_FULL_URI"),
)


class TemporaryKeys:
    """Serves keys at ``/keys`` and, as an instance does, at ``/latest``; all else from S3, to the newest key only.

    Attributes:
        number: How many keys there were.
        refused: How many requests were signed by an older one.
        url: Where it is served.
        environment: Where tests set variables while it is served.
        life: How long a key says that it lasts; clients ask for another ten minutes before its end.
    """

    def __init__(self) -> None:
        self.number = self.refused = 0
        self.url, self.life = "", timedelta(minutes=5)
        self.environment: pytest.MonkeyPatch
        self._s3 = DomainDispatcherApplication(create_backend_app)
        self._lock = threading.Lock()

    @property
    def variables(self) -> dict[str, str]:
        """The newest key as variables of the environment."""
        return dict(zip(credentials.KEYS, list(self.key.values())[:3], strict=False))

    @property
    def key(self) -> dict[str, str]:
        """The newest key."""
        end = (datetime.now(UTC) + self.life).isoformat(timespec="seconds")
        name = f"ASIA{self.number:04d}"
        return {"AccessKeyId": name, "SecretAccessKey": f"secret {name}", "Token": f"token {name}", "Expiration": end}

    def end(self) -> None:
        """Ends the newest key: there is another."""
        with self._lock:
            self.number += 1

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if path == "/keys" or path.startswith("/latest/"):
            start_response("200 OK", [("Content-Type", "application/json")])
            role = path in ("/latest/api/token", "/latest/meta-data/iam/security-credentials/")
            return [b"a-role" if role else json.dumps(self.key | {"Code": "Success"}).encode()]
        signed = re.search(r"Credential=(\w+)/", environ.get("HTTP_AUTHORIZATION", ""))
        key = self.key
        if signed and signed[1] == key["AccessKeyId"] and environ.get("HTTP_X_AMZ_SECURITY_TOKEN") == key["Token"]:
            return self._s3(environ, start_response)
        environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
        with self._lock:
            self.refused += 1
        start_response("400 Bad Request", [("Content-Type", "application/xml")])
        error = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [error]


@contextmanager
def temporary_keys() -> Iterator[TemporaryKeys]:
    """Such a server, while no credentials are in the environment and none are known to this process."""
    keys = TemporaryKeys()
    server, keys.url = serve(keys)
    with pytest.MonkeyPatch.context() as keys.environment:
        for name in VARIABLES:
            keys.environment.setenv(name, "to be restored, whatever a test leaves")
            keys.environment.delenv(name)
        keys.environment.setattr(filesystems, "_opened", {})
        keys.environment.setattr(credentials, "_state", credentials._State())
        keys.environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        keys.environment.setenv("AWS_CONFIG_FILE", "/nowhere")
        try:
            yield keys
        finally:
            server.shutdown()
