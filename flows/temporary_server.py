"""A Prefect server for the length of one run: a process of its own, with a database of its own.

As a module it is that process: ``python -m barycenter.flows.temporary_server FD FOLDER`` serves on an open socket until
its standard input ends, which it does when the run ends in whatever way, and removes the folder of its database.
"""

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

from barycenter.flows.health import answers
from barycenter.fusion.errors import RunError

_HOST = "127.0.0.1"
_LOOK_SECONDS = 0.1
_ANSWER_SECONDS = 5.0
_STARTS = 3
_LAST_WORDS = 200
_DATABASE = ("PREFECT_SERVER_DATABASE_CONNECTION_URL", "PREFECT_API_DATABASE_CONNECTION_URL")
_FIXED = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


class TemporaryServer:
    """Starts at once, and is waited for when it is needed.

    To make Prefect's tables takes a fresh database several seconds, so an empty one of each version of Prefect is kept
    below its home and copied.

    Args:
        home: Prefect's.
        patience: Seconds that the start may take.
        settings: Prefect's settings for the server, as environment variables.
    """

    def __init__(self, home: Path, patience: float, settings: Mapping[str, str]) -> None:
        self._patience, self._settings = patience, settings
        self._empty = home / "barycenter" / f"empty-{version('prefect')}.db"
        self._folder = Path(tempfile.mkdtemp(prefix="barycenter-prefect-"))
        self._database = self._folder / "prefect.db"
        with contextlib.suppress(OSError):
            shutil.copyfile(self._empty, self._database)
        self._socket = socket.create_server((_HOST, 0))  # open from now on, so that nobody else gets its port
        self._process = self._start()

    @property
    def api(self) -> str:
        """Its API address."""
        return f"http://{_HOST}:{self._socket.getsockname()[1]}/api"

    def wait(self) -> None:
        """Returns once it answers.

        Raises:
            RunError: It does not within its time.
        """
        end, started = time.monotonic() + self._patience, 1
        seconds = min(_ANSWER_SECONDS, self._patience)
        while self._process.poll() is not None or not answers(self.api, seconds):
            if self._process.poll() is not None:
                if started == _STARTS or time.monotonic() > end:
                    raise self._error(f"it ended with status {self._process.returncode}: {self._last_words()}")
                for doubtful in (self._database, self._empty):
                    doubtful.unlink(missing_ok=True)
                self._process, started = self._start(), started + 1
            if time.monotonic() > end:
                raise self._error(f"no answer within {self._patience:.0f} s")
            time.sleep(_LOOK_SECONDS)
        if not self._empty.exists():
            with contextlib.suppress(OSError, sqlite3.Error):
                _keep(self._database, self._empty)

    def stop(self) -> None:
        """Ends it; nothing of it is left."""
        self._process.kill()
        self._process.communicate()
        self._socket.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> subprocess.Popen[bytes]:
        database = dict.fromkeys(_DATABASE, f"sqlite+aiosqlite:///{self._database}")
        fd = self._socket.fileno()
        with (self._folder / "stderr").open("wb") as stderr:
            return subprocess.Popen(
                [sys.executable, "-m", "barycenter.flows.temporary_server", str(fd), str(self._folder)],
                pass_fds=[fd],
                env={**os.environ, **self._settings, **_FIXED, **database},
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                start_new_session=True,  # a terminal's Ctrl-C is for the run, whose state is then set here
            )

    def _last_words(self) -> str:
        return " ".join((self._folder / "stderr").read_text(errors="replace").split())[-_LAST_WORDS:]

    @staticmethod
    def _error(reason: str) -> RunError:
        return RunError(
            f"the temporary Prefect server did not start: {reason}; run again (on a busy machine with "
            "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS=300), or start one with `prefect server start`"
        )


def _keep(database: Path, empty: Path) -> None:
    """Copies a database under its final name, whoever else does so."""
    empty.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=empty.parent) as folder:
        copy = Path(folder) / empty.name
        with (
            contextlib.closing(sqlite3.connect(database)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        with copy.open("rb") as written:
            os.fsync(written.fileno())
        copy.replace(empty)


def _serve(fd: int, folder: str) -> None:
    def end_with_the_run() -> None:
        while os.read(sys.stdin.fileno(), 1 << 16):
            pass
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(0)

    threading.Thread(target=end_with_the_run, daemon=True).start()
    import uvicorn

    config = uvicorn.Config("prefect.server.api.server:create_app", factory=True, log_level="error")
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=fd)])


if __name__ == "__main__":
    _serve(int(sys.argv[1]), sys.argv[2])
