"""Pictures by http(s): each tried a few times, hosts that do not answer left alone for a while."""

import http.client
import math
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from functools import lru_cache
from urllib.parse import urlsplit

from barycenter.fusion.errors import BadInputError, Reason, RunError

NO_ANSWER = "no answer from "
"""How the detail of an ``http_error`` begins where no server said anything about the picture."""

TRIES = 3
_WAITS = (0.5, 2.0)
_BUSY = (408, 425, 429)
_PIECE = 1 << 16
_SILENT = 8
_PAUSE = 600.0


class Hosts:
    """Which hosts have answered in this process, and which are not asked for the moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._failed: dict[str, int] = {}
        self._until: dict[str, float] = {}
        self._last = -math.inf

    @property
    def last_answer(self) -> float:
        """When any host last said something, on the monotonic clock; minus infinity where none ever has."""
        return self._last

    def answer(self, host: str) -> None:
        """A host has said something about a picture."""
        with self._lock:
            self._last = time.monotonic()
            self._failed.pop(host, None)
            self._until.pop(host, None)

    def silence(self, host: str) -> None:
        """All tries of one picture came to nothing."""
        with self._lock:
            self._failed[host] = self._failed.get(host, 0) + 1
            if self._failed[host] >= _SILENT:
                self._until[host] = time.monotonic() + _PAUSE

    def is_paused(self, host: str) -> bool:
        """Whether so many of its pictures failed, one after the other, that it is not asked now."""
        with self._lock:
            return self._until.get(host, -math.inf) > time.monotonic()


HOSTS = Hosts()


@lru_cache
def _slots(concurrency: int) -> threading.BoundedSemaphore:
    return threading.BoundedSemaphore(concurrency)


def fetch(url: str, max_bytes: int, seconds: float, concurrency: int) -> bytes:
    """The picture behind a URL.

    Args:
        url: http or https.
        max_bytes: Larger ones are refused.
        seconds: That a server may take for one try.
        concurrency: Fetches at a time in this process.

    Raises:
        BadInputError: http_error (its detail begins with ``NO_ANSWER`` where the server was not there, busy or broken
            in each try, so that another run may have it) or too_large.
    """
    host = _host(url)
    with _slots(concurrency):
        for wait in (*_WAITS, None):
            if HOSTS.is_paused(host):
                raise _unanswered(url, host, f"{_SILENT} of its pictures in a row failed, it is left alone for a while")
            try:
                data = _downloaded(url, max_bytes, seconds)
            except urllib.error.HTTPError as error:
                problem, again = f"{error.code} {error.reason}", error.code >= 500 or error.code in _BUSY
                if not again:
                    HOSTS.answer(host)
                    raise BadInputError(Reason.HTTP_ERROR, f"{url}: {problem}") from None
            except (OSError, http.client.HTTPException) as error:
                if isinstance(error, http.client.InvalidURL):
                    raise BadInputError(Reason.HTTP_ERROR, f"{url}: {error}") from None
                problem, again = _problem(error)
            except ValueError as error:
                raise BadInputError(Reason.HTTP_ERROR, f"{url}: {error}") from None
            else:
                HOSTS.answer(host)
                return data
            if wait is None or not again:
                break
            time.sleep(wait)
        HOSTS.silence(host)
        raise _unanswered(url, host, problem)


def check_answered(source: str, details: Sequence[str | None], values: int, begun: float) -> None:
    """Stops where it is the network that fails, and not some pictures.

    That is taken to be so where every value of a shard (eight or more) was asked for and none was answered, and nothing
    else was meanwhile, if they are of several hosts, or no host has answered this process yet.

    Args:
        source: The shard's file, for the message.
        details: Of every value that could not be used.
        values: How many the shard has.
        begun: When the first was asked for, on the monotonic clock.

    Raises:
        RunError: It is so; nothing of the shard may be committed.
    """
    silent = [detail for detail in details if detail is not None and detail.startswith(NO_ANSWER)]
    if len(silent) < max(values, _SILENT) or HOSTS.last_answer >= begun:
        return
    hosts = {detail.removeprefix(NO_ANSWER).partition(": ")[0] for detail in silent}
    if len(hosts) > 1 or HOSTS.last_answer == -math.inf:
        raise RunError(
            f"{source}: none of {values} pictures could be fetched ({silent[0]}); is the network, a proxy or the "
            "server down? None of these rows was written; run the job again"
        )


def _host(url: str) -> str:
    """Host and port.

    Raises:
        BadInputError: http_error where the URL is malformed.
    """
    try:
        return urlsplit(url).netloc.rpartition("@")[2]
    except ValueError as error:
        raise BadInputError(Reason.HTTP_ERROR, f"{url}: {error}") from None


def _unanswered(url: str, host: str, problem: str) -> BadInputError:
    return BadInputError(Reason.HTTP_ERROR, f"{NO_ANSWER}{host}: {problem}; --retry-bad tries again ({url})")


def _problem(error: Exception) -> tuple[str, bool]:
    """What a failed try says, and whether another one may do better."""
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, socket.gaierror):
        return ("no such host" if cause.errno == socket.EAI_NONAME else str(cause)), cause.errno == socket.EAI_AGAIN
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"its certificate is not valid: {cause.verify_message}", False
    if isinstance(cause, TimeoutError):
        return "not here in time (limits.http_timeout)", True
    return f"{cause}" or type(cause).__name__, True


def _downloaded(url: str, max_bytes: int, seconds: float) -> bytes:
    """The content of a URL, read in pieces so that neither a slow nor an endless answer holds a worker up."""
    deadline = time.monotonic() + seconds
    pieces: list[bytes] = []
    size = 0
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        while piece := answer.read1(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > max_bytes:
                raise BadInputError(Reason.TOO_LARGE, f"{url}: more than {max_bytes} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError
        if answer.length:
            raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(pieces)
