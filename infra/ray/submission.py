"""A job for somebody else's Ray cluster: the package and the job file, sent through Ray's job API."""

import asyncio
import ipaddress
import os
import re
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import barycenter
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.clock import current_clock
from barycenter.infra.job.loader import dump_job
from barycenter.infra.job.models import Job
from barycenter.infra.logs import VARIABLE
from barycenter.infra.names import identifier
from barycenter.infra.storage.errors import first_line
from barycenter.infra.userinfo import holds_secret, without_userinfo

_SOURCES = (".py", ".html", ".jinja", ".yaml", ".json", ".txt")
_PASSED_ON = ("PREFECT_API_URL", VARIABLE, "PREFECT_LOGGING_LEVEL")
_JOB_FILE = "job.yaml"
_PATIENCE_SECONDS = 120.0
_AGAIN_SECONDS = 2.0
_STOPPED = 143
"""As of a process that was ended by SIGTERM."""


def submit(address: str, job: Job, flags: Sequence[str] = (), *, write: Any = print) -> int:
    """Runs ``barycenter run`` on a cluster's head node and follows it to its end.

    The driver runs inside the cluster. What is shipped is the code and the job file, no data and no credentials; paths
    must mean the same on every node. What is done stays done: submitting again goes on where this stopped.

    Args:
        address: The dashboard's address, such as ``http://head:8265``.
        job: The job, its paths resolved; ``ray.address: local`` becomes ``auto``.
        flags: Further flags of ``barycenter run``.
        write: Called with every piece of the driver's log, and with lines about the submission.

    Returns:
        The exit code of the driver; 143 of a job that was stopped.

    Raises:
        JobError: The address is no URL of a dashboard, the job is to run without Ray, or what is passed on holds a
            secret.
        RunError: The cluster does not answer or refuses the token, or is gone for two minutes.
    """
    if job.ray.address == "none":
        raise JobError("ray.address", "none is a run without Ray in this process; to submit it, set local or auto")
    _authenticate(address)
    client = _client(address)
    passed, shown = _passed_on(), without_userinfo(address)
    with package_folder(job) as folder:
        submission = client.submit_job(
            entrypoint=" ".join(["python -m barycenter.flows.cli run", _JOB_FILE, *flags]),
            submission_id=f"{identifier(job.name)}-{current_clock().token(4)}",
            runtime_env={"working_dir": str(folder), "env_vars": {"PYTHONUNBUFFERED": "1", "COLUMNS": "120"} | passed},
            metadata={"barycenter.job": job.name, "barycenter.fingerprint": job.fingerprint()},
        )
    write(f"submitted {submission} to {shown}; `ray job stop {submission} --address {shown}` stops it\n")
    try:
        info = _ended(client, submission, write, shown)
    except KeyboardInterrupt:
        raise RunError(f"{submission} is still running; `ray job logs {submission} -f` follows it again") from None
    return _exit_code(info, submission, write)


def _passed_on() -> dict[str, str]:
    """The variables that go along; Ray shows them on the job's page."""
    passed = {name: value for name in _PASSED_ON if (value := os.environ.get(name))}
    for name, value in passed.items():
        if holds_secret(value):
            raise JobError(
                name,
                "holds a user name or password, which the job's page on the cluster would show; set it without, and "
                "PREFECT_API_AUTH_STRING or PREFECT_API_KEY on the cluster's nodes",
            )
    return passed


@contextmanager
def package_folder(job: Job) -> Iterator[Path]:
    """A temporary folder with what the cluster needs: the package's sources, its metadata and the job file."""
    with tempfile.TemporaryDirectory(prefix="barycenter-") as name:
        folder = Path(name)
        package = Path(barycenter.__file__).parent
        shutil.copytree(package, folder / package.name, ignore=_only_sources)
        _write_metadata(folder)
        if job.ray.address == "local":  # it is to join the cluster that it runs in
            job = job.model_copy(update={"ray": job.ray.model_copy(update={"address": "auto"})})
        (folder / _JOB_FILE).write_text(dump_job(job), encoding="utf-8")
        yield folder


