"""What the manifests must hold on any cluster; each check raises ``AssertionError`` where its property is lost."""

import re
from pathlib import Path

from tests.infra.deploy.kuberay import check_schemas
from tests.infra.deploy.rendering import Document, cluster_of, containers_of, groups_of, named, pods_of

CONSTRAINTS = Path(__file__).resolve().parents[3] / "infra" / "constraints.txt"
MANIFEST_LABEL = {"app.kubernetes.io/part-of": "barycenter"}


def schemas(documents: list[Document]) -> None:
    """Every field exists and has the type that its operator expects."""
    check_schemas(documents)


def restricted(documents: list[Document]) -> None:
    """The Pod Security standard "restricted", for every container of every pod."""
    allowed = {
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "persistentVolumeClaim",
        "projected",
        "secret",
    }
    for name, pod in pods_of(documents).items():
        spec = pod["spec"]
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys(), name
        for volume in spec.get("volumes", []):
            assert set(volume) - {"name"} <= allowed, (name, volume)
        for container in containers_of(pod):
            where = f"{name}: {container['name']}"
            own = container.get("securityContext", {})
            both = spec.get("securityContext", {}) | own
            assert both.get("runAsNonRoot") is True, where
            assert isinstance(both.get("runAsUser"), int), where
            assert both["runAsUser"] > 0, where
            assert both.get("seccompProfile") == {"type": "RuntimeDefault"}, where
            assert own.get("allowPrivilegeEscalation") is False, where
            assert own.get("capabilities") == {"drop": ["ALL"]}, where
            assert not own.get("privileged"), where
            assert not any("hostPort" in port for port in container.get("ports", [])), where


def bounded(documents: list[Document]) -> None:
    """Every container states CPU, memory and, but for KubeRay's own, ephemeral storage, as much as it may use."""
    for name, pod in pods_of(documents).items():
        for container in containers_of(pod):
            where = f"{name}: {container['name']}"
            resources = container.get("resources", {})
            needed = {"cpu", "memory"} | (set() if container["name"] == "wait-gcs-ready" else {"ephemeral-storage"})
            assert needed <= resources.get("requests", {}).keys(), where
            assert resources["requests"] == resources.get("limits"), f"{where}: Ray would count on what may be taken"


def _bytes(quantity: str) -> int:
    number, unit = re.fullmatch(r"(\d+)([MG])i", quantity).groups()
    return int(number) * 2 ** {"M": 20, "G": 30}[unit]


def ray_folder(documents: list[Document]) -> None:
    """Ray's logs and spilled objects go to a volume that is smaller than the ephemeral storage of its pod."""
    for name, pod in pods_of(documents).items():
        if name == "submitter":
            continue
        volumes = {volume["name"]: volume for volume in pod["spec"].get("volumes", [])}
        for container in pod["spec"]["containers"]:
            mounts = {mount["mountPath"]: mount["name"] for mount in container.get("volumeMounts", [])}
            assert set(mounts.values()) <= volumes.keys(), f"{name}: a mount of no volume"
            assert "/tmp/ray" in mounts, f"{name}: {container['name']}"
            assert mounts["/tmp/ray"] == "ray-logs", "KubeRay would mount another volume there"
            size = _bytes(volumes["ray-logs"]["emptyDir"]["sizeLimit"])
        assert size < _bytes(pod["spec"]["containers"][0]["resources"]["limits"]["ephemeral-storage"]), name


def no_data_on_volumes(documents: list[Document]) -> None:
    """Data are in S3: pods have scratch space and the job file."""
    for name, pod in pods_of(documents).items():
        for volume in pod["spec"].get("volumes", []):
            assert set(volume) - {"name"} <= {"emptyDir", "configMap"}, name


def secrets_optional(documents: list[Document]) -> None:
    """No Secret must exist, and none is in a manifest."""
    for name, pod in pods_of(documents).items():
        for container in containers_of(pod):
            for source in container.get("envFrom", []):
                [reference] = [source[kind] for kind in source if kind.endswith("Ref")]
                assert reference.get("optional") is True, f"{name}: {reference['name']}"
            for variable in container.get("env", []):
                assert not re.search("SECRET|TOKEN|PASSWORD|ACCESS_KEY|API_KEY", variable["name"]), name
                assert "valueFrom" not in variable, name
    assert not [document for document in documents if document["kind"] == "Secret"]


def settings_reach_the_pods(documents: list[Document]) -> None:
    """S3's credentials reach head and workers; Prefect's address and credentials reach the driver alone."""
    for name, pod in pods_of(documents).items():
        if name == "submitter":
            continue
        sources = pod["spec"]["containers"][0].get("envFrom", [])
        found = {next(iter(source.values()))["name"] for source in sources}
        driver = {"prefect-credentials"} if name == "head" else set()
        assert found == {"barycenter-settings", "s3-credentials"} | driver, name


