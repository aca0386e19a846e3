"""Runs a target's tests in forked processes: as it is, to learn which test executes which line, and with a change."""

import importlib
import importlib.abc
import importlib.util
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
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
    *("numpy", "scipy.linalg", "scipy.stats", "scipy.special", "pandas", "faiss", "hypothesis", "json"),
    *("torch", "torch.utils.data", "torch.export", "safetensors.numpy", "sklearn.base", "sklearn.utils.estimator_checks"),
    *("pyarrow.dataset", "pyarrow.parquet", "pyarrow.compute", "threadpoolctl", "fsspec", "yaml"),
)
"""Imported once; the tested package and its tests are imported anew in every process."""

_ARGUMENTS = ("-q", "-x", "--no-header", "-p", "no:cacheprovider", "--durations=0", "--hypothesis-seed=0")
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

    def __init__(self, root: Path, target: Target) -> None:
        self._root, self._target = root, target
        self._begin = time.monotonic()
        self._coverage = coverage.Coverage(data_file=None, include=[str(root / file) for file in target.files])
        self.known = Known()

    def pytest_sessionstart(self) -> None:
        self._coverage.start()

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Any:
        self.known.start = self.known.start or time.monotonic() - self._begin
        self._coverage.switch_context(item.nodeid)
        begin = time.monotonic()
        result = yield
        self.known.seconds[item.nodeid] = time.monotonic() - begin
        return result

    def pytest_sessionfinish(self) -> None:
        self._coverage.stop()
        data = self._coverage.get_data()
        for file in self._target.files:
            by_line = data.contexts_by_lineno(str(self._root / file))
            self.known.lines[file] = {line: set(tests) for line, tests in by_line.items()}


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
        return importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None

    def get_code(self, fullname: str) -> CodeType:
        return self._code


def learn(root: Path, target: Target) -> Known:
    """Runs a target's tests as they are.

    Raises:
        RuntimeError: They fail.
    """
    with tempfile.TemporaryDirectory() as folder:
        answer, shown = Path(folder) / "known", Path(folder) / "shown"

        def child() -> int:
            recorder = _Recorder(root, target)
            code = pytest.main([*_ARGUMENTS, *target.tests], plugins=[recorder])
            answer.write_text(repr((recorder.known.seconds, recorder.known.lines, recorder.known.start)))
            return int(code)

        process = Forked(child, 3600, shown)
        if process.wait() != 0:
            raise RuntimeError(f"the tests of {target.name} fail without any change:\n{shown.read_text()[-4000:]}")
        return Known(*eval(answer.read_text()))  # noqa: S307 - our own text


def start(root: Path, mutant: Mutant, known: Known) -> "Forked":
    """Starts the tests that may notice a change, with the change."""
    tests = known.tests(mutant)
    module = "barycenter." + mutant.file.removesuffix(".py").replace("/", ".")
    loader = _Changed(module, str(root / "barycenter" / mutant.file), mutant.compiled())
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))

    def child() -> int:
        sys.meta_path.insert(0, loader)
        return int(pytest.main([*_ARGUMENTS, *files], plugins=[_Chosen(tests)]))

    return Forked(child, known.limit(tests), Path(os.devnull))


class Forked:
    """A function in a process group of its own, which ends with it or after some seconds."""

    def __init__(self, function: Callable[[], int], seconds: float, shown: Path) -> None:
        self._end = time.monotonic() + seconds
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _become(function, shown)

    def poll(self) -> int | None:
        """The exit status, -1 where it was stopped, None while it runs."""
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        late = time.monotonic() > self._end
        if not pid and not late:
            return None
        self._kill()
        if not pid:
            os.waitpid(self._pid, 0)
            return -1
        return os.waitstatus_to_exitcode(status)

    def wait(self) -> int:
        """The exit status once it ends."""
        while (status := self.poll()) is None:
            time.sleep(0.05)
        return status

    def _kill(self) -> None:
        try:
            os.killpg(self._pid, signal.SIGKILL)
        except ProcessLookupError:
            return


def _become(function: Callable[[], int], shown: Path) -> None:
    """The forked process: its own group, its output in a file, no way back."""
    status = 1
    try:
        os.setsid()
        out = os.open(shown, os.O_WRONLY | os.O_CREAT)
        for stream in (1, 2):
            os.dup2(out, stream)
        status = function()
    finally:
        sys.stdout.flush()
        os._exit(status)


