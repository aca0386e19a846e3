"""KubeRay's manifests, rendered: they hold their properties, and each check sees its property lost."""

import gzip

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from pydantic import ValidationError as ModelError

from barycenter.infra.job.models import Job
from tests.infra.deploy import properties
from tests.infra.deploy.rendering import FOLDERS, cluster_of, named, render


def has_job(folder):
    return folder == "example" or folder.endswith("-job")


CHECKS = [
    (folder, check)
    for folder in FOLDERS
    for check in [*properties.OF_CLUSTERS, *(properties.OF_JOBS if has_job(folder) else [])]
]


@pytest.mark.parametrize(("folder", "check"), CHECKS, ids=lambda value: getattr(value, "__name__", value))
def test_every_rendering_holds_every_property(folder, check):
    check(render(folder))


def head(documents):
    return cluster_of(documents)["headGroupSpec"]["template"]["spec"]


def worker(documents, group=0):
    return cluster_of(documents)["workerGroupSpecs"][group]["template"]["spec"]


def job(documents):
    return named(documents, "RayJob")["spec"]


def submitter(documents):
    return job(documents)["submitterPodTemplate"]["spec"]


def autoscaler(documents):
    return cluster_of(documents)["autoscalerOptions"]


def first(pod):
    return pod["containers"][0]


