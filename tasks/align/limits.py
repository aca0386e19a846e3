"""What a job asks of its alignment and of its output, checked before anything starts."""

import os
from pathlib import Path

from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.infra.storage import Storage
from barycenter.tasks.run.context import describe_widths

FEATURES = 4000
"""Random features of all inputs together: the moments of a fold take 8 bytes for each pair of them."""


def check_alignment(job: Job, widths: dict[str, int]) -> None:
    """Refuses, before anything starts, what the widths of the inputs do not allow.

    Raises:
        JobError: Naming the key and the widths.
    """
    method, dim = job.alignment.method, job.alignment.dim
    described_widths = describe_widths(widths)
    if method == "none":
        if len(set(widths.values())) > 1:
            raise JobError(
                "alignment.method",
                f"`none` averages equal widths only, these differ: {described_widths}; use joint or pca",
            )
        if job.explicit("alignment.dim") and dim != next(iter(widths.values())):
            raise JobError(
                "alignment.dim",
                f"`none` keeps the inputs' width ({described_widths}), so dim cannot be {dim}; leave it out",
            )
        return
    if method == "kernel-cca" and job.alignment.regularization == 0:
        raise JobError("alignment.regularization", "must be above 0 for `kernel-cca`; use auto")
    if job.explicit("alignment.dim") and dim > max_dim(method, widths):
        raise JobError(
            "alignment.dim", f"{dim} is above the {max_dim(method, widths)} that `{method}` allows ({described_widths})"
        )


def check_output(storage: Storage) -> None:
    """Refuses an output folder on this machine that cannot be one.

    Raises:
        JobError: On ``output.path``: it is a file, lies below one, or may not be written to.
    """
    if not storage.is_local:
        return
    folder = Path(storage.root)
    existing = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not existing.is_dir():
        what = "is a file" if existing == folder else f"lies below {existing}, which is no folder"
        raise JobError("output.path", f"{folder} {what}; name a folder, which need not exist")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise JobError(
            "output.path", f"{existing} may not be written to; name another folder or change its permissions"
        )


def max_dim(method: str, widths: dict[str, int]) -> int:
    """The largest dim that a method can give for these widths."""
    total, largest, smallest = sum(widths.values()), max(widths.values()), min(widths.values())
    shared = total - largest
    limits = {"pca": smallest, "procrustes": smallest, "cca": shared, "contrastive": shared}
    limits["kernel-cca"] = FEATURES // len(widths) // 2 * 2 * (len(widths) - 1)
    return limits.get(method, total)
