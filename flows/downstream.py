"""Train on a committed data set and predict, from its manifest and a head's configuration alone.

Another team's deployment starts this on the event ``barycenter.dataset.committed``; it needs neither the job file nor
the corpus, and writes to a folder of its own.
"""

from typing import Any

from prefect import flow
from pydantic import Field

import barycenter.flows.environment  # noqa: F401  (before Prefect and Ray)
from barycenter.flows.ending import reported
from barycenter.fusion.errors import RunError
from barycenter.infra.job.fields import Natural, Section, Text
from barycenter.infra.job.models import TrainJob
from barycenter.infra.job.places import RayJob
from barycenter.infra.storage import Storage
from barycenter.infra.versions.manifests import read_manifest
from barycenter.tasks.heads.predict import default_path, predict
from barycenter.tasks.heads.stage import fit_head
from barycenter.tasks.run.identities import head_folder


class HeadConfig(Section):
    """What to train: the ``train`` section of a job file, and where."""

    train: TrainJob = Field(description="The head.")
    ray: RayJob = Field(RayJob(), description="The workers.")
    seed: Natural = Field(0, description="Seed of everything random.")
    endpoint_url: Text | None = Field(None, description="URL of an S3-compatible server.")


@flow(name="barycenter-downstream", flow_run_name="downstream {dataset}")
@reported
def downstream(dataset: str, head: HeadConfig, out: str, version: int | None = None) -> dict[str, Any]:
    """Trains a head on a fused data set and predicts every row of it.

    Args:
        dataset: Output folder of a run, or a URI; the event's resource names it.
        head: What to train.
        out: Folder or URI that the head and the predictions are written to.
        version: Number of the manifest; by default the newest.

    Returns:
        ``metrics``, ``predictions`` and the folder of the head.
    """
    source, sink = Storage(dataset, head.endpoint_url), Storage(out, head.endpoint_url)
    manifest = read_manifest(source, version)
    folder = head_folder(manifest.version, head.train, head.seed)
    name = f"downstream-{manifest.version}"
    metrics, _ = fit_head(source, manifest, head.train, head.ray, sink, folder, seed=head.seed, name=name)
    if not metrics["n_train"]:
        raise RunError("; ".join(metrics["notes"]))
    made = predict(source, manifest, (sink, folder), sink, default_path(folder))
    return {"metrics": metrics, "predictions": made, "head": sink.uri(folder)}
