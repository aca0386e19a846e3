"""What a job asks of its alignment, checked before anything starts."""

from barycenter.fusion.errors import JobError
from barycenter.infra.job.models import Job
from barycenter.tasks.run.context import describe_widths

FEATURES = 4000
"""Random features of all inputs together: the moments of a fold take 8 bytes for each pair of them."""


def check_alignment(job: Job, widths: dict[str, int], rows: int) -> None:
    """Refuses, before anything starts, what the widths of the inputs or the number of rows do not allow.

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
    if rows == 1 and job.alignment.from_ is None:
        raise JobError(
            "alignment.method", f"`{method}` needs at least two rows, the corpus has one; add rows, or take `none`"
        )
    if method == "kernel-cca" and job.alignment.regularization == 0:
        raise JobError("alignment.regularization", "must be above 0 for `kernel-cca`; use auto")
    if job.explicit("alignment.dim") and dim > max_dim(method, widths):
        raise JobError(
            "alignment.dim",
            f"{dim} is above the {max_dim(method, widths)} that `{method}` allows ({described_widths}); lower it, or "
            "leave it out",
        )


def max_dim(method: str, widths: dict[str, int]) -> int:
    """The largest dim that a method can give for these widths."""
    total, largest, smallest = sum(widths.values()), max(widths.values()), min(widths.values())
    shared = total - largest
    limits = {"pca": smallest, "procrustes": smallest, "cca": shared, "contrastive": shared}
    limits["kernel-cca"] = FEATURES // len(widths) // 2 * 2 * (len(widths) - 1)
    return limits.get(method, total)
