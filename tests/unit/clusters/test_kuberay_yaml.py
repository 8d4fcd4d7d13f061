"""The manifest for Kubernetes: KubeRay's and Kubernetes' fields alone, our rules, and each rule is shown to fail."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from ladder_search.commands.search import parse_arguments
from tests.unit.clusters.breakages import Breakage, Config, Rule, drop, put

ROOT = Path(__file__).resolve().parents[3]

# The reference of KubeRay 1.5 (ray.io/v1), as far as a search may need it; a name that is not here is a typing error.
FIELDS = {
    "RayJob": {"apiVersion", "kind", "metadata", "spec"},
    "RayJobSpec": {
        "activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypoint",
        "entrypointNumCpus", "entrypointNumGpus", "entrypointResources", "jobId", "managedBy", "metadata",
        "rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig",
        "submitterPodTemplate", "suspend", "ttlSecondsAfterFinished",
    },
    "RayClusterSpec": {
        "authOptions", "autoscalerOptions", "enableInTreeAutoscaling", "gcsFaultToleranceOptions", "headGroupSpec",
        "headServiceAnnotations", "managedBy", "rayVersion", "suspend", "workerGroupSpecs",
    },
    "HeadGroupSpec": {"enableIngress", "headService", "rayStartParams", "serviceType", "template"},
    "WorkerGroupSpec": {
        "groupName", "idleTimeoutSeconds", "maxReplicas", "minReplicas", "numOfHosts", "rayStartParams", "replicas",
        "scaleStrategy", "suspend", "template",
    },
    "PodSpec": {"containers", "nodeSelector", "restartPolicy", "securityContext", "tolerations", "volumes"},
    "Container": {"args", "command", "env", "image", "name", "resources", "securityContext", "volumeMounts"},
}  # fmt: skip
NOBODY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
UNPRIVILEGED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def load() -> Config:
    """The two documents, by their kinds. Through JSON, so that what YAML shares can be broken in one place."""
    documents = list(yaml.safe_load_all((ROOT / "clusters" / "kuberay.yaml").read_text()))
    found: Config = json.loads(json.dumps({document["kind"]: document for document in documents}))
    return found


def cluster(config: Config) -> Config:
    found: Config = config["RayJob"]["spec"]["rayClusterSpec"]
    return found


def pods(config: Config) -> dict[str, Any]:
    templates = {
        "submitter": config["RayJob"]["spec"]["submitterPodTemplate"],
        "head": cluster(config)["headGroupSpec"]["template"],
        **{group["groupName"]: group["template"] for group in cluster(config)["workerGroupSpecs"]},
    }
    return {name: template["spec"] for name, template in templates.items()}


def only_known_fields(config: Config) -> None:
    job = config["RayJob"]
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    for kind, found in [
        ("RayJob", job),
        ("RayJobSpec", job["spec"]),
        ("RayClusterSpec", cluster(config)),
        ("HeadGroupSpec", cluster(config)["headGroupSpec"]),
        *(("WorkerGroupSpec", group) for group in cluster(config)["workerGroupSpecs"]),
        *(("PodSpec", pod) for pod in pods(config).values()),
        *(("Container", container) for pod in pods(config).values() for container in pod["containers"]),
    ]:
        assert set(found) <= FIELDS[kind], f"{kind}: {set(found) - FIELDS[kind]}"
    for group in (cluster(config)["headGroupSpec"], *cluster(config)["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())


def the_job_ends_and_gives_everything_back(config: Config) -> None:
    spec = config["RayJob"]["spec"]
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 <= spec["ttlSecondsAfterFinished"] <= 600
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["backoffLimit"] == 0
    assert spec["submissionMode"] == "K8sJobMode"


def the_search_is_one_that_the_script_takes(config: Config) -> None:
    folder, script = config["RayJob"]["spec"]["entrypoint"].split(" && python ")
    assert folder == f"cd {workdir()}"
    name, *arguments = shlex.split(script)
    assert name == "search.py"
    settings = parse_arguments(arguments)
    assert settings.address == "auto"
    assert settings.gpus_per_trial == "auto"
    assert settings.root == "/results"
    assert settings.name


def token_mode_is_on_and_no_secret_is_inline(config: Config) -> None:
    assert cluster(config)["authOptions"] == {"mode": "token"}
    assert not re.search(r"token: |password|secret|access_key|AUTH_TOKEN", json.dumps(config), re.IGNORECASE)


def nothing_is_exposed(config: Config) -> None:
    head = cluster(config)["headGroupSpec"]
    assert head["serviceType"] == "ClusterIP"
    assert not head.get("enableIngress")
    assert "0.0.0.0" not in json.dumps(config)


def nobody_is_root(config: Config) -> None:
    for name, pod in pods(config).items():
        assert NOBODY.items() <= pod["securityContext"].items(), name
        assert pod["securityContext"]["runAsUser"] == user() != 0
        assert all(container["securityContext"] == UNPRIVILEGED for container in pod["containers"]), name


def pods_ask_for_what_they_need_and_get_no_more(config: Config) -> None:
    for name, pod in pods(config).items():
        for container in pod["containers"]:
            requests, limits = container["resources"]["requests"], container["resources"]["limits"]
            assert set(requests) == set(limits) >= {"cpu", "memory"}, name
            assert ("nvidia.com/gpu" in limits) is (name == "gpu")


def the_head_runs_no_trials(config: Config) -> None:
    assert cluster(config)["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def results_and_checkpoints_outlive_the_pods(config: Config) -> None:
    claim = config["PersistentVolumeClaim"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for name in ("head", "gpu"):
        pod = pods(config)[name]
        (volume,) = pod["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert pod["containers"][0]["volumeMounts"] == [{"name": volume["name"], "mountPath": "/results"}]


def all_pods_run_the_same_pinned_ray(config: Config) -> None:
    images = {container["image"] for pod in pods(config).values() for container in pod["containers"]}
    (image,) = images
    assert re.fullmatch(r"[^:]+:(?!latest)[^:]+", image)
    assert f"ray=={cluster(config)['rayVersion']}\n" in (ROOT / "constraints.txt").read_text()


def dockerfile() -> str:
    return (ROOT / "clusters" / "Dockerfile").read_text()


def workdir() -> str:
    return re.findall(r"^WORKDIR (.+)$", dockerfile(), re.MULTILINE)[-1]


def user() -> int:
    return int(re.findall(r"^USER (\d+)$", dockerfile(), re.MULTILINE)[-1])


JOB = ("RayJob", "spec")
CLUSTER = (*JOB, "rayClusterSpec")
HEAD = (*CLUSTER, "headGroupSpec")
WORKERS = (*CLUSTER, "workerGroupSpecs", 0)
TRAINER = (*WORKERS, "template", "spec", "containers", 0)

BREAKAGES: dict[Rule, dict[str, Breakage]] = {
    only_known_fields: {
        "a job's": put(*JOB, "ttlSecondsAfterFinish", 1),
        "a cluster's": put(*CLUSTER, "auth", {}),
        "a container's": put(*TRAINER, "volumes", []),
        "a number": put(*HEAD, "rayStartParams", "num-cpus", 0),
        "an old version": put("RayJob", "apiVersion", "ray.io/v1alpha1"),
    },
    the_job_ends_and_gives_everything_back: {
        "the cluster stays": put(*JOB, "shutdownAfterJobFinishes", False),
        "the cluster stays long": put(*JOB, "ttlSecondsAfterFinished", 86400),
        "no deadline": drop(*JOB, "activeDeadlineSeconds"),
        "again": put(*JOB, "backoffLimit", 3),
        "nobody submits": put(*JOB, "submissionMode", "InteractiveMode"),
    },
    the_search_is_one_that_the_script_takes: {
        "no such study": put(*JOB, "entrypoint", "cd /ladder-search && python search.py mnist"),
        "another folder": put(*JOB, "entrypoint", "cd /srv && python search.py digits-100"),
        "results in the pod": put(
            *JOB, "entrypoint", "cd /ladder-search && python search.py digits-100 --address auto"
        ),
    },
    token_mode_is_on_and_no_secret_is_inline: {
        "no token": drop(*CLUSTER, "authOptions"),
        "disabled": put(*CLUSTER, "authOptions", "mode", "disabled"),
        "a token for all to read": put(*TRAINER, "env", [{"name": "RAY_AUTH_TOKEN", "value": "0123"}]),
    },
    nothing_is_exposed: {
        "a load balancer": put(*HEAD, "serviceType", "LoadBalancer"),
        "an ingress": put(*HEAD, "enableIngress", True),
        "all addresses": put(*HEAD, "rayStartParams", "dashboard-host", "0.0.0.0"),
    },
    nobody_is_root: {
        "root": put(*WORKERS, "template", "spec", "securityContext", "runAsUser", 0),
        "perhaps root": put(*WORKERS, "template", "spec", "securityContext", "runAsNonRoot", False),
        "privileged": put(*TRAINER, "securityContext", {"privileged": True}),
    },
    pods_ask_for_what_they_need_and_get_no_more: {
        "no limits": drop(*TRAINER, "resources", "limits"),
        "no GPU": drop(*TRAINER, "resources", "limits", "nvidia.com/gpu"),
        "a GPU for the head": put(
            *(*HEAD, "template", "spec", "containers", 0, "resources", "limits"), "nvidia.com/gpu", "1"
        ),
    },
    the_head_runs_no_trials: {
        "it does": drop(*HEAD, "rayStartParams", "num-cpus"),
    },
    results_and_checkpoints_outlive_the_pods: {
        "one node at a time": put("PersistentVolumeClaim", "spec", "accessModes", ["ReadWriteOnce"]),
        "another claim": put("PersistentVolumeClaim", "metadata", "name", "other"),
        "not mounted": put(*TRAINER, "volumeMounts", []),
    },
    all_pods_run_the_same_pinned_ray: {
        "another version": put(*CLUSTER, "rayVersion", "2.9.0"),
        "two images": put(*TRAINER, "image", "my-registry/ladder-search:2"),
    },
}


@pytest.mark.parametrize("rule", BREAKAGES, ids=lambda rule: rule.__name__)
def test_the_manifest_keeps(rule: Rule) -> None:
    rule(load())


@pytest.mark.parametrize(
    ("rule", "breakage"),
    [
        pytest.param(rule, breakage, id=f"{rule.__name__}-{name}")
        for rule, breakages in BREAKAGES.items()
        for name, breakage in breakages.items()
    ],
)
def test_the_rule_notices(rule: Rule, breakage: Breakage) -> None:
    config = load()
    breakage(config)
    with pytest.raises((AssertionError, LookupError, ValueError)):
        rule(config)


def test_the_image_holds_what_the_search_needs_and_nothing_secret() -> None:
    copied = [name for line in re.findall(r"^COPY (.+)$", dockerfile(), re.MULTILINE) for name in line.split()[:-1]]
    assert {"search.py", "ladder_search", "spaces", "trainables", "pyproject.toml", "constraints.txt"} <= set(copied)
    assert all((ROOT / name).exists() and not name.startswith((".", "/", "~")) for name in copied)
    assert "-c constraints.txt" in dockerfile()
