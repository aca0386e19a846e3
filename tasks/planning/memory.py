"""Whether the encoders fit into the memory that this machine, or its container, allows."""

from barycenter.fusion.errors import JobError
from barycenter.fusion.machine_limits import usable_memory
from barycenter.tasks.embed.memory import LOADING, weight_bytes
from barycenter.tasks.embed.stage import pending_shards
from barycenter.tasks.run.context import Run

BESIDE = {"local": 2 << 30, "none": 1 << 30}
"""Bytes that a run takes beside its model, by ``ray.address``: driver, Prefect, libraries, a batch; with Ray, Ray."""

_GIB = float(1 << 30)


def check_memory(run: Run) -> None:
    """Refuses an encoder whose weights do not fit into the memory of this machine; of other machines nothing is known.

    Raises:
        JobError: On the encoder, with what it needs and what there is.
    """
    allowed, beside = usable_memory(), BESIDE.get(run.job.ray.address)
    if allowed is None or beside is None:
        return
    for name, spec in run.specs.items():
        weights = weight_bytes(spec)
        needed = beside + LOADING * weights
        if weights and needed > allowed and (run.unjoined or pending_shards(run, name)):
            raise JobError(
                f"inputs.{name}.encoder",
                f"its weights take {weights / _GIB:.1f} GiB in {spec.dtype} and a run some {needed / _GIB:.1f} GiB; "
                f"this machine, or its container, allows {allowed / _GIB:.1f} GiB; take a smaller encoder, dtype: "
                "bfloat16 or a larger machine",
            )
