"""The emojitwo job with corpus and output on S3: undisturbed, one request in five failing, and the server gone a while.

Faults are 500, 503 SlowDown, answers cut off in the middle, and two that never come within the client's patience. Every
run must end with the feature files of the local run, byte for byte; one that the server's absence ends must say so in
one line and, run again, end so too. Secrets are looked for in all that was said, written and logged.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import yaml
from moto.server import DomainDispatcherApplication, ThreadedMotoServer, create_backend_app
from ray._common.utils import get_default_ray_temp_dir

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from barycenter.infra.storage import Storage
from barycenter.infra.versions.manifests import read_manifest, verify
from benchmarks.harness import ROOT, finish, minilm, missing, note, shared
from tests.chaos.faults import Flaky, serve

_BUCKET = "emoji-bucket"
_AWAY = 20.0
_SECRET = "test-hush"
_CASES = {"s3": (0.0, 0, False), "s3_faults": (0.2, 2, False), "s3_away": (0.0, 0, True)}
_RAY_LOGS = Path(get_default_ray_temp_dir(), "session_latest", "logs")


def main() -> None:
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": _SECRET, "AWS_DEFAULT_REGION": "us-east-1"}
    source, weights = shared("data/emojitwo"), shared("weights/mobilenet_v2/mobilenet_v2.safetensors")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        local = job(source / "metadata.jsonl", folder / "out", weights)
        seconds = {"local": run(folder / "local.yaml", local).seconds}
        expected = features(Storage(str(folder / "out")))
        backend = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        backend.start()
        host, port = backend.get_host_and_port()
        quiet = f"http://{host}:{port}"
        upload(source, quiet)
        flaky = Flaky(DomainDispatcherApplication(create_backend_app), share=0.2, seed=1)
        figures: dict[str, Any] = {"rows": 2008, "feature_files": len(expected)}
        for case, (share, stalls, away) in _CASES.items():
            flaky.share, flaky.stalls, flaky.faults = share, stalls, 0
            out = f"s3://{_BUCKET}/{case}"
            data = job(f"s3://{_BUCKET}/corpus/metadata.jsonl", out, weights)
            ran = attempt(case, flaky, Storage(out, quiet), folder, data, away)
            seconds[case] = ran.seconds
            found = Storage(out, quiet)
            figures[f"{case}_equal"] = features(found) == expected and verify(found, read_manifest(found)) == []
            figures |= {
                f"{case}_faults": flaky.faults,
                f"{case}_said": ran.said,
                f"{case}_secrets": secrets(found, ran),
            }
        backend.stop()
    finish(figures | {"seconds": {name: round(value, 1) for name, value in seconds.items()}})
    sys.exit(not all(figures[f"{case}_equal"] and not figures[f"{case}_secrets"] for case in _CASES))


@dataclass
class Ran:
    """What a job did: its seconds, the line of a first run that failed, and all that it printed."""

    seconds: float
    said: str
    output: str


def attempt(case: str, flaky: Flaky, seen: Storage, folder: Path, data: dict[str, Any], away: bool) -> Ran:
    """One run against the server, gone for a while if ``away``; ``seen`` is its output without faults."""
    servers = [serve(flaky)]
    port = servers[0][0].server_port
    data["storage"] = {"endpoint_url": servers[0][1]}

    def vanish() -> None:
        while len(list(seen.walk("embeddings"))) < 2:
            time.sleep(0.2)
        servers[0][0].shutdown()
        servers[0][0].server_close()
        note(f"{case}: the server is gone for {_AWAY:g} s")
        time.sleep(_AWAY)
        servers.append(serve(flaky, port))

    vanishing = threading.Thread(target=vanish)
    if away:
        vanishing.start()
    ran = run(folder / f"{case}.yaml", data, again=away)
    if away:
        vanishing.join()
    servers[-1][0].shutdown()
    return ran


def secrets(out: Storage, ran: Ran) -> int:
    """How often the secret occurs in what was printed, in the output's files and in Ray's logs."""
    logs = [path.read_bytes() for path in _RAY_LOGS.rglob("*") if path.is_file()]
    contents = [ran.output.encode(), *logs, *(out.read(path) for path in out.list())]
    return sum(content.count(_SECRET.encode()) for content in contents)


def features(storage: Storage) -> list[bytes]:
    """Content of the feature files in the manifest's order."""
    return [storage.read(file.path) for file in read_manifest(storage).files]


def upload(source: Path, url: str) -> None:
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket=_BUCKET)
    for path in source.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), _BUCKET, f"corpus/{path.relative_to(source)}")


def job(corpus: object, out: object, weights: Path) -> dict[str, Any]:
    return {
        "name": "emoji",
        "corpus": {"path": str(corpus), "key": "id", "keep": ["label", "base"], "rows_per_shard": 512},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": str(minilm()), "batch": 4096},
            "image": {
                "kind": "image",
                "column": "image",
                "encoder": "torchvision/mobilenet_v2",
                "weights": str(weights),
                "batch": 16,
            },
        },
        "alignment": {"method": "joint", "dim": 256},
        "output": {"path": str(out)},
        "ray": {"workers": 2, "threads_per_worker": 1},
    }


def run(path: Path, data: dict[str, Any], again: bool = False) -> Ran:
    """Runs the job; where it fails, ends the benchmark, or runs it ``again`` once."""
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "barycenter.flows.cli", "run", str(path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    seconds = time.perf_counter() - start
    note(json.dumps({"run": path.stem, "exit": done.returncode, "seconds": round(seconds, 1)}))
    output = done.stdout + done.stderr
    if not done.returncode:
        return Ran(seconds, "", output)
    said = [line for line in done.stderr.splitlines() if line.startswith("barycenter: ")]
    if not again or len(said) != 1:
        note(done.stderr[-2000:])
        missing(f"the run of {path.stem} ended with {done.returncode}")
    rest = run(path, data)
    return Ran(seconds + rest.seconds, said[0], output + rest.output)


if __name__ == "__main__":
    main()
