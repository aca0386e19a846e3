"""Every odd and broken picture through the whole job: each one accounted for, and memory bounded despite the bombs."""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.harness import ROOT, finish, note, shared

LIMITS = ("format_not_allowed", "too_many_pixels", "too_large")
_COPIES_OF_BOMB = 4


def main() -> None:
    source = shared("data/bad_images")
    with (source / "manifest.tsv").open(newline="") as stream:
        verdicts = {row["file"]: row["pillow_result"] for row in csv.DictReader(stream, delimiter="\t")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        job, out = write(folder, source)
        peaks = run(job)
        manifest = json.loads((out / "manifest.json").read_text())
        rejects = [row for path in manifest["rejects"] for row in pq.read_table(out / path).to_pylist()]
        features = [
            pq.ParquetFile(out / file["path"]).read(["id", "has_text", "has_image"]) for file in manifest["files"]
        ]
    rows = [row for table in features for row in table.to_pylist()]
    reasons = {row["key"]: (row["reason"], row["detail"]) for row in rejects}
    embedded = {row["id"] for row in rows if row["has_image"]}
    opened = [file for file, verdict in verdicts.items() if verdict == "ok"]
    lost = {file: reasons[file] for file in opened if file in reasons and reasons[file][0] not in LIMITS}
    for file, (reason, detail) in sorted(reasons.items()):
        note(f"{reason:20} {file:60} {detail}"[:160])
    for reason, count in Counter(reason for reason, _ in reasons.values()).most_common():
        note(f"{count:5} {reason}")
    figures = {
        "files": len(rows),
        "copies": sum(row["id"].startswith("again") for row in rows),
        "embedded": len(embedded),
        "rejected": len(reasons),
        "accounted": len(embedded | reasons.keys()) == len(rows) == manifest["rows"]["read"],
        "fused_from_text_alone": sum(row["has_text"] and not row["has_image"] for row in rows),
        "pillow_opens": len(opened),
        "of_these_rejected": len(lost),
        "share_rejected": round(len(lost) / len(opened), 4),
        "peak_worker_mb": round(max(peaks.values()) / 2**20),
        "peak_worker_before_pictures_mb": round(peaks["text"] / 2**20),
    }
    finish(figures)
    sys.exit(not figures["accounted"] or figures["share_rejected"] > 0.05)


def write(folder: Path, source: Path) -> tuple[Path, Path]:
    """The corpus, with texts and a few more copies of the bomb, and the job over it."""
    images = folder / "corpus" / "images"
    shutil.copytree(source / "files", images)
    for bomb in images.glob("timeout-*"):
        for number in range(_COPIES_OF_BOMB):
            shutil.copy(bomb, images / f"again{number}-{bomb.name}")
    names = sorted(path.name for path in images.iterdir())
    lines = [json.dumps({"id": name, "text": f"a picture called {name}", "image": name}) for name in names]
    (folder / "corpus" / "rows.jsonl").write_text("\n".join(lines) + "\n")
    out = folder / "out"
    data = {
        "name": "bad-images",
        "corpus": {"path": str(folder / "corpus" / "rows.jsonl"), "key": "id", "rows_per_shard": 64},
        "inputs": {
            "text": {"kind": "text", "column": "text", "encoder": "builtin/hashing"},
            "image": {"kind": "image", "column": "image", "encoder": "builtin/descriptor"},
        },
        "alignment": {"dim": 32},
        "output": {"path": str(out)},
        "ray": {"workers": 1},
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(data, sort_keys=False))
    return folder / "job.yaml", out


def run(job: Path) -> dict[str, int]:
    """Runs the job; the largest resident memory of any worker process, in bytes, while texts and while pictures ran."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "barycenter.flows.cli", "run", str(job)], env=environment, cwd=ROOT
    )
    peaks = {"text": 0, "image": 0}

    def watch() -> None:
        while process.poll() is None:
            stage = "image" if list(job.parent.glob("out/embeddings/text/*/*.parquet")) else "text"
            peaks[stage] = max([peaks[stage], *worker_memory()])
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = process.wait()
    watcher.join()
    if code:
        note(f"the run ended with {code}")
        sys.exit(1)
    return peaks


def worker_memory() -> list[int]:
    """Peak resident bytes (VmHWM) of the living Ray workers that do this project's work."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            if not re.match(rb"ray::\w+Worker", (status.parent / "cmdline").read_bytes()):
                continue
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            found.append(int(fields["VmHWM"].split()[0]) * 1024)
        except (OSError, KeyError):
            continue
    return found


if __name__ == "__main__":
    main()
