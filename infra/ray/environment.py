"""What workers take over of the driver's environment, in memory: a token of the hub, proxies, certificates."""

import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import ray

HUB = ("HF_TOKEN", "HF_ENDPOINT")
PROXIES = tuple(
    spelled for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY") for spelled in (name, name.lower())
)
CERTIFICATES = ("AWS_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "SSL_CERT_FILE", "CURL_CA_BUNDLE")
"""Variables that name a file of certificates: a worker takes those over whose file is on its node."""


@dataclass(frozen=True)
class MissingCertificates:
    """What a node lacks.

    Attributes:
        node: Its address.
        files: The files, by the variable that names them in the driver.
    """

    node: str
    files: Mapping[str, str]


@dataclass(frozen=True)
class DriverEnvironment:
    """The driver's variables under :data:`HUB`, :data:`PROXIES` and :data:`CERTIFICATES`; no ``repr`` shows them."""

    variables: Mapping[str, str] = field(repr=False)

    @classmethod
    def here(cls) -> "DriverEnvironment":
        """That of this process; a token that was saved by ``hf auth login`` counts as HF_TOKEN."""
        variables = {name: value for name in (*HUB, *PROXIES, *CERTIFICATES) if (value := os.environ.get(name))}
        if "HF_TOKEN" not in variables and (hub := sys.modules.get("huggingface_hub")):
            with suppress(Exception):  # whoever needs the token meets what is wrong with it
                if token := hub.get_token():
                    variables["HF_TOKEN"] = token
        return cls(variables)

    def take_over(self) -> MissingCertificates | None:
        """Makes it that of this process, as far as its node has the files; what is lacking."""
        missing = {
            name: path for name in CERTIFICATES if (path := self.variables.get(name)) and not Path(path).exists()
        }
        if self.variables.keys() & set(PROXIES):
            for name in PROXIES:
                os.environ.pop(name, None)
        os.environ.update({name: value for name, value in self.variables.items() if name not in missing})
        return MissingCertificates(ray.util.get_node_ip_address(), missing) if missing else None
