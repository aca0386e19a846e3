"""Strict models of the fields that KubeRay and the Prometheus operator add to Kubernetes.

An API server drops fields that it does not know, without a word. Pod templates, and objects of Kubernetes' own, are
checked against Kubernetes' published schema; only the fields around them are here.
"""

from typing import Annotated, Any, Literal, Self

import kubernetes_validate
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel

from tests.infra.deploy.rendering import Document, pods_of

Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", max_length=47)]
Text = Annotated[str, StringConstraints(min_length=1)]
Count = Annotated[int, Field(ge=0)]
Seconds = Annotated[int, Field(ge=1)]


def kubernetes(document: Document) -> Document:
    """Checks an object of Kubernetes' own; unknown fields are refused."""
    kubernetes_validate.validate(document, kubernetes_validate.latest_version(), strict=True)
    return document


def _pod_template(template: Document) -> Document:
    wrapped = {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "pod"}, "template": template}
    kubernetes(wrapped)
    return template


PodTemplate = Annotated[dict[str, Any], AfterValidator(_pod_template)]


class Strict(BaseModel):
    """No unknown keys, no conversions: ``"2"`` is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Metadata(Strict):
    """What the manifests say of an object."""

    name: Name
    namespace: Name | None = None
    labels: dict[Text, Text] = {}


class HeadGroup(Strict):
    """The head node."""

    ray_start_params: dict[Text, str]
    template: PodTemplate


class WorkerGroup(Strict):
    """Equal worker nodes."""

    group_name: Name
    replicas: Count
    min_replicas: Count
    max_replicas: Count
    ray_start_params: dict[Text, str]
    template: PodTemplate

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.min_replicas <= self.replicas <= self.max_replicas:
            raise ValueError("minReplicas <= replicas <= maxReplicas does not hold")
        return self


class AutoscalerOptions(Strict):
    """The container beside the head; its Kubernetes fields are checked in the pod that KubeRay makes."""

    version: Literal["v1", "v2"]
    idle_timeout_seconds: Count
    resources: dict[str, Any]
    security_context: dict[str, Any]
    volume_mounts: list[dict[str, Any]]


class AuthOptions(Strict):
    """Token authentication."""

    mode: Literal["disabled", "token"]
    secret_name: Text | None = None


class ClusterSpec(Strict):
    """A Ray cluster."""

    ray_version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
    auth_options: AuthOptions
    enable_in_tree_autoscaling: bool
    autoscaler_options: AutoscalerOptions
    head_group_spec: HeadGroup
    worker_group_specs: Annotated[list[WorkerGroup], Field(min_length=1)]


class SubmitterConfig(Strict):
    """The Kubernetes Job that submits."""

    backoff_limit: Count


class JobSpec(Strict):
    """One job on a cluster of its own."""

    entrypoint: Text
    submission_mode: Literal["K8sJobMode"]
    backoff_limit: Count
    submitter_config: SubmitterConfig
    active_deadline_seconds: Seconds
    pre_running_deadline_seconds: Seconds
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: Count
    submitter_pod_template: PodTemplate
    ray_cluster_spec: ClusterSpec


class RayCluster(Strict):
    """``kind: RayCluster``."""

    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Metadata
    spec: ClusterSpec


class RayJob(Strict):
    """``kind: RayJob``."""

    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Metadata
    spec: JobSpec


class Endpoint(Strict):
    """A port that Prometheus reads."""

    port: Name
    interval: Annotated[str, StringConstraints(pattern=r"^\d+s$")]


class Expression(Strict):
    """A condition on a label."""

    key: Text
    operator: Literal["In"]
    values: list[Text]


class Selector(Strict):
    """Which pods."""

    match_labels: dict[Text, Text]
    match_expressions: list[Expression]


class PodMonitorSpec(Strict):
    """Which pods are read where."""

    selector: Selector
    pod_target_labels: list[Text]
    pod_metrics_endpoints: Annotated[list[Endpoint], Field(min_length=1)]


class PodMonitor(Strict):
    """``kind: PodMonitor`` of the Prometheus operator."""

    api_version: Literal["monitoring.coreos.com/v1"]
    kind: Literal["PodMonitor"]
    metadata: Metadata
    spec: PodMonitorSpec


_CUSTOM: TypeAdapter[RayCluster | RayJob | PodMonitor] = TypeAdapter(
    Annotated[RayCluster | RayJob | PodMonitor, Field(discriminator="kind")]
)


def check_schemas(documents: list[Document]) -> None:
    """Checks every document of a rendering, and the pods that KubeRay makes of it.

    Raises:
        pydantic.ValidationError: A field of KubeRay or of the Prometheus operator is unknown, missing or wrong.
        kubernetes_validate.ValidationError: One of Kubernetes' own is.
    """
    for document in documents:
        if document["apiVersion"] == "v1":
            kubernetes(document)
        else:
            _CUSTOM.validate_python(document)
    for pod in pods_of(documents).values():
        _pod_template(pod)
