"""Six runs on one output at once, started by six ways: two deployments, serve, run, submit, a driver without a server.

``python -m tests.flows.six_ways`` has a Prefect server, a worker and a Ray of its own, and prints how each run ended.
First all wait for the output, and whichever holds it first is killed; then the corpus has grown, and each ends as its
``output.busy`` says. Both times one version is committed, and no row is embedded twice.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.settings import PREFECT_API_URL, temporary_settings

from barycenter.flows.temporary_server import TemporaryServer
from barycenter.infra.storage import Storage
from barycenter.infra.versions.lease import hold, newest_term
from barycenter.infra.versions.manifests import newest_manifest, read_manifest, verify, versions
from barycenter.infra.versions.processes import parse_process
from tests.flows.corpora import text_and_vector_job, text_and_vector_rows, write_job, write_lines
from tests.flows.ray_head import ray_head
from tests.infra.dispatch.test_api import wait_until

WAYS = ("deployment", "another deployment", "serve", "run", "submit", "driver")
ROWS, MORE = 12_000, 2_000
DEPLOYMENTS = {"deployment": "deployment", "another deployment": "another-deployment", "serve": "served"}
POOL = "six-ways"
DRIVER = """
import sys
from barycenter.infra.job.loader import load_job
from barycenter.tasks.pipeline import run_job
from barycenter.tasks.planning.plan import held
from barycenter.tasks.run.workers import THIS_PROCESS
from barycenter.flows.console import report_errors
with report_errors(False), held(load_job(sys.argv[1])) as run:
    run_job(run, THIS_PROCESS)
