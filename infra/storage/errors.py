"""Storage faults: which are worth another try, and the one line a user gets for the others."""

import errno
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from barycenter.fusion.errors import BarycenterError, RunError
from barycenter.infra.clock import current_clock
from barycenter.infra.storage.credentials import credentials_source, credentials_version, look_for_newer
from barycenter.infra.userinfo import without_userinfo

T = TypeVar("T")

RETRY_SECONDS = 60.0
"""Seconds that a remote operation goes on being tried after its first fault."""

_BUSY_CODES = {
    *("SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException", "IncompleteBody"),
    *("TooManyRequestsException", "InternalError", "ServiceUnavailable", "OperationAborted", "BadDigest"),
    "ConditionalRequestConflict",
}
_WIRE_FAULTS = {
    *("botocore.HTTPClientError", "botocore.IncompleteReadError", "botocore.ResponseParserError"),
    *("aiohttp.ClientError", "http.IncompleteRead", "botocore.CredentialRetrievalError"),
}
_DENIED_CODES = frozenset({"AccessDenied", "403", "Forbidden", "AllAccessDisabled"})
_UNKNOWN_CODES = frozenset({"SignatureDoesNotMatch", "InvalidAccessKeyId"})
_EXPIRED_CODES = frozenset(
    {"ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidTokenId", "TokenRefreshRequired"}
)
_REFUSED_CODES = _EXPIRED_CODES | {"InvalidAccessKeyId", "400"}
"""Answers to credentials that ended; to a HEAD request, whose answer has no body, 400 alone."""

_STILL_EXPIRED = "refreshed credentials are still expired"
_OF_A_SOURCE = ("Credential", "Token", "SSO", "Login", "Profile", "Metadata", "MFA", "InvalidConfig")
"""Parts of the names of botocore's errors about a source of credentials."""

_ASKING = ("AssumeRole", "AssumeRoleWithWebIdentity", "GetRoleCredentials", "CreateToken")
"""Operations by which botocore gets credentials."""

_NOT_IMPLEMENTED = 501
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class MissingFileError(RunError):
    """A stored file that was to be read is not there."""


def first_line(error: BaseException, most: int | None = 200) -> str:
    """The beginning of an error's first line; the name of its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:most]


def _chain(error: BaseException | None, handled: BaseException | None = None) -> Iterator[BaseException]:
    """An error and its causes, up to one that was being handled already when it arose."""
    while error is not None and error is not handled:
        yield error
        error = error.__cause__ or error.__context__


def _s3_code(error: BaseException, handled: BaseException | None = None) -> tuple[str, int] | None:
    """The S3 error code and HTTP status somewhere in the chain of causes."""
    for link in _chain(error, handled):
        response = getattr(link, "response", None)
        if isinstance(response, dict):
            code = str(response.get("Error", {}).get("Code", ""))
            return code, int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return None


def is_failed_precondition(error: BaseException) -> bool:
    """Whether S3 refused a request because the object is not, or no longer, what it asks for."""
    answer = _s3_code(error)
    return answer is not None and (answer[0] in ("PreconditionFailed", "NoSuchKey") or answer[1] == 412)


def is_transient(error: BaseException, handled: BaseException | None = None) -> bool:
    """Whether the same request may well succeed in a moment: busy server, timeout, cut connection.

    ``handled`` is what was being handled when the request was made: Python chains it to the error, and it says nothing.
    """
    answer = _s3_code(error, handled)
    if answer is not None:
        code, status = answer
        return (status >= 500 and status != _NOT_IMPLEMENTED) or status == 429 or code in _BUSY_CODES
    return any(
        isinstance(link, ConnectionError | TimeoutError) or _is_wire_fault(link) for link in _chain(error, handled)
    )


def is_unanswered(error: BaseException, handled: BaseException | None = None) -> bool:
    """Whether a request failed without any answer, so that it may still be carried out, as late as it likes."""
    return _s3_code(error, handled) is None and is_transient(error, handled)


def _is_wire_fault(error: BaseException) -> bool:
    names = {base.__module__.partition(".")[0] + "." + base.__name__ for base in type(error).__mro__}
    return not names.isdisjoint(_WIRE_FAULTS)


def are_credentials_refused(error: BaseException, handled: BaseException | None = None) -> bool:
    """Whether a request failed as it does with credentials that ended; newer ones may be had."""
    answer = _s3_code(error, handled)
    return answer[0] in _REFUSED_CODES if answer is not None else _are_still_expired(error, handled)


def _are_still_expired(error: BaseException, handled: BaseException | None) -> bool:
    return any(isinstance(link, RuntimeError) and _STILL_EXPIRED in str(link) for link in _chain(error, handled))


def _source_error(error: BaseException, handled: BaseException | None) -> BaseException | None:
    """What a source of credentials raised, if that is what went wrong."""
    for link in _chain(error, handled):
        name = type(link).__name__
        if type(link).__module__ != "botocore.exceptions" or name == "NoCredentialsError":
            continue
        if getattr(link, "operation_name", "") in _ASKING or any(part in name for part in _OF_A_SOURCE):
            return link
    return None


def retrying(operation: Callable[[], T], seconds: float | None = None) -> T:
    """Runs ``operation`` until it succeeds, fails for good, or transient faults outlast ``seconds`` seconds.

    Credentials that the server refuses are such a fault where newer ones may be had, if ``operation`` asks for its file
    system anew.
    Waits grow exponentially from 0.1 s to 5 s with full jitter. This is the only retry: those of the client
    libraries underneath are switched off.
    """
    limit = RETRY_SECONDS if seconds is None else seconds
    first_fault: float | None = None
    longest_wait = 0.1
    clock, handled = current_clock(), sys.exc_info()[1]
    while True:
        version = credentials_version()
        try:
            return operation()
        except Exception as error:
            now = clock.monotonic()
            first_fault = now if first_fault is None else first_fault
            again = is_transient(error, handled) or (
                are_credentials_refused(error, handled) and look_for_newer(version)
            )
            if not again or now - first_fault >= limit:
                raise
            clock.sleep(clock.uniform(0.05, longest_wait))
            longest_wait = min(5.0, 2 * longest_wait)


class storage_errors:  # noqa: N801 - used as a function is
    """Turns whatever a storage library raises inside the block into one line about ``uri``."""

    __slots__ = ("_handled", "_uri")

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def __enter__(self) -> None:
        self._handled = sys.exc_info()[1]

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, BarycenterError):
            line = _line(error, self._uri, self._handled)
            if line is not None:
                raise line from error


@contextmanager
def full_disk_errors(uri: str) -> Iterator[None]:
    """As :func:`storage_errors`, but only for a full disk: the block's other errors are the caller's own."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise RunError(f"no space left on {uri}; free some and run again") from error
        raise


