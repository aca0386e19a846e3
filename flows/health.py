"""Whether a Prefect server is there."""

import urllib.error
import urllib.request

import barycenter.flows.environment  # noqa: F401  (this machine is reached without a proxy)

_ANSWER_SECONDS = 1.0


def answers(api: str, seconds: float = _ANSWER_SECONDS) -> bool:
    """Whether a Prefect server answers at an API address; a busy one may take ``seconds``."""
    try:
        with urllib.request.urlopen(f"{api.rstrip('/')}/health", timeout=seconds) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        return error.code in (401, 403)
    except (OSError, ValueError):
        return False
