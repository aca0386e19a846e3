"""What a bare ``barycenter run`` costs before the first rows are embedded, against bare ``ray.init`` + model load.

The ceiling is one short script: it starts Ray, loads the same encoder in one actor and embeds the same rows. With a
Prefect server running at most 1.5 times that is claimed; without one the time is printed.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import ROOT, finish, median, minilm, missing, note, sample, shared, table, versions

ROUNDS, WITHOUT_SERVER_ROUNDS = 4, 2
ROWS_PER_SHARD = 32
PORT = 4298
CEILING = 1.5

BARE = """
import sys, ray
ray.init("local", include_dashboard=False, logging_level="ERROR", log_to_driver=False, object_store_memory=2**28)

@ray.remote
class Model:
    def __init__(self, folder):
        from barycenter.fusion.encoders import EncoderSpec, load
        self.encoder = load(EncoderSpec(kind="text", encoder=folder), device="cpu")
    def embed(self, texts):
        from barycenter.fusion.encoders.pipeline import embed
        return len(embed(self.encoder, texts, batch_size=1024, threads=2).vectors)

texts = open(sys.argv[2]).read().splitlines()
assert ray.get(Model.remote(sys.argv[1]).embed.remote(texts)) == len(texts)
print("embedded", flush=True)
"""


def main() -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = minilm()
        corpus = write_corpus(folder)
        environment = environ(folder)
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--port", str(PORT), "--no-ui"],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stack.callback(server.wait)
        stack.callback(server.terminate)
        wait_for_server()
        seconds: dict[str, list[float]] = {"bare": [], "server": [], "no server": []}
        for number in range(ROUNDS):
            turns = [("bare", lambda: bare(model, corpus, environment)),
                     ("server", lambda: run(folder, corpus, model, with_server(environment)))]  # fmt: skip
            for name, measure in turns[:: 1 if number % 2 else -1]:
                seconds[name].append(measure())
                sample(name, round(seconds[name][-1], 2))
                note(f"round {number + 1}/{ROUNDS} {name}: {seconds[name][-1]:.2f} s")
        server.terminate()
        server.wait()
        for _ in range(WITHOUT_SERVER_ROUNDS):
            seconds["no server"].append(run(folder, corpus, model, environment))
            sample("no server", round(seconds["no server"][-1], 2))
            note(f"no server: {seconds['no server'][-1]:.2f} s")
    medians = {name: median(each) for name, each in seconds.items()}
    bare_seconds = medians["bare"]
    table([{"contender": name, "median s": s, "against bare": s / bare_seconds} for name, s in medians.items()])
    finish(
        {
            "benchmark": "startup",
            "seconds": {name: [round(value, 2) for value in each] for name, each in seconds.items()},
            "ratio_with_server": round(medians["server"] / medians["bare"], 3),
            "ratio_without_server": round(medians["no server"] / medians["bare"], 3),
            "claimed_ratio_with_server": CEILING,
            "versions": versions("ray", "prefect", "torch", "transformers"),
        }
    )


def write_corpus(folder: Path) -> Path:
    """The first emoji texts as a corpus, and the first shard of them as plain lines."""
    rows = [json.loads(line) for line in shared("data/emojitwo/metadata.jsonl").read_text().splitlines()[:256]]
    (folder / "texts").write_text("\n".join(row["text"] for row in rows[:ROWS_PER_SHARD]))
    corpus = folder / "rows.jsonl"
    corpus.write_text("".join(json.dumps({"id": row["id"], "text": row["text"]}) + "\n" for row in rows))
    return corpus


def environ(folder: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def with_server(environment: dict[str, str]) -> dict[str, str]:
    return environment | {"PREFECT_API_URL": f"http://127.0.0.1:{PORT}/api"}


def wait_for_server() -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{PORT}/api/health", timeout=1).close()
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
        else:
            time.sleep(3)
            return
    missing("the Prefect server did not start")


def bare(model: Path, corpus: Path, environment: dict[str, str]) -> float:
    """Seconds of the short script until it has embedded the rows."""
    start = time.perf_counter()
    words = [sys.executable, "-c", BARE, str(model), str(corpus.parent / "texts")]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        if process.stdout.readline().strip() != "embedded":
            note(process.communicate()[1][-3000:])
            missing("the bare script failed")
        return time.perf_counter() - start


def run(folder: Path, corpus: Path, model: Path, environment: dict[str, str]) -> float:
    """Seconds of ``barycenter run`` until the first shard's embeddings are committed; the run is stopped then."""
    out = Path(tempfile.mkdtemp(dir=folder))
    job = out / "job.yaml"
    job.write_text(
        yaml.safe_dump(
            {
                "name": "startup",
                "corpus": {"path": str(corpus), "key": "id", "rows_per_shard": ROWS_PER_SHARD},
                "inputs": {"text": {"kind": "text", "column": "text", "encoder": str(model)}},
                "alignment": {"method": "pca", "dim": 32},
                "output": {"path": str(out / "features")},
            }
        )
    )
    start = time.perf_counter()
    words = [sys.executable, "-m", "barycenter.flows.cli", "run", str(job)]
    with subprocess.Popen(
        words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        embeddings = out / "features" / "embeddings"
        while not any(embeddings.rglob("*.parquet")):
            if process.poll() is not None:
                note(process.communicate()[0][-2000:])
                missing("barycenter run ended before it embedded anything")
            time.sleep(0.01)
        taken = time.perf_counter() - start
        process.send_signal(signal.SIGTERM)
        process.communicate()
    return taken


if __name__ == "__main__":
    main()
