"""The output that a run borrows its alignment from."""

from barycenter.fusion.dataset.schema import Manifest
from barycenter.fusion.errors import JobError, RunError
from barycenter.infra.storage import Storage
from barycenter.infra.storage.storage import MissingFileError
from barycenter.infra.versions.manifests import read_manifest
from barycenter.tasks.run.context import Run


def lender(run: Run) -> tuple[Storage, Manifest]:
    """The storage of ``alignment.from``, and the version there that readers see.

    Raises:
        JobError: There is none, or its inputs were embedded by other encoders.
        RunError: Its manifest cannot be read.
    """
    source = Storage(str(run.job.alignment.from_), run.job.storage.endpoint_url)
    try:
        manifest = read_manifest(source)
    except RunError as error:
        if not isinstance(error.__cause__, MissingFileError):
            raise
        raise JobError("alignment.from", f"{error}; name the output of a finished run") from error
    theirs = {name: entry["encoder_id"] for name, entry in manifest.inputs.items()}
    ours = {name: run.encoders[name].encoder_id for name in run.inputs}
    if theirs != ours:
        differing = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        raise JobError(
            "alignment.from", f"was fitted on other encoders of {', '.join(differing)}; embed with the same ones"
        )
    return source, manifest
