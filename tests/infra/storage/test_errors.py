"""Which storage faults are tried again, on a simulated clock, and what a user reads of the others."""

import errno
import http.client

import aiohttp
import botocore.exceptions
import botocore.parsers
import pytest

from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.clock import current_clock, use_clock
from barycenter.infra.storage import Storage, credentials
from barycenter.infra.storage.errors import (
    RETRY_SECONDS,
    MissingFileError,
    first_line,
    full_disk_errors,
    is_transient,
    retrying,
    storage_errors,
)
from barycenter.infra.storage.remote import S3Store
from tests.infra.simulation import SimulatedClock

URI = "s3://data/out/manifest.json"


def answer(code="", status=400, operation="PutObject"):
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return botocore.exceptions.ClientError(response, operation)


def because(error, cause):
    error.__cause__ = cause
    return error


class Extreme(SimulatedClock):
    """Draws the shortest wait, or the longest."""

    def __init__(self, longest: bool) -> None:
        super().__init__()
        self.longest, self.waits = longest, []

    def uniform(self, low, high):
        return high if self.longest else low

    def sleep(self, seconds):
        self.waits.append(seconds)
        super().sleep(seconds)


@pytest.mark.parametrize(
    "code",
    [
        *("SlowDown", "RequestTimeout", "RequestTimeTooSkewed", "Throttling", "ThrottlingException", "IncompleteBody"),
        *("TooManyRequestsException", "InternalError", "ServiceUnavailable", "OperationAborted", "BadDigest"),
        "ConditionalRequestConflict",
    ],
)
def test_a_busy_server_is_asked_again(code):
    assert is_transient(answer(code))
    assert is_transient(because(OSError(5, "input/output error"), answer(code)))


@pytest.mark.parametrize(
    ("status", "again"),
    [(500, True), (502, True), (503, True), (504, True), (501, False), (429, True), (499, False), (428, False)],
)
def test_a_status_without_a_code_says_whether_to_ask_again(status, again):
    assert is_transient(answer(status=status)) is again


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError("the wire"),
        BrokenPipeError(),
        TimeoutError(),
        botocore.exceptions.ReadTimeoutError(endpoint_url="http://s3"),
        botocore.exceptions.ConnectionClosedError(endpoint_url="http://s3"),
        botocore.exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
        botocore.parsers.ResponseParserError("half an answer"),
        aiohttp.ClientPayloadError("cut"),
        http.client.IncompleteRead(b""),
        botocore.exceptions.CredentialRetrievalError(provider="container-role", error_msg="no answer"),
    ],
)
def test_a_cut_wire_is_tried_again_wherever_it_is_in_the_chain(error):
    assert is_transient(error)
    assert is_transient(because(ValueError("outer"), error))
    met_on_the_way = KeyError("outer")
    met_on_the_way.__context__ = error
    assert is_transient(met_on_the_way)


@pytest.mark.parametrize(
    "error", [ValueError("no"), OSError(5, "disk"), FileNotFoundError(), answer("AccessDenied", 403)]
)
def test_what_will_fail_again_is_not_tried_again(error):
    assert not is_transient(error)
    tries = []

    def failing():
        tries.append(1)
        raise error

    with use_clock(SimulatedClock()), pytest.raises(type(error)):
        retrying(failing)
    assert len(tries) == 1


def test_an_answer_that_lacks_everything_is_no_reason_to_ask_again():
    error = OSError(5, "input/output error")
    error.response = {}
    assert not is_transient(error)
    with pytest.raises(RunError, match=f"^{URI}: input/output error$"), storage_errors(URI):
        raise error


@pytest.mark.parametrize(
    ("longest", "first", "tries"), [(True, [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0], 18), (False, [0.05] * 8, 1201)]
)
def test_transient_faults_are_tried_again_for_a_minute_with_growing_waits(longest, first, tries):
    clock, seen = Extreme(longest), []

    def cut():
        seen.append(current_clock().monotonic())
        raise ConnectionResetError("the wire")

    with use_clock(clock), pytest.raises(ConnectionResetError):
        retrying(cut)
    assert clock.waits[:8] == pytest.approx(first)
    assert len(seen) == pytest.approx(tries, abs=1)
    assert RETRY_SECONDS == 60 <= seen[-1] + 1e-6
    assert seen[-2] < 60