def _only_sources(folder: str, names: list[str]) -> set[str]:
    files = {name for name in names if Path(folder, name).is_file()}
    return {name for name in files if Path(name).suffix not in _SOURCES} | ({"__pycache__"} & set(names))


def _write_metadata(folder: Path) -> None:
    """Lets ``importlib.metadata`` know the version of the code that is shipped, installed there or not."""
    try:
        version = metadata("barycenter")["Version"]
    except PackageNotFoundError:
        version = "0"
    info = folder / f"barycenter-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: barycenter\nVersion: {version}\n")


def _authenticate(address: str) -> None:
    """Ray wants its mode said aloud: the token where there is one, none at all on this machine only."""
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise JobError(
            "--address", f"{without_userinfo(address)!r} is no URL of a Ray dashboard, such as http://head:8265"
        )
    if "RAY_AUTH_MODE" in os.environ:
        return
    if "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        os.environ["RAY_AUTH_MODE"] = "token"
    elif _is_this_machine(url.hostname):
        os.environ["RAY_AUTH_MODE"] = "disabled"
    else:
        raise RunError(
            f"{url.hostname}: no way to authenticate; set RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's "
            "token, or RAY_AUTH_MODE=disabled for a cluster without one"
        )


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _client(address: str) -> Any:
    from ray.job_submission import JobSubmissionClient

    try:
        return JobSubmissionClient(address)
    except Exception as error:
        text, shown = without_userinfo(" ".join(str(error).split())), without_userinfo(address)
        if re.search(r"uthenticat|nauthorized|orbidden", text):
            raise RunError(f"{shown} refuses access: {text[:300]}; check RAY_AUTH_MODE and RAY_AUTH_TOKEN") from error
        raise RunError(f"no Ray dashboard answers at {shown}: {text[:300]}; start it or correct --address") from error


def _ended(client: Any, submission: str, write: Any, address: str) -> Any:
    """What Ray knows of a job that has ended; until then its log is written, also across a connection that breaks."""
    log, clock = _Log(write), current_clock()
    lost: float | None = None
    while True:
        with suppress(_BrokenConnectionError):
            asyncio.run(log.follow(client.tail_job_logs(submission)))
        try:
            info = client.get_job_info(submission)
            if info.status.is_terminal():
                return info
            lost = None
        except Exception as error:
            lost = clock.monotonic() if lost is None or log.take_news() else lost
            if clock.monotonic() - lost > _PATIENCE_SECONDS:
                raise RunError(
                    f"{address} has not answered for {_PATIENCE_SECONDS:.0f} s ({first_line(error, 200)}); where the "
                    f"cluster lives, {submission} may still run: `ray job status {submission} --address {address}`"
                ) from error
        clock.sleep(_AGAIN_SECONDS)


class _BrokenConnectionError(Exception):
    """A connection to a job's log broke."""


class _Log:
    """Writes a job's log on from where it was; each connection begins at its start."""

    def __init__(self, write: Any) -> None:
        self._write, self._written, self._known = write, 0, 0

    async def follow(self, pieces: AsyncIterator[str]) -> None:
        """Writes what is new, until the connection ends; raises _BrokenConnectionError where it breaks."""
        seen = 0
        while True:
            try:
                piece = await anext(pieces)
            except StopAsyncIteration:
                return
            except Exception as error:
                raise _BrokenConnectionError from error
            new = piece[max(0, self._written - seen) :]
            seen += len(piece)
            if new:
                self._write(new)
                self._written = seen

    def take_news(self) -> bool:
        """Whether anything came since this was last asked."""
        known, self._known = self._known, self._written
        return self._written > known


def _exit_code(info: Any, submission: str, write: Any) -> int:
    status = str(info.status.value)
    if status == "SUCCEEDED":
        return 0
    write(f"{submission}: {status.lower()}: {' '.join(str(info.message).split())[:300]}\n")
    return _STOPPED if status == "STOPPED" else int(info.driver_exit_code or 1)
