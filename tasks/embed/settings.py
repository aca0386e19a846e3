"""How each input is encoded on each kind of machine: kept in plan.json, fixed there before the first shard."""

import platform
from dataclasses import asdict, fields
from functools import cache
from importlib.metadata import version
from typing import Any

from barycenter.fusion.encoders import fixed_batch_size
from barycenter.infra.dispatch.executor import WorkerAllocation
from barycenter.tasks.embed.execution import Execution
from barycenter.tasks.run.context import Run
from barycenter.tasks.run.plan_file import Plan, read_plan, update_plan

_LIBRARIES = ("torch", "torchvision", "transformers", "tokenizers", "pillow", "numpy", "pyarrow", "ray", "prefect")

__all__ = ["Execution", "find_execution", "fixed_executions", "pin_batch_settings"]


def find_execution(run: Run, name: str, workers: WorkerAllocation, machine: str | None = None) -> Execution:
    """The execution of an input on a kind of machine as plan.json has it; else as the job and the allocation have it.

    A plan made for another encoder, device, or other settings of the job does not count.
    """
    if machine is not None and (fixed := fixed_executions(run, name, workers).get(machine)):
        return fixed
    asked, without_model = run.job.inputs[name].batch, fixed_batch_size(run.specs[name])
    batch = without_model if asked == "auto" else asked
    device = device_of(workers)
    onednn = None if without_model is None and device == "cpu" else False
    return Execution(batch, workers.threads, run.specs[name].dtype, device, onednn=onednn)


def fixed_executions(run: Run, name: str, workers: WorkerAllocation) -> dict[str, Execution]:
    """What plan.json has for an input by kind of machine, made for the same encoder, device and settings."""
    machines = read_plan(run.storage).get("machines", {})
    entries = {kind: about["inputs"].get(name, {}) for kind, about in machines.items()}
    key = _key(run, name, workers)
    return {kind: _execution(entry) for kind, entry in entries.items() if _matches(entry, key)}


def pin_batch_settings(
    run: Run, name: str, workers: WorkerAllocation, chosen: Execution, machine: str = ""
) -> Execution:
    """Writes the execution of an input on a kind of machine to plan.json, beside what else is there.

    Returns:
        The one that is there now: that of another run, if one fixed it meanwhile.
    """
    key = _key(run, name, workers)

    def pin(plan: Plan) -> None:
        about = plan.setdefault("machines", {}).setdefault(machine, {"inputs": {}})
        if not _matches(about["inputs"].get(name, {}), key):
            about["inputs"][name] = asdict(chosen) | key
            about["libraries"] = _library_versions()

    return _execution(update_plan(run.storage, pin)["machines"][machine]["inputs"][name])


def device_of(workers: WorkerAllocation) -> str:
    """The device that the workers run models on."""
    return "cuda" if workers.gpus_per_worker else "cpu"


def _execution(entry: dict[str, Any]) -> Execution:
    return Execution(**{field.name: entry[field.name] for field in fields(Execution) if field.name in entry})


def _matches(entry: dict[str, Any], key: dict[str, Any]) -> bool:
    return {part: entry.get(part) for part in key} == key


def _key(run: Run, name: str, workers: WorkerAllocation) -> dict[str, Any]:
    return {
        "encoder_id": run.encoders[name].encoder_id,
        "device": device_of(workers),
        "asked": [run.job.inputs[name].batch, run.job.ray.threads_per_worker],
    }


@cache
def _library_versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {name: version(name) for name in _LIBRARIES}
