"""What the report of a job says of its fused vector, out of fold: ``JOB=demo`` (the default) or ``JOB=emoji``.

The whole job runs without Ray. Accuracy depends on no other work of the machine. The result is kept as ``demo`` or
``emoji``.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from barycenter.infra.demo import demo_job, write_demo_corpus
from benchmarks.harness import ROOT, finish, minilm, missing, shared, table, versions

JOB = os.environ.get("JOB", "demo")
_BEST = "complete, best input"


def emoji_job(out: Path) -> dict[str, Any]:
    """The job of examples/emoji.yaml on the shared data."""
    given: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "emoji.yaml").read_text(encoding="utf-8"))
    given["corpus"]["path"] = str(shared("data/emojitwo/metadata.jsonl"))
    given["inputs"]["text"]["encoder"] = str(minilm())
    given["inputs"]["image"]["weights"] = str(shared("weights/mobilenet_v2/mobilenet_v2.safetensors"))
    return given | {"output": {"path": str(out)}}


def main() -> None:
    versions("numpy", "scipy", "scikit-learn", "torch")
    with tempfile.TemporaryDirectory() as name:
        folder, out = Path(name), Path(name, "out")
        content = emoji_job(out) if JOB == "emoji" else demo_job(write_demo_corpus(folder / "corpus"), out)
        job = folder / "job.yaml"
        job.write_text(yaml.safe_dump(content, sort_keys=False))
        words = [sys.executable, "-m", "barycenter.flows.cli", "run", str(job), "--set", "ray.address=none"]
        if subprocess.run(words, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=sys.stderr).returncode:
            missing("the run failed")
        report = json.loads((out / "report" / "report.json").read_text(encoding="utf-8"))
    probe = report["probe"]["cross_validated"]
    gaps = [
        {
            "condition": "complete" if condition == _BEST else condition,
            "against": "best single input" if condition == _BEST else gap["against"],
            "gap": round(gap["mean"], 4),
            "low": round(gap["low"], 4),
            "high": round(gap["high"], 4),
        }
        for condition, gap in probe["gaps"].items()
    ]
    table(gaps)
    accuracy = {name: by["complete"] for name, by in probe["candidates"].items()}
    finish({"rows": report["rows"]["read"], "labeled": probe["n_test"], "accuracy": accuracy, "gaps": gaps}, JOB)


if __name__ == "__main__":
    main()
