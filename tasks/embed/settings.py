"""plan.json: how each input is encoded here, fixed before its first shard and kept by every rerun."""

import json
import platform
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import Any

from barycenter.fusion.encoders import fixed_batch_size
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.tasks.run.context import Run

PLAN = "plan.json"
_LIBRARIES = ("torch", "torchvision", "transformers", "tokenizers", "pillow", "numpy", "pyarrow", "ray", "prefect")


@dataclass(frozen=True, slots=True)
class Execution:
    """What the vectors of one input depend on beside the encoder, in their last bits.

    Attributes:
        batch: Rows, or tokens of text, the model reads at a time; None while it is yet to be found.
        threads: Threads of a worker.
        dtype: Number format of the model.
        device: ``cpu`` or ``cuda``.
        compiled: Whether the model is compiled. None is: with its batch normalizations folded, MobileNetV2 ran faster
            on two cores than compiled, and a compiler is one thing more that a machine must have.
    """

    batch: int | None
    threads: int
    dtype: str
    device: str
    compiled: bool = False


def find_execution(run: Run, name: str, workers: WorkerAllocation) -> Execution:
    """The execution of an input as plan.json has it; without one, as the job and the machine have it.

    A plan made for another encoder, device, or other settings of the job does not count.
    """
    asked = run.job.inputs[name].batch
    if fixed := _pinned(run, name, workers):
        return fixed
    batch = fixed_batch_size(run.specs[name]) if asked == "auto" else asked
    return Execution(batch, workers.threads, run.specs[name].dtype, _device(workers))


def pin_batch_settings(run: Run, name: str, workers: WorkerAllocation, chosen: Execution) -> Execution:
    """Writes the execution of an input to plan.json, beside what the other inputs have.

    Returns:
        The one that is there now: that of another run, if one fixed it meanwhile.
    """
    entry = {name: asdict(chosen) | _key(run, name, workers)}
    if run.storage.create(PLAN, _encoded(entry)):
        return chosen
    if fixed := _pinned(run, name, workers):
        return fixed
    run.storage.write(PLAN, _encoded(_read(run).get("inputs", {}) | entry))
    return chosen


def _pinned(run: Run, name: str, workers: WorkerAllocation) -> Execution | None:
    """What plan.json has, if that was made for the same encoder, device and settings."""
    fixed, key = _read(run).get("inputs", {}).get(name, {}), _key(run, name, workers)
    if {part: fixed.get(part) for part in key} != key:
        return None
    return Execution(fixed["batch"], fixed["threads"], fixed["dtype"], fixed["device"], fixed["compiled"])


def _encoded(inputs: dict[str, Any]) -> bytes:
    return json.dumps({"inputs": inputs, "libraries": _library_versions()}, indent=1, sort_keys=True).encode()


def _key(run: Run, name: str, workers: WorkerAllocation) -> dict[str, Any]:
    return {
        "encoder_id": run.encoders[name].encoder_id,
        "device": _device(workers),
        "asked": [run.job.inputs[name].batch, run.job.ray.threads_per_worker],
    }


def _device(workers: WorkerAllocation) -> str:
    return "cuda" if workers.gpus_per_worker else "cpu"


def _read(run: Run) -> dict[str, Any]:
    """The content of plan.json, empty where there is none."""
    plan: dict[str, Any] = json.loads(run.storage.read(PLAN)) if run.storage.exists(PLAN) else {}
    return plan


@cache
def _library_versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}
