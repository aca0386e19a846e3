"""KubeRay's manifests against strict models of its resources; the image against what the project pins."""

import copy
import json
import re
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from barycenter.infra.ray import metrics
from tests.infra.deploy.kuberay import RayCluster, RayJob, check

DEPLOY = Path(__file__).resolve().parents[3] / "infra" / "deploy"
FILES = sorted((DEPLOY / "kuberay").glob("*.yaml"))


def content(name):
    return yaml.safe_load((DEPLOY / "kuberay" / name).read_text())


def test_every_manifest_is_checked_and_pins_the_ray_that_is_installed():
    assert {path.name for path in FILES} == {"rayjob.yaml", "raycluster.yaml"}
    constraints = (DEPLOY.parent / "constraints.txt").read_text()
    pinned = re.search(r"^ray==(.+)$", constraints, re.MULTILINE)[1]
    for path in FILES:
        manifest = check(path)
        cluster = manifest.spec if isinstance(manifest, RayCluster) else manifest.spec.ray_cluster_spec
        assert cluster.ray_version == pinned


def test_kubernetes_retries_nothing():
    job = check(DEPLOY / "kuberay" / "rayjob.yaml")
    assert isinstance(job, RayJob)
    assert job.spec.backoff_limit == 0
    assert job.spec.submitter_pod_template.spec.restart_policy == "Never"


def test_every_node_gets_credentials_from_a_secret():
    for path in FILES:
        manifest = check(path)
        cluster = manifest.spec if isinstance(manifest, RayCluster) else manifest.spec.ray_cluster_spec
        for group in [cluster.head_group_spec, *cluster.worker_group_specs]:
            for container in group.template.spec.containers:
                assert "s3-credentials" in {source.secret_ref.name for source in container.env_from}


def misspelled(job):
    job["spec"]["backofLimit"] = job["spec"].pop("backoffLimit")


def retrying(job):
    job["spec"]["backoffLimit"] = 3


def more_than_most(job):
    job["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["replicas"] = 99


def text_for_a_number(job):
    job["spec"]["ttlSecondsAfterFinished"] = "600"


def a_token_in_the_open(job):
    head = job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    head["env"].append({"name": "RAY_AUTH_TOKEN", "value": "abc"})


def a_number_for_text(job):
    job["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0


def a_mount_of_nothing(job):
    del job["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]


@pytest.mark.parametrize(
    "damage",
    [
        misspelled,
        retrying,
        more_than_most,
        text_for_a_number,
        a_token_in_the_open,
        a_number_for_text,
        a_mount_of_nothing,
    ],
)
def test_a_wrong_manifest_is_refused(damage):
    job = content("rayjob.yaml")
    check(copy.deepcopy(job))
    damage(job)
    with pytest.raises(ValidationError):
        check(job)


def test_the_image_copies_every_package_and_takes_a_device():
    text = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^ARG DEVICE=cpu$", text, re.MULTILINE)
    copied = set(re.findall(r"^COPY (\w+) \1$", text, re.MULTILINE))
    assert copied == {"flows", "tasks", "infra", "fusion", "barycenter"}


def test_the_dashboard_asks_for_metrics_that_exist():
    dashboard = json.loads((DEPLOY / "grafana.json").read_text())
    asked = {
        name for panel in dashboard["panels"] for name in re.findall(r"ray_(barycenter_\w+)", str(panel["targets"]))
    }
    exported = set(re.findall(r'"(barycenter_\w+)"', Path(metrics.__file__).read_text()))
    assert {name.removesuffix("_total") for name in asked} == exported
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    assert len({(place["x"], place["y"]) for place in places}) == len(places)
