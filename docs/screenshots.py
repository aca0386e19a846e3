"""Takes the pictures of this folder: a Prefect server, a process worker and a scheduled run, in headless Chromium.

From the root of the repository, with playwright and a Chromium installed: ``python docs/screenshots.py [FOLDER]``.
Everything is started by hand as docs/scheduled.md says, in a home of its own, and stopped at the end.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
PORT = 4299
SERVER = f"http://127.0.0.1:{PORT}"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
FLAGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
PREFECT = [sys.executable, "-m", "prefect"]


def main(folder: Path) -> None:
    """Deploys everything, waits until a scheduled run fires, and looks at it while it runs and when it is done."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        os.environ.update(
            PREFECT_HOME=str(home / "prefect"),
            PREFECT_API_URL=f"{SERVER}/api",
            PREFECT_SERVER_ANALYTICS_ENABLED="false",
            DO_NOT_TRACK="1",
        )
        shutil.rmtree(ROOT / "out/demo", ignore_errors=True)
        stack.enter_context(started("server", "start", "--port", str(PORT), log=home / "server"))
        until(lambda: command("version", quiet=True) and answers(), "the server")
        command("work-pool", "create", "default", "--type", "process")
        command("--no-prompt", "deploy", "--all", "--prefect-file", "infra/deploy/prefect.yaml")
        command("automation", "create", "--from-file", "infra/deploy/automations.yaml")
        stack.enter_context(started("worker", "start", "--pool", "default", log=home / "worker"))
        command("deployment", "schedule", "create", "barycenter/nightly", "--cron", "* * * * *")
        browser = stack.enter_context(sync_playwright()).chromium.launch(executable_path=chromium(), args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 860})
        run = until(running, "the scheduled run", home / "worker")
        print("a scheduled run fired:", run["name"], run["id"], flush=True)
        if not command("--no-prompt", "deployment", "schedule", "pause", "--all"):
            raise SystemExit("the schedule cannot be paused")
        look(page, folder / "progress.png", f"runs/flow-run/{run['id']}", 3.0, tab="Artifacts")
        final = until(lambda: finished(run["id"]), "its end")
        print("it ended:", final["state"]["type"], f"{final['total_run_time']:.0f} s", flush=True)
        page.set_viewport_size({"width": 1280, "height": 2900})
        look(page, folder / "prefect-run.png", f"runs/flow-run/{run['id']}", 6.0, tab="Logs")
        page.set_viewport_size({"width": 1280, "height": 860})
        look(page, folder / "tasks.png", f"runs/flow-run/{run['id']}", 3.0, tab="Task Runs")
        look(page, folder / "prefect-artifacts.png", "artifacts", 3.0)
        look(page, folder / "prefect-report.png", newest("demo-report"), 3.0)
        look(page, folder / "rejects.png", newest("demo-rejects"), 3.0)
        look(page, folder / "deployments.png", "deployments", 3.0)
        page.set_viewport_size({"width": 1280, "height": 1300})
        for number, (name, job) in enumerate(wrong_jobs(home).items()):
            command("deployment", "run", "barycenter/whole", "--param", f"job={job}")
            failed = until(lambda number=number: newest_failed(number), name, home / "worker")
            print(name, "failed:", failed["state"]["message"], flush=True)
            look(page, folder / f"prefect-{name}.png", f"runs/flow-run/{failed['id']}", 4.0, tab="Details")
        browser.close()
        if final["state"]["type"] != "COMPLETED":
            print((home / "worker").read_text()[-3000:])
            raise SystemExit(1)


@contextmanager
def started(*words: str, log: Path) -> Iterator[None]:
    """A Prefect process for the length of the block."""
    with log.open("w") as stream:
        process = subprocess.Popen([*PREFECT, *words], cwd=ROOT, stdout=stream, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.terminate()
            process.wait(30)


def command(*words: str, quiet: bool = False) -> bool:
    """Runs one command of Prefect's and shows it as on a terminal."""
    if not quiet:
        print("$ prefect", *words, flush=True)
    done = subprocess.run([*PREFECT, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if not quiet or done.returncode:
        print(done.stdout[-1500:], done.stderr[-1500:], sep="", flush=True)
    return done.returncode == 0


def api(path: str, body: dict[str, Any] | None = None) -> Any:
    """One call of the server's API."""
    import urllib.request

    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{SERVER}/api/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        return json.load(response)


def answers() -> bool:
    """Whether the server is up."""
    try:
        return bool(api("health"))
    except OSError:
        return False


def running() -> dict[str, Any] | None:
    """The scheduled run, once its first progress artifact is there."""
    runs = api("flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}})
    artifacts = api("artifacts/filter", {"artifacts": {"type": {"any_": ["progress"]}}}) if runs else []
    return runs[0] if artifacts else None


def wrong_jobs(home: Path) -> dict[str, Path]:
    """Job files that fail: of too many bad rows, of a key that does not exist; by the name of their picture."""
    from barycenter.infra.demo import demo_job

    demo = demo_job(ROOT / "out/demo/corpus", ROOT / "out/demo/strict")
    jobs = {"failed": demo | {"limits": {"max_bad_fraction": 0.001}}, "wrong": demo | {"alignments": {"dim": 8}}}
    for name, job in jobs.items():
        (home / f"{name}.yaml").write_text(json.dumps(job))
    return {name: home / f"{name}.yaml" for name in jobs}


def newest_failed(before: int) -> dict[str, Any] | None:
    """The run that failed last, once there are more than so many."""
    runs = api("flow_runs/filter", {"sort": "START_TIME_DESC", "flow_runs": {"state": {"type": {"any_": ["FAILED"]}}}})
    return runs[0] if len(runs) > before else None


def newest(key: str) -> str:
    """Where the UI shows the newest artifact of a key."""
    found = api("artifacts/latest/filter", {"artifacts": {"key": {"any_": [key]}}})
    return f"artifacts/artifact/{found[0]['latest_id']}"


def finished(run_id: str) -> dict[str, Any] | None:
    """The run, once it ended."""
    run: dict[str, Any] = api(f"flow_runs/{run_id}")
    return run if run["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None


def until(condition: Any, what: str, log: Path | None = None, seconds: float = 300) -> Any:
    """Waits for something true; shows the end of a log where it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := condition():
            return value
        time.sleep(0.5)
    print(log.read_text()[-4000:] if log is not None else "")
    raise SystemExit(f"{what} did not come within {seconds:.0f} s")


def look(page: Page, path: Path, where: str, settle: float, tab: str | None = None) -> None:
    """A picture of one page of the UI, or of one of its tabs."""
    page.goto(f"{SERVER}/{where}", wait_until="load")
    if tab is not None:
        page.get_by_role("tab", name=tab).or_(page.get_by_text(tab, exact=True)).first.click()
    page.wait_for_timeout(settle * 1000)
    page.screenshot(path=path)
    Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)  # a third of the bytes
    print(path, flush=True)


def chromium() -> str:
    """Where Chromium is."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        raise SystemExit("no chromium; install it, e.g. apt-get install chromium")
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
