"""Storage credentials of running workers: handed over at the start, and again whenever the driver has newer ones."""

import logging
import threading
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from barycenter.infra.clock import current_clock
from barycenter.infra.storage.credentials import Credentials, current_credentials, take_over
from barycenter.infra.storage.errors import first_line, storage_errors
from barycenter.infra.userinfo import without_userinfo

log = logging.getLogger(__name__)

GROUP = "credentials"
"""Ray's concurrency group for the call that hands them over: a worker takes it while it is at another."""

_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class Edition:
    """Credentials and how many there were before: a worker that has later ones keeps those."""

    number: int
    credentials: Credentials


class Receiver:
    """A worker's side."""

    def __init__(self) -> None:
        self._lock, self._newest = threading.Lock(), -1

    def receive(self, edition: Edition) -> None:
        """Takes credentials over, unless later ones came before."""
        with self._lock:
            if edition.number > self._newest:
                self._newest = edition.number
                take_over(edition.credentials)


class Renewal:
    """The driver's side: while workers run, a thread looks for newer credentials and sends them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: Edition | None = None
        self._sent: dict[str, tuple[Any, Edition]] = {}
        self._thread: threading.Thread | None = None
        self._warned = ""

    def newest(self, *, read_again: bool = False) -> Edition:
        """The driver's credentials now.

        Raises:
            RunError: Their source has none.
        """
        with storage_errors("s3://"):
            credentials = current_credentials(read_again=read_again)
        with self._lock:
            if self._newest is None or self._newest.credentials != credentials:
                self._newest = Edition(self._newest.number + 1 if self._newest else 0, credentials)
            return self._newest

    def add(self, name: str, handle: Any, edition: Edition) -> None:
        """Sends credentials later than ``edition`` to an actor, too, from now on."""
        with self._lock:
            self._sent[name] = handle, edition
            if self._thread is None and edition.credentials.renewed:
                self._thread = threading.Thread(target=self._watch, name="credentials", daemon=True)
                self._thread.start()

    def remove(self, name: str) -> None:
        """Sends nothing more to an actor."""
        with self._lock:
            self._sent.pop(name, None)

    def _watch(self) -> None:
        while self._goes_on():
            current_clock().sleep(_LOOK_SECONDS)
            try:
                edition = self.newest(read_again=True)
            except Exception as error:  # noqa: BLE001 - workers keep what they have; it may last until there are others
                self._warn(without_userinfo(first_line(error)))
            else:
                self._send(edition)

    def _goes_on(self) -> bool:
        with self._lock:
            if not self._sent:
                self._thread = None
            return self._thread is not None

    def _send(self, edition: Edition) -> None:
        with self._lock:
            behind = {name: handle for name, (handle, sent) in self._sent.items() if sent is not edition}
            self._sent |= {name: (handle, edition) for name, handle in behind.items()}
        for handle in behind.values():
            with suppress(Exception):  # a worker that is gone needs none
                handle.renew.options(concurrency_group=GROUP).remote(edition)

    def _warn(self, reason: str) -> None:
        if reason != self._warned:
            log.warning("the storage credentials of the workers could not be renewed: %s", reason)
        self._warned = reason