"""


def main() -> None:
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        os.environ.update(PREFECT_HOME=str(folder / "prefect"), PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED="false")
        server = TemporaryServer(folder / "prefect", 120, {})
        stack.callback(server.stop)
        dashboard, _ = stack.enter_context(ray_head({"RAY_AUTH_MODE": "disabled"}))
        server.wait()
        os.environ.update(PREFECT_API_URL=server.api)
        stack.enter_context(temporary_settings({PREFECT_API_URL: server.api}))
        write_lines(folder / "rows" / "a.jsonl", text_and_vector_rows(ROWS))
        six = Six(folder, dashboard)
        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        stack.enter_context(six.worker())
        six.round("all wait, the first holder is killed", dict.fromkeys(WAYS, "wait"), rows=ROWS, kill=True)
        write_lines(folder / "rows" / "b.jsonl", text_and_vector_rows(MORE, first=ROWS))
        busy = ("wait", "skip", "wait", "fail", "skip", "wait")
        six.round("each as its busy says", dict(zip(WAYS, busy, strict=True)), rows=ROWS + MORE, kill=False)


class Six:
    """The six ways into one output."""

    def __init__(self, folder: Path, dashboard: str) -> None:
        self.folder, self.dashboard = folder, dashboard
        self.storage = Storage(str(folder / "out"))
        self.done: dict[str, int] = {}

    def job(self, way: str, busy: str) -> Path:
        place = self.folder / ("deployed" if "deployment" in way else "jobs")
        place.mkdir(exist_ok=True)
        data = text_and_vector_job(
            self.folder / "rows",
            self.folder / "out",
            way.replace(" ", "-"),
            ray={"address": "none"},
            output={"busy": busy},
        )
        if way == "submit":
            data["ray"]["address"] = "auto"
        return write_job(place / f"{way.replace(' ', '-')}.yaml", data)

    @contextmanager
    def process(self, *words: object, **variables: str) -> Iterator[subprocess.Popen[bytes]]:
        """A process of its own whose output goes to a file; it ends with the block."""
        log = self.folder / f"log-{len(list(self.folder.glob('log-*')))}"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                list(map(str, words)), env={**os.environ, **variables}, stdout=stream, stderr=subprocess.STDOUT
            )
        process.log = log  # type: ignore[attr-defined]
        try:
            yield process
        finally:
            process.terminate()
            process.wait(60)

    def worker(self):
        return self.process(sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL)

    def round(self, title: str, busy: Mapping[str, str], *, rows: int, kill: bool) -> None:
        print(f"\n{title}: {', '.join(f'{way}: {how}' for way, how in busy.items())}", flush=True)
        paths = {way: self.job(way, how) for way, how in busy.items()}
        cli = [sys.executable, "-m", "barycenter.flows.cli"]
        subprocess.run([*cli, "deploy", self.folder / "deployed", "--work-pool", POOL], check=True)
        before, began = len(versions(self.storage)), time.monotonic()
        with ExitStack() as stack, get_client(sync_client=True) as client:
            stack.enter_context(self.process(*cli, "serve", paths["serve"], "--name", "served"))
            with hold(self.storage, "the start of all six"):
                local = {
                    "run": [*cli, "run", paths["run"]],
                    "submit": [*cli, "submit", paths["submit"], "--address", self.dashboard],
                    "driver": [sys.executable, "-c", DRIVER, paths["driver"]],
                }
                started = {way: stack.enter_context(self.process(*words)) for way, words in local.items()}
                flows = {}
                for way, name in DEPLOYMENTS.items():
                    assert wait_until(lambda name=name: self.deployment(client, name) is not None, 120)
                    flows[way] = client.create_flow_run_from_deployment(self.deployment(client, name).id)
                waiting = [way for way, how in busy.items() if how == "wait"]
                assert wait_until(lambda: all(self.waits(client, way, flows, started) for way in waiting), 300), waiting
            killed = self.kill_holder() if kill else None
            assert wait_until(lambda: all(each.poll() is not None for each in started.values()), 600)
            assert wait_until(lambda: all(self.is_over(client, run, killed) for run in flows.values()), 300), [
                client.read_flow_run(run.id).state for run in flows.values()
            ]
            for way in WAYS:
                print(f"  {way:<20} {busy[way]:<5} {self.ending(client, way, flows, started)}", flush=True)
        self.check(before, rows, time.monotonic() - began)

    @staticmethod
    def deployment(client, name):
        try:
            return client.read_deployment_by_name(f"barycenter/{name}")
        except Exception:  # noqa: BLE001 - it is not there yet
            return None

    @staticmethod
    def lines(client, run) -> str:
        from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId

        found = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))
        return "\n".join(line.message for line in found)

    def waits(self, client, way, flows, started) -> bool:
        said = self.lines(client, flows[way]) if way in flows else started[way].log.read_text()
        return "which is held by" in said

    def is_over(self, client, run, killed: int | None) -> bool:
        """Whether a run has ended; that of a killed process stays `Running` where nobody looks after it."""
        state = client.read_flow_run(run.id).state
        return state.is_final() or (killed is not None and state.is_running())

    def kill_holder(self) -> int:
        """Kills whoever holds the output, once it has embedded something."""
        embedded = self.folder / "out" / "embeddings"
        assert wait_until(lambda: len(list(embedded.glob("*/*/*.parquet"))) > 20, 300)
        term = newest_term(self.storage)
        assert term is not None
        assert not term.released
        _, _, pid = parse_process(term.who)
        os.kill(pid, signal.SIGKILL)
        self.done = self.marks()
        print(f"  killed {term.purpose} ({term.who}) after {len(self.done)} files of embeddings", flush=True)
        return pid

    def marks(self) -> dict[str, int]:
        """Each file of embeddings, and when it was written."""
        files = (self.folder / "out" / "embeddings").rglob("*.parquet")
        return {str(path): path.stat().st_mtime_ns for path in files}

    def ending(self, client, way, flows, started) -> str:
        if way in flows:
            state = client.read_flow_run(flows[way].id).state
            said, news = f"{state.name}: {state.message or ''}", self.lines(client, flows[way])
        else:
            process = started[way]
            lines = [line for line in process.log.read_text().strip().splitlines() if "\tINFO " not in line]
            said, news = f"exit {process.returncode}: {lines[-1] if lines else ''}", "\n".join(lines)
        done = [line for line in news.splitlines() if "embed text:" in line and "/" in line]
        return f"{said[:150]} | {done[-1] if done else 'no work'}"

    def check(self, before: int, rows: int, seconds: float) -> None:
        manifest = newest_manifest(self.storage)
        assert manifest is not None
        assert len(versions(self.storage)) == before + 1, versions(self.storage)
        assert manifest.rows["written"] == rows, manifest.rows
        assert verify(self.storage, read_manifest(self.storage)) == []
        now = self.marks()
        again = [path for path, mark in self.done.items() if now.get(path) != mark]
        assert again == [], again
        shards = len({Path(path).name for path in now})
        print(f"  one version more ({manifest.number}), {rows:,} rows, {seconds:.0f} s", flush=True)
        print(f"  {len(now)} files of {shards} shards, none of them written twice", flush=True)
        self.done = now


if __name__ == "__main__":
    if shutil.which("ray") is None and not Path(sys.executable).with_name("ray").exists():
        raise SystemExit("Ray is not installed")
    main()