def service_account(documents: list[Document]) -> None:
    """One account, by name, for every pod; only the head, where the autoscaler is, may speak to the API server."""
    account = named(documents, "ServiceAccount")["metadata"]["name"]
    for name, pod in pods_of(documents).items():
        assert pod["spec"].get("serviceAccountName") == account, name
        assert pod["spec"].get("automountServiceAccountToken", True) is (name == "head"), name
        assert "imagePullSecrets" not in pod["spec"], "the account has them"


def token_from_kuberay(documents: list[Document]) -> None:
    """KubeRay sets mode and token in every container, the autoscaler's and the waiting one's too; nobody else does."""
    assert cluster_of(documents)["authOptions"]["mode"] == "token"
    for name, pod in pods_of(documents).items():
        for container in containers_of(pod):
            names = {variable["name"] for variable in container.get("env", [])}
            assert not [each for each in names if each.startswith("RAY_AUTH")], name


def scales_from_none(documents: list[Document]) -> None:
    """Autoscaler v2, a head without CPUs for work, every worker group from none."""
    cluster = cluster_of(documents)
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in cluster["workerGroupSpecs"]:
        assert (group["replicas"], group["minReplicas"]) == (0, 0), group["groupName"]
        assert group["maxReplicas"] > 0, group["groupName"]
    for group in groups_of(documents):
        assert group["template"]["spec"].get("restartPolicy", "Never") == "Never", "autoscaler v2 replaces pods"


def probes_are_kuberays(documents: list[Document]) -> None:
    """KubeRay adds its own probes where a container has none."""
    for name, pod in pods_of(documents).items():
        for container in pod["spec"]["containers"]:
            assert not [key for key in container if key.endswith("Probe")], name


def gpu_nodes(documents: list[Document]) -> None:
    """A group that asks for GPUs is placed on nodes with them, and tolerates their taint; no other group does."""
    for group in cluster_of(documents)["workerGroupSpecs"]:
        spec = group["template"]["spec"]
        asks = "nvidia.com/gpu" in spec["containers"][0]["resources"]["limits"]
        assert asks == (group["groupName"] == "gpu")
        assert ("nodeSelector" in spec) == asks, group["groupName"]
        tolerated = [each["key"] for each in spec.get("tolerations", [])]
        assert tolerated == (["nvidia.com/gpu"] if asks else []), group["groupName"]


def metrics_ports(documents: list[Document]) -> None:
    """Head and workers have the port and the label by which a PodMonitor finds them."""
    for name, pod in pods_of(documents).items():
        assert pod["metadata"]["labels"].items() >= MANIFEST_LABEL.items(), name
        if name != "submitter":
            ports = {port["name"]: port["containerPort"] for port in pod["spec"]["containers"][0].get("ports", [])}
            assert ports.get("metrics") == 8080, name
    for monitor in (document for document in documents if document["kind"] == "PodMonitor"):
        spec = monitor["spec"]
        assert spec["selector"]["matchLabels"] == MANIFEST_LABEL
        [nodes] = spec["selector"]["matchExpressions"]
        assert (nodes["key"], nodes["values"]) == ("ray.io/node-type", ["head", "worker"])
        assert [endpoint["port"] for endpoint in spec["podMetricsEndpoints"]] == ["metrics"]


def one_image(documents: list[Document]) -> None:
    """All containers have the same image, and the Ray that is pinned."""
    images = {container["image"] for pod in pods_of(documents).values() for container in containers_of(pod)}
    assert len(images) == 1, images
    pinned = re.search(r"^ray==(.+)$", CONSTRAINTS.read_text(), re.MULTILINE)[1]
    assert cluster_of(documents)["rayVersion"] == pinned


def ends_and_resumes(documents: list[Document]) -> None:
    """A job is tried again on a new cluster, has deadlines, and leaves no cluster behind."""
    job = named(documents, "RayJob")["spec"]
    assert job["backoffLimit"] > 0
    assert job["submitterConfig"]["backoffLimit"] > 0
    assert job["submitterPodTemplate"]["spec"]["restartPolicy"] == "Never"
    assert 0 < job["preRunningDeadlineSeconds"] < job["activeDeadlineSeconds"]
    assert job["shutdownAfterJobFinishes"] is True
    assert job["ttlSecondsAfterFinished"] > 0
    assert "--set ray.address=auto" in job["entrypoint"]


def job_file(documents: list[Document]) -> None:
    """The entrypoint's file is mounted on the head, where the driver runs."""
    head = pods_of(documents)["head"]["spec"]
    assert {"name": "job", "configMap": {"name": "barycenter-job"}} in head["volumes"]
    assert {"name": "job", "mountPath": "/job", "readOnly": True} in head["containers"][0]["volumeMounts"]
    assert " /job/job.yaml " in named(documents, "RayJob")["spec"]["entrypoint"]


OF_CLUSTERS = [
    schemas, restricted, bounded, ray_folder, no_data_on_volumes, secrets_optional, settings_reach_the_pods,
    service_account, token_from_kuberay, scales_from_none, probes_are_kuberays, gpu_nodes, metrics_ports, one_image,
]  # fmt: skip
OF_JOBS = [ends_and_resumes, job_file]