def test_the_minute_begins_with_the_first_fault():
    clock = Extreme(longest=True)

    def slow():
        clock.now += 50
        raise TimeoutError

    with use_clock(clock), pytest.raises(TimeoutError):
        retrying(slow)
    assert len(clock.waits) == 2


def test_a_call_that_works_again_gives_its_value_and_another_time_may_be_asked_for():
    faults = [TimeoutError(), answer(status=503)]

    def passing():
        if faults:
            raise faults.pop()
        return "value"

    with use_clock(SimulatedClock()):
        assert retrying(passing) == "value"
    clock = Extreme(longest=True)
    faults.append(TimeoutError())
    with use_clock(clock), pytest.raises(TimeoutError):
        retrying(passing, seconds=0)
    assert clock.waits == []


def test_the_same_seed_gives_the_same_waits():
    def tries_of(seed):
        clock, tries = SimulatedClock(seed), []

        def cut():
            tries.append(clock.now)
            if len(tries) < 9:
                raise TimeoutError

        with use_clock(clock):
            retrying(cut)
        return tries

    assert tries_of(1) == tries_of(1) != tries_of(2)


def test_the_clock_is_the_systems_again_after_the_block():
    before = current_clock()
    with use_clock(SimulatedClock()):
        assert current_clock() is not before
    assert current_clock() is before


UNIMPLEMENTED = (
    f"{URI}: the storage server does not implement a request that is needed; "
    "use one that has conditional writes (If-None-Match, If-Match) and multipart uploads"
)
DENIED = f"{URI}: access denied; check the credentials in the environment and what they may do"
REMEDY = (
    "set new ones, or name a source that renews itself "
    "(AWS_PROFILE, a web identity, a role of the container or instance),"
)
MISPLACED = f"{URI}: a folder is in the place of a file, or the reverse; move it away"


@pytest.fixture
def nothing_known(monkeypatch):
    """A process that has asked for no credentials yet."""
    monkeypatch.setattr(credentials, "_state", credentials._State())


@pytest.mark.usefixtures("nothing_known")
@pytest.mark.parametrize(
    ("error", "line"),
    [
        (answer("NoSuchBucket", 404), "s3://data: there is no such bucket; create it or correct the path"),
        *(
            (
                answer(code),
                f"{URI}: the storage server does not accept the credentials of the environment ({code}); correct them",
            )
            for code in ("SignatureDoesNotMatch", "InvalidAccessKeyId")
        ),
        *(
            (
                answer(code),
                f"{URI}: the storage credentials have ended ({code}) and the environment has no newer ones; {REMEDY} "
                "and run again; what is done stays done",
            )
            for code in ("ExpiredToken", "ExpiredTokenException", "InvalidToken", "InvalidTokenId")
        ),
        (
            answer("400"),
            f"{URI}: the storage server refused the request without a reason (400), as where credentials have ended or "
            f"the region is another; the credentials are of the environment; {REMEDY} and run again",
        ),
        (
            botocore.exceptions.CredentialRetrievalError(provider="sso", error_msg="gone"),
            f"{URI}: no storage credentials could be had (Error when retrieving credentials from sso: gone); check "
            "their source and run again",
        ),
        (
            answer("AccessDenied", 403, "AssumeRole"),
            f"{URI}: no storage credentials could be had (An error occurred (AccessDenied) when calling the AssumeRole "
            "operation: Unknown); check their source and run again",
        ),
        (
            botocore.exceptions.RefreshWithMFAUnsupportedError(),
            f"{URI}: no storage credentials could be had (Cannot refresh credentials: MFA token required.); check "
            "their source and run again",
        ),
        *((answer(code), DENIED) for code in ("AccessDenied", "403", "Forbidden", "AllAccessDisabled")),
        (answer("NotImplemented", 501), UNIMPLEMENTED),
        (answer("", 501), UNIMPLEMENTED),
        (botocore.exceptions.NoCredentialsError(), DENIED),
        (because(OSError("wrapped"), botocore.exceptions.NoCredentialsError()), DENIED),
        (OSError(errno.ENOSPC, "full"), f"no space left on {URI}; free some and run again"),
        (OSError(errno.EDQUOT, "quota"), f"no space left on {URI}; free some and run again"),
        (PermissionError(errno.EACCES, "no"), f"{URI}: permission denied; check the owner and mode of the folder"),
        (OSError(errno.EROFS, "ro"), f"{URI}: the file system is read-only; choose another output.path"),
        (IsADirectoryError(errno.EISDIR, "is a folder"), MISPLACED),
        (FileExistsError(errno.EEXIST, "there"), MISPLACED),
        (NotADirectoryError(), MISPLACED),
        (
            answer("SlowDown", 503),
            f"{URI}: the storage server did not answer properly for 60 s (SlowDown); run again",
        ),
        (
            ConnectionResetError(),
            f"{URI}: the storage server did not answer properly for 60 s (ConnectionResetError); run again",
        ),
        (OSError(errno.EIO, "input/output error"), f"{URI}: input/output error"),
        (OSError("no number"), f"{URI}: OSError"),
        (because(OSError(errno.EIO, "input/output error"), answer("Odd")), f"{URI}: Odd"),
    ],
)
def test_a_fault_is_one_line_that_says_where_and_what_to_do(error, line):
    with pytest.raises(RunError) as raised, storage_errors(URI):
        raise error
    assert str(raised.value) == line
    assert raised.value.__cause__ is error
    assert not isinstance(raised.value, MissingFileError)


