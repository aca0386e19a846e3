"""Strict models of what the KubeRay manifests use, so that a wrong key or value shows before a cluster sees it.

Fields and types follow KubeRay's ``ray.io/v1`` and Kubernetes' core API; only the fields that are used are here.
"""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, model_validator
from pydantic.alias_generators import to_camel

Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
Quantity = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$")]
Text = Annotated[str, StringConstraints(min_length=1)]
Port = Annotated[int, Field(ge=1, le=65535)]
Count = Annotated[int, Field(ge=0)]


class Strict(BaseModel):
    """No unknown keys, no conversions: ``"2"`` is no number."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)


class Reference(Strict):
    """Names another object of the namespace."""

    name: Name


class EnvFrom(Strict):
    """Variables from a Secret."""

    secret_ref: Reference


class Env(Strict):
    """One variable; never a secret."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Z_][A-Z0-9_]*$")]
    value: str

    @model_validator(mode="after")
    def _no_secret(self) -> Self:
        if re.search("SECRET|TOKEN|PASSWORD|ACCESS_KEY", self.name):
            raise ValueError(f"{self.name} belongs in a Secret")
        return self


class ContainerPort(Strict):
    """A port that is declared."""

    name: Name
    container_port: Port


class Resources(Strict):
    """What a container gets; Ray reads the limits as its node's resources."""

    requests: dict[Text, Quantity]
    limits: dict[Text, Quantity]

    @model_validator(mode="after")
    def _guaranteed(self) -> Self:
        if self.requests != self.limits:
            raise ValueError("requests and limits differ: Ray would count on what may be taken away")
        return self


class VolumeMount(Strict):
    """Where a volume appears."""

    name: Name
    mount_path: Annotated[str, StringConstraints(pattern="^/")]
    read_only: bool = False


class Container(Strict):
    """A container."""

    name: Name
    image: Text
    ports: list[ContainerPort] = []
    env: list[Env] = []
    env_from: list[EnvFrom] = []
    resources: Resources | None = None
    volume_mounts: list[VolumeMount] = []


class Volume(Strict):
    """A volume from a ConfigMap."""

    name: Name
    config_map: Reference


class Toleration(Strict):
    """Lets pods onto tainted nodes."""

    key: Text
    operator: Literal["Exists"]
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"]


class PodSpec(Strict):
    """A pod."""

    containers: Annotated[list[Container], Field(min_length=1)]
    volumes: list[Volume] = []
    tolerations: list[Toleration] = []
    restart_policy: Literal["Never"] | None = None

    @model_validator(mode="after")
    def _mounts_exist(self) -> Self:
        known = {volume.name for volume in self.volumes}
        for container in self.containers:
            for mount in container.volume_mounts:
                if mount.name not in known:
                    raise ValueError(f"{container.name} mounts {mount.name}, which is no volume")
        return self


class PodTemplate(Strict):
    """A pod's template."""

    spec: PodSpec


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
    """When idle nodes go."""

    idle_timeout_seconds: Annotated[int, Field(ge=1)]


class ClusterSpec(Strict):
    """A Ray cluster."""

    ray_version: Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
    enable_in_tree_autoscaling: bool
    autoscaler_options: AutoscalerOptions
    head_group_spec: HeadGroup
    worker_group_specs: Annotated[list[WorkerGroup], Field(min_length=1)]


class JobSpec(Strict):
    """One job on a cluster; nothing above ``barycenter.infra.dispatch.api`` retries."""

    entrypoint: Text
    submission_mode: Literal["K8sJobMode"]
    backoff_limit: Literal[0]
    shutdown_after_job_finishes: bool
    ttl_seconds_after_finished: Count
    submitter_pod_template: PodTemplate
    ray_cluster_spec: ClusterSpec


class RayCluster(Strict):
    """``kind: RayCluster``."""

    api_version: Literal["ray.io/v1"]
    kind: Literal["RayCluster"]
    metadata: Reference
    spec: ClusterSpec


class RayJob(Strict):
    """``kind: RayJob``."""

    api_version: Literal["ray.io/v1"]
    kind: Literal["RayJob"]
    metadata: Reference
    spec: JobSpec


_Manifest: TypeAdapter[RayCluster | RayJob] = TypeAdapter(Annotated[RayCluster | RayJob, Field(discriminator="kind")])


def check(manifest: Path | dict[str, Any]) -> RayCluster | RayJob:
    """Checks a KubeRay manifest, given as a file or as its content.

    Raises:
        pydantic.ValidationError: Something in it is unknown, missing or wrong.
    """
    content = yaml.safe_load(manifest.read_text()) if isinstance(manifest, Path) else manifest
    return _Manifest.validate_python(content)
