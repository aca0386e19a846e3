"""Runs a target's tests in forked processes: as it is, to learn which test executes which line, and with a change."""

import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from types import CodeType
from typing import Any

import coverage
import pytest

from tests.mutants.mutations import Mutant
from tests.mutants.targets import Target

_PRELOADED = (
    *("numpy", "scipy.linalg", "scipy.stats", "scipy.special", "pandas", "faiss", "hypothesis", "torch.utils.data"),
    *("torch.export", "safetensors.numpy", "sklearn.utils.estimator_checks", "threadpoolctl", "yaml", "polars"),
    *("pyarrow.dataset", "pyarrow.parquet", "pyarrow.compute", "duckdb", "datasets"),
)
"""Imported once; the tested package and its tests are imported anew in every process."""

_ARGUMENTS = ("-q", "-x", "-s", "--no-header", "-p", "no:cacheprovider", "-m", "not slow", "--hypothesis-seed=0")
_LONGEST = 600.0


def preload() -> None:
    """Imports what every process needs, with one thread a library: a forked thread pool would hang."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
    for module in _PRELOADED:
        importlib.import_module(module)


@dataclass
class Known:
    """What the unchanged source showed.

    Attributes:
        seconds: What each test takes, in the order in which they ran.
        lines: ``{file: {line: tests}}``; a line that runs at import belongs to the test "".
        start: Seconds before the first test.
    """

    seconds: dict[str, float] = field(default_factory=dict)
    lines: dict[str, dict[int, set[str]]] = field(default_factory=dict)
    start: float = 0.0

    def tests(self, mutant: Mutant) -> list[str]:
        """The tests that may notice a change, the quickest first: all, where it is not known which."""
        found = self.lines.get(mutant.file, {}).get(mutant.line, {""})
        chosen = self.seconds if "" in found else found
        return sorted(chosen, key=lambda test: (self.seconds.get(test, 0.0), test))

    def limit(self, tests: list[str]) -> float:
        """Seconds that they may take."""
        return min(_LONGEST, 20 + 2 * self.start + 6 * sum(self.seconds.get(test, 0.0) for test in tests))


class _Recorder:
    """A plugin that measures tests and which lines each executes."""

    def __init__(self, root: Path, target: Target, answer: Path) -> None:
        self._root, self._target, self._answer = root, target, answer
        self._begin = time.monotonic()
        self._coverage = coverage.Coverage(data_file=None, include=[str(root / file) for file in target.files])
        self._known = Known()
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self._known.start = self._known.start or time.monotonic() - self._begin
        self._coverage.switch_context(item.nodeid)
        begin = time.monotonic()
        result = yield
        self._known.seconds[item.nodeid] = time.monotonic() - begin
        return result

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        for file in self._target.files:
            by_line = data.contexts_by_lineno(str(self._root / file))
            self._known.lines[file] = {line: set(tests) for line, tests in by_line.items()}
        self._answer.write_text(repr((self._known.seconds, self._known.lines, self._known.start)))


class _Chosen:
    """A plugin that runs some tests in a given order."""

    def __init__(self, tests: list[str]) -> None:
        self._place = {test: place for place, test in enumerate(tests)}

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self._place), key=lambda i: self._place[i.nodeid])


class _Changed(SourceFileLoader, importlib.abc.MetaPathFinder):
    """Loads one module from changed code."""

    def __init__(self, module: str, path: str, code: CodeType) -> None:
        super().__init__(module, path)
        self._code = code

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        mine = fullname == self.name
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self) if mine else None

    def get_code(self, fullname: str) -> CodeType:
        return self._code


class Server:
    """pytest, begun once for a target's tests and forked before it collects any."""

    def __init__(self, root: Path, target: Target, body: Callable[["Server"], None]) -> None:
        self._root, self._target, self._body = root, target, body

    def run(self) -> None:
        """Calls the body where processes can be forked."""
        self._parent = os.getpid()
        self._failure: BaseException | None = None
        status = pytest.main([*_ARGUMENTS, *self._target.tests], plugins=[self])
        if os.getpid() != self._parent:
            sys.stdout.flush()
            os._exit(int(status))
        if self._failure is not None:
            raise self._failure

    @pytest.hookimpl(trylast=True)
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        self._session = session
        try:
            self._body(self)
        except BaseException as error:  # noqa: BLE001 - also what sends the forked process on
            self._failure = error
        if os.getpid() == self._parent:
            pytest.exit("all changes were tried")

    def learn(self) -> Known:
        """Runs the target's tests as they are.

        Raises:
            RuntimeError: They fail.
        """
        answer, shown = (Path(tempfile.mkstemp()[1]) for _ in range(2))
        forked = self._fork(lambda: _Recorder(self._root, self._target, answer), 3600, shown)
        status, said, known = forked.wait(), shown.read_text(), answer.read_text()
        answer.unlink()
        shown.unlink()
        if status != 0:
            raise RuntimeError(f"{self._target.name}: tests fail without a change:\n{said[-4000:]}")
        return Known(*eval(known))  # noqa: S307 - our own text

    def start(self, mutant: Mutant, known: Known) -> "Forked":
        """Starts the tests that may notice a change, with the change."""
        tests = known.tests(mutant)

        def plugin() -> _Chosen:
            module = "barycenter." + mutant.file.removesuffix(".py").replace("/", ".")
            if module in sys.modules:
                raise RuntimeError(f"{module} is imported before it is changed, such as by a conftest.py")
            sys.meta_path.insert(0, _Changed(module, str(self._root / "barycenter" / mutant.file), mutant.compiled()))
            self._session.config.args = list(dict.fromkeys(test.partition("::")[0] for test in tests))
            return _Chosen(tests)

        return self._fork(plugin, known.limit(tests), Path(os.devnull))

    def _fork(self, plugin: Callable[[], object], seconds: float, shown: Path) -> "Forked":
        forked = Forked(seconds)
        if forked.pid == 0:
            os.setsid()
            out = os.open(shown, os.O_WRONLY | os.O_CREAT)
            for stream in (1, 2):
                os.dup2(out, stream)
            self._session.config.pluginmanager.register(plugin())
            raise _InTheChild
        return forked


class _InTheChild(BaseException):
    """Leaves the body, so that pytest goes on with the forked process."""


class Forked:
    """A process group that ends with its first process or after some seconds."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds
        sys.stdout.flush()
        self.pid = os.fork()

    def poll(self) -> int | None:
        """The exit status, -1 where it was stopped, None while it runs."""
        pid, status = os.waitpid(self.pid, os.WNOHANG)
        if not pid and time.monotonic() <= self._end:
            return None
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        if not pid:
            os.waitpid(self.pid, 0)
            return -1
        return os.waitstatus_to_exitcode(status)

    def wait(self) -> int:
        """The exit status once it ends."""
        while (status := self.poll()) is None:
            time.sleep(0.05)
        return status