LOST = {
    "a misspelled field of the job": (properties.schemas, lambda d: job(d).update(backofLimit=1)),
    "a misspelled field of the cluster": (properties.schemas, lambda d: cluster_of(d).update(enableInTreeAutoscalin=1)),
    "a misspelled field of a pod": (properties.schemas, lambda d: worker(d).update(nodeSelektor={})),
    "a misspelled field of a container": (
        properties.schemas,
        lambda d: first(worker(d, 1)).update(pullPolicy=1),
    ),
    "a misspelled field of the autoscaler": (
        properties.schemas,
        lambda d: autoscaler(d)["resources"].update(a={}),
    ),
    "text for a number": (properties.schemas, lambda d: job(d).update(ttlSecondsAfterFinished="600")),
    "a number for text": (
        properties.schemas,
        lambda d: cluster_of(d)["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    ),
    "more than most": (properties.schemas, lambda d: cluster_of(d)["workerGroupSpecs"][0].update(replicas=99)),
    "a submitter as root": (properties.restricted, lambda d: submitter(d)["securityContext"].update(runAsUser=0)),
    "a head without a user": (properties.restricted, lambda d: head(d)["securityContext"].pop("runAsUser")),
    "a worker that may be root": (properties.restricted, lambda d: worker(d)["securityContext"].pop("runAsNonRoot")),
    "a GPU worker without seccomp": (
        properties.restricted,
        lambda d: worker(d, 1)["securityContext"].pop("seccompProfile"),
    ),
    "an autoscaler without a context": (properties.restricted, lambda d: autoscaler(d).pop("securityContext")),
    "a worker that gains privileges": (
        properties.restricted,
        lambda d: first(worker(d))["securityContext"].update(allowPrivilegeEscalation=True),
    ),
    "a worker with capabilities": (
        properties.restricted,
        lambda d: first(worker(d))["securityContext"]["capabilities"].update(add=["SYS_ADMIN"]),
    ),
    "a folder of the host": (
        properties.restricted,
        lambda d: head(d)["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    ),
    "a submitter without resources": (properties.bounded, lambda d: first(submitter(d)).pop("resources")),
    "an autoscaler without resources": (properties.bounded, lambda d: autoscaler(d).pop("resources")),
    "ephemeral storage without a limit": (
        properties.bounded,
        lambda d: first(worker(d))["resources"]["limits"].pop("ephemeral-storage"),
    ),
    "memory that may be taken away": (
        properties.bounded,
        lambda d: first(worker(d))["resources"]["requests"].update(memory="1Gi"),
    ),
    "a Ray folder without a limit": (properties.ray_folder, lambda d: worker(d)["volumes"][0]["emptyDir"].clear()),
    "a Ray folder on the image": (properties.ray_folder, lambda d: first(worker(d)).pop("volumeMounts")),
    "an autoscaler that logs elsewhere": (properties.ray_folder, lambda d: autoscaler(d).pop("volumeMounts")),
    "a Ray folder larger than its pod": (
        properties.ray_folder,
        lambda d: head(d)["volumes"][0]["emptyDir"].update(sizeLimit="20Gi"),
    ),
    "data on a volume": (
        properties.no_data_on_volumes,
        lambda d: worker(d)["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}}),
    ),
    "a Secret that must exist": (
        properties.secrets_optional,
        lambda d: first(worker(d))["envFrom"][1]["secretRef"].pop("optional"),
    ),
    "a token in the open": (
        properties.secrets_optional,
        lambda d: first(head(d))["env"].append({"name": "AWS_SECRET_ACCESS_KEY", "value": "abc"}),
    ),
    "workers without credentials": (properties.settings_reach_the_pods, lambda d: first(worker(d)).pop("envFrom")),
    "workers with Prefect's key": (
        properties.settings_reach_the_pods,
        lambda d: first(worker(d))["envFrom"].append(first(head(d))["envFrom"][-1]),
    ),
    "a driver without Prefect's address": (
        properties.settings_reach_the_pods,
        lambda d: first(head(d))["envFrom"].pop(0),
    ),
    "a worker under another account": (properties.service_account, lambda d: worker(d).pop("serviceAccountName")),
    "a worker with the account's token": (
        properties.service_account,
        lambda d: worker(d).pop("automountServiceAccountToken"),
    ),
    "an open cluster": (properties.token_from_kuberay, lambda d: cluster_of(d)["authOptions"].update(mode="disabled")),
    "a mode of its own": (
        properties.token_from_kuberay,
        lambda d: first(worker(d)).update(env=[{"name": "RAY_AUTH_MODE", "value": "token"}]),
    ),
    "the first autoscaler": (properties.scales_from_none, lambda d: autoscaler(d).update(version="v1")),
    "no autoscaler": (properties.scales_from_none, lambda d: cluster_of(d).update(enableInTreeAutoscaling=False)),
    "work on the head": (
        properties.scales_from_none,
        lambda d: cluster_of(d)["headGroupSpec"]["rayStartParams"].update({"num-cpus": "2"}),
    ),
    "a GPU that is always paid": (
        properties.scales_from_none,
        lambda d: cluster_of(d)["workerGroupSpecs"][1].update(minReplicas=1, replicas=1),
    ),
    "a pod that restarts": (properties.scales_from_none, lambda d: worker(d).update(restartPolicy="Always")),
    "a probe of its own": (
        properties.probes_are_kuberays,
        lambda d: first(worker(d)).update(livenessProbe={"tcpSocket": {"port": 8080}}),
    ),
    "GPUs anywhere": (properties.gpu_nodes, lambda d: worker(d, 1).pop("nodeSelector")),
    "GPUs behind a taint": (properties.gpu_nodes, lambda d: worker(d, 1).pop("tolerations")),
    "CPU workers on GPU nodes": (
        properties.gpu_nodes,
        lambda d: worker(d).update(tolerations=worker(d, 1)["tolerations"]),
    ),
    "a head without metrics": (properties.metrics_ports, lambda d: first(head(d))["ports"].pop()),
    "a worker that no monitor finds": (
        properties.metrics_ports,
        lambda d: cluster_of(d)["workerGroupSpecs"][0]["template"].update(metadata={"labels": {}}),
    ),
    "a monitor of the head alone": (
        properties.metrics_ports,
        lambda d: named(d, "PodMonitor")["spec"]["selector"]["matchExpressions"][0]["values"].pop(),
    ),
    "two images": (properties.one_image, lambda d: first(submitter(d)).update(image="barycenter")),
    "another Ray": (properties.one_image, lambda d: cluster_of(d).update(rayVersion="2.9.0")),
    "a job that is tried once": (properties.ends_and_resumes, lambda d: job(d).update(backoffLimit=0)),
    "a job without end": (properties.ends_and_resumes, lambda d: job(d).update(activeDeadlineSeconds=0)),
    "a cluster that stays": (properties.ends_and_resumes, lambda d: job(d).update(shutdownAfterJobFinishes=False)),
    "a job file on no volume": (properties.job_file, lambda d: head(d)["volumes"].pop()),
}


@pytest.mark.parametrize("name", LOST)
def test_a_lost_property_is_seen(name):
    check, lose = LOST[name]
    documents = render("example")
    lose(documents)
    with pytest.raises((AssertionError, KeyError, ModelError, ValidationError)):
        check(documents)


def test_every_check_has_something_to_see():
    assert {check for check, _ in LOST.values()} == {*properties.OF_CLUSTERS, *properties.OF_JOBS}


def test_overlays_choose_image_and_groups():
    def chosen(folder):
        cluster = cluster_of(render(folder))
        image = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]["image"]
        return image, [group["groupName"] for group in cluster["workerGroupSpecs"]]

    assert chosen("overlays/cpu") == chosen("overlays/cpu-job") == ("barycenter:cpu", ["cpu"])
    assert chosen("overlays/gpu") == chosen("overlays/gpu-job") == ("barycenter:cuda", ["cpu", "gpu"])


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_a_job_has_the_cluster_of_its_overlay_and_the_job_file(overlay):
    alone, inside = cluster_of(render(f"overlays/{overlay}")), cluster_of(render(f"overlays/{overlay}-job"))
    assert not [document for document in render(f"overlays/{overlay}-job") if document["kind"] == "RayCluster"]
    pod = inside["headGroupSpec"]["template"]["spec"]
    pod["volumes"].pop()
    pod["containers"][0]["volumeMounts"].pop()
    assert inside == alone


def test_the_example_sets_registry_account_namespace_prefect_and_a_job_that_is_valid():
    documents = render("example")
    account = named(documents, "ServiceAccount")
    assert account["imagePullSecrets"] == [{"name": "registry"}]
    assert "eks.amazonaws.com/role-arn" in account["metadata"]["annotations"]
    assert {document["metadata"]["namespace"] for document in documents} == {"barycenter"}
    assert first(submitter(documents))["image"].startswith("registry.example.com/team/barycenter:")
    maps = {each["metadata"]["name"]: each["data"] for each in documents if each["kind"] == "ConfigMap"}
    assert maps["barycenter-settings"]["PREFECT_API_URL"].endswith("/api")
    asked = Job.model_validate(yaml.safe_load(maps["barycenter-job"]["job.yaml"])).ray
    gpu = cluster_of(documents)["workerGroupSpecs"][1]
    has = first(worker(documents, 1))["resources"]["limits"]
    assert (asked.workers.max, asked.threads_per_worker, asked.gpus_per_worker) == (
        gpu["maxReplicas"],
        int(has["cpu"]),
        int(has["nvidia.com/gpu"]),
    )


@pytest.mark.parametrize("folder", ["overlays/gpu", "overlays/gpu-job"])
def test_rays_autoscaler_reads_the_groups(folder):
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    spec = cluster_of(render(folder))
    read = _derive_autoscaling_config_from_ray_cr({"metadata": {"name": "a", "namespace": "b"}, "spec": spec})
    nodes = {name: (node["min_workers"], node["max_workers"]) for name, node in read["available_node_types"].items()}
    assert nodes == {"headgroup": (0, 0), "cpu": (0, 8), "gpu": (0, 4)}
    resources = {name: node["resources"] for name, node in read["available_node_types"].items()}
    assert resources["headgroup"]["CPU"] == 0
    assert resources["cpu"] == {"CPU": 4, "memory": 12 * 2**30}
    assert resources["gpu"] == {"CPU": 8, "GPU": 1, "memory": 24 * 2**30}


def strict(schema):
    """A CRD's schema that refuses fields which an API server would drop."""
    if isinstance(schema, list):
        return [strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: strict(value) for key, value in schema.items()}
    if result.get("x-kubernetes-int-or-string"):
        result.pop("type", None)
    elif "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        result.setdefault("additionalProperties", False)
    return result


@pytest.fixture(scope="module")
def published(shared):
    """Validators of KubeRay's own custom resource definitions, by kind."""
    validators = {}
    for kind in ("RayCluster", "RayJob"):
        path = shared / "kuberay" / f"ray.io_{kind.lower()}s.yaml.gz"
        if not path.is_file():
            pytest.skip(f"no shared assets at {path}")
        definition = yaml.load(gzip.decompress(path.read_bytes()), Loader=yaml.CSafeLoader)
        [version] = [each for each in definition["spec"]["versions"] if each["name"] == "v1"]
        schema = strict(version["schema"]["openAPIV3Schema"])
        schema["properties"]["metadata"] = {"type": "object"}
        validators[kind] = Draft202012Validator(schema)
    return validators


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_published_definitions_accept_every_rendering(published, folder):
    for document in render(folder):
        if document["kind"] in published:
            published[document["kind"]].validate(document)


@pytest.mark.parametrize("name", [name for name in LOST if "misspelled" in name or "for a number" in name])
def test_the_published_definitions_refuse_what_the_models_refuse(published, name):
    documents = render("example")
    LOST[name][1](documents)
    with pytest.raises(ValidationError):
        published["RayJob"].validate(named(documents, "RayJob"))
