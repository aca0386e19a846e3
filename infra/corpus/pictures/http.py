"""Fetches pictures by http(s) with retries; hosts whose pictures fail repeatedly are paused."""

import http.client
import math
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from barycenter.fusion.errors import BadInputError, Reason, RunError
from barycenter.infra.clock import current_clock

NO_ANSWER = "no answer from "
"""Beginning of the detail of an ``http_error`` where no server answered; another run may fetch that picture."""

TRIES = 3
_WAIT_SECONDS = (0.5, 2.0)
_RETRY_STATUSES = (408, 425, 429)
_CHUNK_BYTES = 1 << 16
_MAX_FAILURES = 8
_PAUSE_SECONDS = 600.0


class Hosts:
    """Counts failures by host in this process, and pauses hosts that failed ``_MAX_FAILURES`` times in a row.

    Attributes:
        last_answer: Time of the last answer of any host, on the monotonic clock; minus infinity where there was none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failures: dict[str, int] = {}
        self._paused_until: dict[str, float] = {}
        self.last_answer = -math.inf

    def record_answer(self, host: str) -> None:
        """Records that a host answered a request; ends its pause."""
        with self._lock:
            self.last_answer = current_clock().monotonic()
            self._failures.pop(host, None)
            self._paused_until.pop(host, None)

    def record_failure(self, host: str) -> None:
        """Records that all tries for one picture failed; pauses the host after many in a row."""
        with self._lock:
            self._failures[host] = self._failures.get(host, 0) + 1
            if self._failures[host] >= _MAX_FAILURES:
                self._paused_until[host] = current_clock().monotonic() + _PAUSE_SECONDS

    def is_paused(self, host: str) -> bool:
        """Whether the host is paused."""
        with self._lock:
            return self._paused_until.get(host, -math.inf) > current_clock().monotonic()


HOSTS = Hosts()


@lru_cache
def _fetch_slots(concurrency: int) -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(concurrency)


def fetch(url: str, max_bytes: int, seconds: float, concurrency: int) -> bytes:
    """Fetches the picture behind a URL; each try may take ``seconds``.

    At most ``concurrency`` pictures are fetched at a time in this process.

    Raises:
        BadInputError: http_error (its detail begins with ``NO_ANSWER`` where the server did not answer, was busy or
            failed in each try) or too_large.
    """
    host = _host_and_port(url)
    with _fetch_slots(concurrency):
        for wait in (*_WAIT_SECONDS, None):
            if HOSTS.is_paused(host):
                raise _no_answer_error(
                    url,
                    host,
                    f"{_MAX_FAILURES} of its pictures in a row failed, it is paused for {_PAUSE_SECONDS:.0f} s",
                )
            try:
                data = _download(url, max_bytes, seconds)
            except urllib.error.HTTPError as error:
                problem, retry = f"{error.code} {error.reason}", error.code >= 500 or error.code in _RETRY_STATUSES
                if not retry:
                    HOSTS.record_answer(host)
                    raise BadInputError(Reason.HTTP_ERROR, f"{url}: {problem}") from None
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, http.client.InvalidURL):
                    raise BadInputError(Reason.HTTP_ERROR, f"{url}: {error}") from None
                problem, retry = _describe_failure(error)
            except ValueError as error:
                raise BadInputError(Reason.HTTP_ERROR, f"{url}: {error}") from None
            else:
                HOSTS.record_answer(host)
                return data
            if wait is None or not retry:
                break
            current_clock().sleep(wait)
        HOSTS.record_failure(host)
        raise _no_answer_error(url, host, problem)


def check_network(source: str, details: Sequence[str | None], values: int, begun: float) -> None:
    """Raises where the network rather than single pictures failed.

    That is assumed where all pictures of a shard (eight or more) were requested, and no host has answered any request
    since; if they are of one host, only where none has answered this process before either.

    The shard of the file ``source`` has ``values`` pictures, and ``details`` of its bad inputs; ``begun`` is the time
    before the first request, on the monotonic clock.

    Raises:
        RunError: The network failed; nothing of the shard may be committed.
    """
    silent = [detail for detail in details if detail is not None and detail.startswith(NO_ANSWER)]
    if len(silent) < max(values, _MAX_FAILURES) or HOSTS.last_answer >= begun:
        return
    hosts = {detail.removeprefix(NO_ANSWER).partition(": ")[0] for detail in silent}
    if len(hosts) > 1 or HOSTS.last_answer == -math.inf:
        raise RunError(
            f"{source}: none of {values} pictures could be fetched ({silent[0]}); is the network, a proxy or the "
            "server down? None of these rows was written; run the job again"
        )


def _host_and_port(url: str) -> str:
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError as error:
        raise BadInputError(Reason.HTTP_ERROR, f"{url}: {error}") from None


def _no_answer_error(url: str, host: str, problem: str) -> BadInputError:
    """Builds the ``http_error`` of a picture that another run may fetch."""
    return BadInputError(Reason.HTTP_ERROR, f"{NO_ANSWER}{host}: {problem}; --retry-bad tries again ({url})")


def _describe_failure(error: Exception) -> tuple[str, bool]:
    """Returns a description of a failed try, and whether a retry may succeed."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        return ("no such host" if cause.errno == socket.EAI_NONAME else str(cause)), cause.errno == socket.EAI_AGAIN
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {cause.verify_message}", False
    if isinstance(cause, TimeoutError):
        return "not complete within limits.http_timeout", True
    return f"{cause}" or type(cause).__name__, True


def _download(url: str, max_bytes: int, seconds: float) -> bytes:
    """Downloads a URL; raises ``TimeoutError`` after ``seconds`` in all and ``BadInputError`` above ``max_bytes``."""
    deadline = current_clock().monotonic() + seconds
    chunks: list[bytes] = []
    size = 0
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        while chunk := answer.read1(_CHUNK_BYTES):
            chunks.append(chunk)
            size += len(chunk)
            if size > max_bytes:
                raise BadInputError(Reason.TOO_LARGE, f"{url}: more than {max_bytes} bytes")
            if current_clock().monotonic() > deadline:
                raise TimeoutError
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(chunks)