def _line(error: Exception, uri: str, handled: BaseException | None) -> RunError | None:
    answer = _s3_code(error, handled)
    code = answer[0] if answer else ""
    number = error.errno if isinstance(error, OSError) else None
    if code == "NoSuchBucket":
        return RunError(f"{_bucket(uri)}: there is no such bucket; create it or correct the path")
    if answer is not None and (code == "NotImplemented" or answer[1] == _NOT_IMPLEMENTED):
        return RunError(
            f"{uri}: the storage server does not implement a request that is needed; "
            "use one that has conditional writes (If-None-Match, If-Match) and multipart uploads"
        )
    if (refused := credentials_error(error, uri, handled)) is not None:
        return refused
    if code in _DENIED_CODES or any("NoCredentials" in type(link).__name__ for link in _chain(error, handled)):
        return RunError(f"{uri}: access denied; check the credentials in the environment and what they may do")
    if isinstance(error, FileNotFoundError) or number == errno.ENOTDIR:
        return MissingFileError(f"{uri}: no such file; restore it, or run the job again")
    if number in _FULL:
        return RunError(f"no space left on {uri}; free some and run again")
    if isinstance(error, PermissionError):
        return RunError(f"{uri}: permission denied; check the owner and mode of the folder")
    if number == errno.EROFS:
        return RunError(f"{uri}: the file system is read-only; choose another output.path")
    if isinstance(error, IsADirectoryError | FileExistsError | NotADirectoryError):
        return RunError(f"{uri}: a folder is in the place of a file, or the reverse; move it away")
    if is_transient(error, handled):
        what = code or type(error).__name__
        return RunError(
            f"{uri}: the storage server did not answer properly for {RETRY_SECONDS:.0f} s ({what}); run again"
        )
    return RunError(f"{uri}: {code or error.strerror or type(error).__name__}") if isinstance(error, OSError) else None


def credentials_error(error: Exception, uri: str, handled: BaseException | None = None) -> RunError | None:
    """The line about ``uri`` where credentials are the problem: what, where from, what to do; else None."""
    answer = _s3_code(error, handled)
    code = answer[0] if answer else ""
    name, remedy = credentials_source()
    if code in _EXPIRED_CODES or _are_still_expired(error, handled):
        what = f"the storage credentials have ended ({code or 'expired'}) and {name} has no newer ones"
        return RunError(f"{uri}: {what}; {remedy} and run again; what is done stays done")
    if code in _UNKNOWN_CODES:
        return RunError(f"{uri}: the storage server does not accept the credentials of {name} ({code}); correct them")
    if code == "400":
        return RunError(
            f"{uri}: the storage server refused the request without a reason (400), as where credentials have ended or "
            f"the region is another; the credentials are of {name}; {remedy} and run again"
        )
    source = _source_error(error, handled)
    if source is not None:
        reason = without_userinfo(first_line(source))
        return RunError(f"{uri}: no storage credentials could be had ({reason}); check their source and run again")
    return None


def _bucket(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    return f"{scheme}://{rest.partition('/')[0]}"
