"""The emojitwo job with corpus and output on an S3 server failing one request in five, and away for 20 seconds."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import yaml
from moto.server import DomainDispatcherApplication, ThreadedMotoServer, create_backend_app

from benchmarks.harness import ROOT, finish, missing, note, shared
from infra.commit import read_manifest, verify
from infra.storage import Storage
from tests.chaos.faults import Flaky, serve

_BUCKET = "emoji-bucket"
_AWAY = 20.0


def main() -> None:
    os.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test-hush", "AWS_DEFAULT_REGION": "us-east-1"}
    source, weights = shared("data/emojitwo"), shared("weights/mobilenet_v2/mobilenet_v2.safetensors")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if subprocess.run([shared("get-minilm"), folder / "minilm"], check=False, stdout=sys.stderr).returncode:
            missing("MiniLM could not be fetched")
        local = job(source / "metadata.jsonl", folder / "out", folder, weights)
        seconds = {"local": run(folder / "local.yaml", local)}
        expected = features(Storage(str(folder / "out")))
        backend = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        backend.start()
        host, port = backend.get_host_and_port()
        quiet = f"http://{host}:{port}"
        upload(source, quiet)
        flaky = Flaky(DomainDispatcherApplication(create_backend_app), share=0.2, seed=1)
        figures: dict[str, Any] = {"rows": 2008, "feature_files": len(expected)}
        for case, share, away in (("s3", 0.0, False), ("s3_faults", 0.2, False), ("s3_away", 0.0, True)):
            flaky.share, flaky.faults = share, 0
            out = attempt(case, flaky, quiet, folder, weights, seconds, away)
            told = b"".join(out.read(path) for path in out.list() if path.endswith((".json", ".html")))
            figures[f"{case}_equal"] = features(out) == expected and verify(out, read_manifest(out)) == []
            figures |= {f"{case}_faults": flaky.faults, f"{case}_secrets": told.count(b"test-hush")}
        backend.stop()
    finish(figures | {"seconds": {name: round(value, 1) for name, value in seconds.items()}})
    sys.exit(not all(figures[f"{case}_equal"] for case in ("s3", "s3_faults", "s3_away")))


def attempt(
    case: str, flaky: Flaky, quiet: str, folder: Path, weights: Path, seconds: dict[str, float], away: bool
) -> Storage:
    """One run against the server; its output, as seen without faults."""
    servers = [serve(flaky)]
    port = servers[0][0].server_port
    out = f"s3://{_BUCKET}/{case}"
    data = job(f"s3://{_BUCKET}/corpus/metadata.jsonl", out, folder, weights)
    data["storage"] = {"endpoint_url": servers[0][1]}

    def vanish() -> None:
        while len(list(Storage(out, quiet).walk("embeddings"))) < 2:
            time.sleep(0.2)
        servers[0][0].shutdown()
        servers[0][0].server_close()
        note(f"{case}: the server is gone for {_AWAY:g} s")
        time.sleep(_AWAY)
        servers.append(serve(flaky, port))

    vanishing = threading.Thread(target=vanish)
    if away:
        vanishing.start()
    seconds[case] = run(folder / f"{case}.yaml", data)
    if away:
        vanishing.join()
    for server, _ in servers:
        server.shutdown()
    return Storage(out, quiet)


def features(storage: Storage) -> list[bytes]:
    """Content of the feature files in the manifest's order."""
    return [storage.read(file["path"]) for file in read_manifest(storage)["files"]]


def upload(source: Path, url: str) -> None:
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket=_BUCKET)
    for path in source.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), _BUCKET, f"corpus/{path.relative_to(source)}")


def job(corpus: object, out: object, folder: Path, weights: Path) -> dict[str, object]:
    return {
        "name": "emoji",
        "corpus": {"path": str(corpus), "key": "id", "keep": ["label", "base"], "rows_per_shard": 512},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": str(folder / "minilm"), "batch": 4096},
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


def run(path: Path, data: dict[str, object]) -> float:
    """Seconds that the job took; ends the benchmark if it failed."""
    path.write_text(yaml.safe_dump(data, sort_keys=False))
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.cli", "run", str(path)]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        note(done.stderr[-2000:])
        missing(f"the run of {path.stem} ended with {done.returncode}")
    note(json.dumps({"run": path.stem, "seconds": round(time.perf_counter() - start, 1)}))
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
