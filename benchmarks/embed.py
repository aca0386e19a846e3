"""Does the embed stage run at the speed of the bare model, and ahead of what a user would pick instead?

The same rows, interleaved rounds, medians: the bare model at its best batch on rows already tokenized or decoded, a
batch by all cores or a batch a core, whichever is faster (the ceiling), the whole embed stage over Ray with its files
written, sentence-transformers, ONNX Runtime, OpenVINO and fastembed where they install, Ray Data's map_batches
recipe, torch's DataLoader, and Daft's embed_text where it works. Every peer runs as it is fastest: batches, actors and
loader's workers are found by a trial, as ours are; Daft, which offers no batch, runs at its defaults.
Start-up and model load are not in the rates (but for Daft, about a second); the stage shows its own. The ceiling of
pictures is 1 / (1 / model + 1 / (cores x decode)).
"""

import os
import platform
import sys
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import barycenter.fusion.torch_compat  # noqa: F401 - before torchvision and transformers
from benchmarks import harness

# isort: split

if __name__ == "__main__":
    # fastembed asks for an older huggingface-hub, but runs beside ours.
    peers = ("daft", "onnxruntime onnxscript", "openvino", "--no-deps fastembed mmh3 loguru py-rust-stemmers")
    harness.with_peers(optional=peers)
    if find_spec("sentence_transformers") is None:
        harness.missing("sentence-transformers is not installed; run `make install`")

os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "TOKENIZERS_PARALLELISM": "false", "DO_NOT_TRACK": "1"}
os.environ |= {"HF_HUB_OFFLINE": "1", "DAFT_PROGRESS_BAR": "0", "DAFT_RUNNER": "native"}

import ray
import torch

from benchmarks import embed_pictures, embed_texts

ROUNDS = 3
CORES = os.cpu_count() or 1


def measured(contenders: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Median rows/s of every contender over interleaved rounds; one that fails is reported and left out."""
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(ROUNDS):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            if name not in rates:
                continue
            try:
                rates[name].append(contenders[name]())
            except Exception as error:
                if name not in embed_texts.OPTIONAL:
                    raise
                harness.note(f"{name} does not run here: {type(error).__name__}: {str(error).splitlines()[0][:160]}")
                del rates[name]
                continue
            harness.sample(name, round(rates[name][-1], 2))
            harness.note(f"round {number + 1}/{ROUNDS} {name}: {rates[name][-1]:.1f} rows/s")
    return {name: harness.median(values) for name, values in rates.items()}


def shown(rates: Mapping[str, float], rows: int, ceiling: float) -> None:
    harness.table(
        [
            {"contender": name, "rows/s": rate, "of the ceiling": rate / ceiling, "rows": rows}
            for name, rate in sorted(rates.items(), key=lambda item: -item[1])
        ]
    )


def texts(folder: Path) -> dict[str, Any]:
    bench = embed_texts.Texts(folder, CORES)
    rates = measured(bench.contenders())
    ours, ceiling = rates["barycenter"], max(rate for name, rate in rates.items() if name.startswith("bare model"))
    shown(rates, bench.rows, ceiling)
    harness.note(f"start-up of the stage (worker, model, calibration): {bench.stage.start_seconds:.1f} s")
    return {
        "rows_per_s": ours,
        "vs_ceiling": ours / ceiling,
        "vs_sentence_transformers": ours / rates["sentence-transformers"],
        "vs_ray_data": ours / rates["ray data"],
        "vs_daft": ours / rates["daft"] if "daft" in rates else None,
        "largest_difference": bench.largest_difference(),
        "rates": rates,
        "settings": bench.settings,
        "rows": bench.rows,
        "plan": bench.stage.plan(),
    }


def pictures(folder: Path) -> dict[str, Any]:
    bench = embed_pictures.Pictures(folder, CORES)
    rates = measured(bench.contenders())
    model = max(rate for name, rate in rates.items() if name.startswith("bare model"))
    ceiling = 1 / (1 / model + 1 / (CORES * rates["decode, one core"]))
    ours = rates["barycenter"]
    shown(rates | {"ceiling": ceiling}, bench.rows, ceiling)
    harness.note(f"start-up of the stage (worker, model, calibration): {bench.stage.start_seconds:.1f} s")
    own = 1 / (1 / rates["own model"] + 1 / (CORES * rates["decode, one core"]))
    return {
        "rows_per_s": ours,
        "vs_ceiling": ours / ceiling,
        "vs_dataloader": ours / rates["dataloader"],
        "vs_ray_data": ours / rates["ray data"],
        "vs_own_ceiling": ours / own,
        "compile_seconds": bench.compile_seconds,
        "rates": rates,
        "settings": bench.settings,
        "rows": bench.rows,
        "plan": bench.stage.plan(),
        "jpeg_12mp": bench.large_jpegs(),
    }


def main() -> None:
    torch.set_num_threads(CORES)
    ray.init(address="local", num_cpus=CORES, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    with tempfile.TemporaryDirectory() as scratch:
        figures = {"text": texts(Path(scratch)), "image": pictures(Path(scratch))}
    names = ["torch", "torchvision", "transformers", "sentence-transformers", "ray", "pillow"]
    names += ["daft"] if find_spec("daft") else []
    figures["versions"] = harness.versions(*names)
    figures["machine"] = {"cores": CORES, "device": "CPU", "system": platform.system()}
    harness.note(figures["versions"])
    harness.finish(figures)


if __name__ == "__main__":
    main()
