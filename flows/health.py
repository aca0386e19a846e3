"""Whether a Prefect server is there and takes requests of this process, by the settings of Prefect's own client."""

import socket
from urllib.parse import urlsplit

from barycenter.flows.environment import LOOPBACK
from barycenter.fusion.errors import RunError
from barycenter.infra.storage.errors import first_line

_ANSWER_SECONDS = 1.0
_REFUSALS = (401, 403)


def answers(api: str, seconds: float = _ANSWER_SECONDS) -> bool:
    """Whether a Prefect server answers at an API address; a busy one may take ``seconds``."""
    error = _problem(api, seconds)
    return error is None or _status(error) in _REFUSALS


def check_server(api: str, seconds: float) -> None:
    """Refuses a server that does not answer within so many seconds, or that refuses this client.

    Raises:
        RunError: With the setting of Prefect's to change.
    """
    error = _problem(api, seconds, as_client=True)
    if error is None:
        return
    if (status := _status(error)) in _REFUSALS:
        raise RunError(
            f"the Prefect server at {api} refuses this client ({status}); set PREFECT_API_AUTH_STRING (of a Prefect "
            "Cloud PREFECT_API_KEY) to what it asks for"
        )
    reason = first_line(error, 200)
    advice = "start it (`prefect server start`) or unset PREFECT_API_URL"
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        advice = "set PREFECT_API_SSL_CERT_FILE to a file with the certificate of its authority"
    raise RunError(f"no Prefect server answers at {api} ({reason}); {advice}")


def _problem(api: str, seconds: float, *, as_client: bool = False) -> Exception | None:
    """What went wrong with a health check, and, ``as_client``, with a request that needs to be let in."""
    if (closed := _closed(api, seconds)) is not None:
        return closed
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

    try:
        with (
            temporary_settings({PREFECT_API_URL: api, PREFECT_CLIENT_MAX_RETRIES: 0}),
            get_client(sync_client=True, httpx_settings={"timeout": seconds}) as client,
        ):
            error = client.api_healthcheck()
            if error is None and as_client:
                client.hello()
    except Exception as raised:  # noqa: BLE001 - no address, no such certificate file, a proxy that is no URL
        return raised
    return error


def _closed(api: str, seconds: float) -> OSError | None:
    """Why nobody can be reached at an address of this machine; the client would try four times, within a second."""
    try:
        host, port = urlsplit(api).hostname, urlsplit(api).port
    except ValueError:
        return None
    if host not in LOOPBACK or port is None:
        return None
    try:
        socket.create_connection((host, port), seconds).close()
    except OSError as error:
        return error
    return None


def _status(error: Exception | None) -> int | None:
    """The status of an answer that was an error."""
    response = getattr(error, "response", None)
    return getattr(response, "status_code", None)
