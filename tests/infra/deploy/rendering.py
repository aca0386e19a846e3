"""The manifests as ``kubectl apply -k`` would send them, and their pods as KubeRay 1.7 makes them of the templates."""

import copy
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

KUBERAY = Path(__file__).resolve().parents[3] / "infra" / "deploy" / "kuberay"
FOLDERS = ["base", "overlays/cpu", "overlays/gpu", "overlays/cpu-job", "overlays/gpu-job", "example"]

Document = dict[str, Any]


def render(folder: str) -> list[Document]:
    """The documents of a kustomization; skips the test where no kustomize is installed."""
    return copy.deepcopy(_rendered(folder))


@cache
def _rendered(folder: str) -> list[Document]:
    if kubectl := shutil.which("kubectl"):
        command = [kubectl, "kustomize"]
    elif kustomize := shutil.which("kustomize"):
        command = [kustomize, "build"]
    else:
        pytest.skip("no kubectl or kustomize on this machine")
    done = subprocess.run([*command, str(KUBERAY / folder)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def named(documents: list[Document], kind: str) -> Document:
    """The only document of its kind."""
    [found] = [document for document in documents if document["kind"] == kind]
    return found


def cluster_of(documents: list[Document]) -> Document:
    """The specification of the Ray cluster, of its own or inside a job."""
    jobs = [document for document in documents if document["kind"] == "RayJob"]
    return jobs[0]["spec"]["rayClusterSpec"] if jobs else named(documents, "RayCluster")["spec"]


def groups_of(documents: list[Document]) -> list[Document]:
    """The head group and the worker groups."""
    cluster = cluster_of(documents)
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def pods_of(documents: list[Document]) -> dict[str, Document]:
    """Every pod's template, with the containers that KubeRay adds, by a name for messages.

    The autoscaler is beside the head with what ``autoscalerOptions`` says; before every worker an init container
    waits with the security context, the variables and the volume mounts of the worker, but without its ``envFrom``.
    """
    cluster = copy.deepcopy(cluster_of(documents))
    head = cluster["headGroupSpec"]["template"]
    options = cluster["autoscalerOptions"]
    kept = ("securityContext", "resources", "volumeMounts", "env", "envFrom")
    image = head["spec"]["containers"][0]["image"]
    autoscaler = {"name": "autoscaler", "image": image} | {key: options[key] for key in kept if key in options}
    head["spec"]["containers"].append(autoscaler)
    pods = {"head": head}
    for group in cluster["workerGroupSpecs"]:
        template = group["template"]
        worker = template["spec"]["containers"][0]
        waiting = {key: worker[key] for key in ("image", "securityContext", "env", "volumeMounts") if key in worker}
        small = {"cpu": "200m", "memory": "256Mi"}
        template["spec"]["initContainers"] = [
            {"name": "wait-gcs-ready", "resources": {"requests": small, "limits": small}} | waiting
        ]
        pods[group["groupName"]] = template
    for job in documents:
        if job["kind"] == "RayJob":
            pods["submitter"] = copy.deepcopy(job["spec"]["submitterPodTemplate"])
    return pods


def containers_of(pod: Document) -> list[Document]:
    """All containers of a pod."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]