@pytest.mark.parametrize("error", [FileNotFoundError(), NotADirectoryError(errno.ENOTDIR, "a file on the way")])
def test_a_file_that_is_not_there_is_an_error_of_its_own(error):
    with (
        pytest.raises(MissingFileError, match=f"^{URI}: no such file; restore it, or run"),
        storage_errors(URI),
    ):
        raise error


@pytest.mark.parametrize("error", [ValueError("ours"), RunError("said"), JobError("key", "wrong"), answer("Odd")])
def test_what_is_no_storage_fault_passes_as_it_is(error):
    with pytest.raises(type(error)) as raised, storage_errors(URI):
        raise error
    assert raised.value is error


def test_of_a_temporary_file_only_a_full_disk_is_put_in_a_line():
    for number in (errno.ENOSPC, errno.EDQUOT):
        with (
            pytest.raises(RunError, match=r"^no space left on /tmp; free some and run again$"),
            full_disk_errors("/tmp"),
        ):
            raise OSError(number, "full")
    other = OSError(errno.EIO, "disk")
    with pytest.raises(OSError, match="disk") as raised, full_disk_errors("/tmp"):
        raise other
    assert raised.value is other
    with full_disk_errors("/tmp"), storage_errors(URI):
        written = True
    assert written


def test_the_first_line_of_an_error():
    assert first_line(ValueError("\n one\ntwo\n")) == "one"
    assert first_line(ValueError()) == "ValueError"
    assert first_line(ValueError("x" * 300)) == "x" * 200
    assert first_line(ValueError("x" * 300), None) == "x" * 300


def test_deletions_that_got_no_answer_are_counted():
    """They may still be carried out; what was answered, even by a refusal, will not come again."""
    answers = [botocore.exceptions.ReadTimeoutError(endpoint_url="http://s3"), answer("SlowDown", 503), {}]

    class Bucket:
        def call_s3(self, method, **request):
            assert method == "delete_objects"
            given = answers.pop(0)
            if isinstance(given, Exception):
                raise given
            return given

    class Store(S3Store):
        _fs = Bucket()

    store = Store("s3://bucket/out", None)
    with use_clock(SimulatedClock()):
        store.remove(["a"])
    assert store.unanswered_deletions == 1
    assert answers == []
    assert Storage("/tmp").unanswered_deletions == 0
