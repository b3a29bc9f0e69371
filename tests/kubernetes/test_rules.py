"""The rules of `k8s render --check`: each refuses what it is for, and what they leave to the API server is known."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import yaml
from kubernetes.utils.quantity import parse_quantity

from orchestrator.kubernetes.fit import RenderError
from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.quantities import quantity
from orchestrator.kubernetes.render import render
from orchestrator.kubernetes.rules import RULES
from orchestrator.kubernetes.schema_rules import SCHEMA
from tests.kubernetes.manifests import schema_errors, vendored
from tests.kubernetes.test_render import EXAMPLES, job_of, sweep, with_crds


def edit(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(job: dict[str, Any]) -> None:
        place: Any = job
        for key in path[:-1]:
            place = place.setdefault(key, {}) if isinstance(place, dict) else place[key]
        place[path[-1]] = value

    return change


def both(*changes: Callable[[dict[str, Any]], None]) -> Callable[[dict[str, Any]], None]:
    return lambda job: [change(job) for change in changes][-1]


SPEC, CLUSTER = ("spec",), ("spec", "rayClusterSpec")
GROUP = (*CLUSTER, "workerGroupSpecs", 0)
POD = (*GROUP, "template", "spec")
BOX = (*POD, "containers", 0)
WORKERS_RULE = {"policy": "DeleteWorkers", "condition": {"jobStatus": "FAILED", "ttlSeconds": 9}}
CLUSTER_RULE = {"policy": "DeleteCluster", "condition": {"jobStatus": "FAILED", "ttlSeconds": 5}}
BREAKS = [
    ("KO100", edit("apiVersion", value="ray.io/v1alpha1")),
    ("KO101", edit("metadata", "name", value="a" * 60)),
    ("KO101", edit("metadata", "name", value="1-sweep")),
    ("KO102", edit(*SPEC, "submissionMode", value="Bogus")),
    ("KO102", edit(*SPEC, "submissionMode", value="HTTPMode")),
    ("KO103", edit(*SPEC, "shutdownAfterJobFinishes", value=False)),
    ("KO103", edit(*SPEC, "ttlSecondsAfterFinished", value=-1)),
    (
        "KO104",
        lambda j: (edit(*SPEC, "suspend", value=True)(j), edit(*SPEC, "shutdownAfterJobFinishes", value=False)(j)),
    ),
    ("KO104", edit("metadata", "labels", "kueue.x-k8s.io/queue-name", value="sweeps")),
    ("KO105", edit(*SPEC, "deletionStrategy", value={"deletionRules": [CLUSTER_RULE]})),
    ("KO105", edit(*SPEC, "deletionStrategy", value={"deletionRules": [WORKERS_RULE, CLUSTER_RULE]})),
    (
        "KO106",
        both(edit(*SPEC, "backoffLimit", value=3), edit(*SPEC, "clusterSelector", value={"ray.io/cluster": "x"})),
    ),
    ("KO122", edit(*SPEC, "clusterSelector", value={"ray.io/cluster": "x"})),
    ("KO106", edit(*SPEC, "backoffLimit", value=-1)),
    ("KO107", edit(*SPEC, "submissionMode", value="SidecarMode")),
    ("KO107", edit(*SPEC, "submitterPodTemplate", "spec", "restartPolicy", value="Always")),
    ("KO108", edit(*GROUP, "minReplicas", value=99)),
    ("KO108", edit(*GROUP, "replicas", value=99)),
    ("KO109", edit(*POD, "restartPolicy", value="Always")),
    (
        "KO109",
        lambda j: (edit(*CLUSTER, "autoscalerOptions", "version", value="v1")(j), edit(*GROUP, "priority", value=1)(j)),
    ),
    ("KO110", edit(*CLUSTER, "authOptions", "mode", value="disabled")),
    ("KO110", edit(*CLUSTER, "rayVersion", value="2.51.1")),
    ("KO110", edit(*CLUSTER, "authOptions", "enableK8sTokenAuth", value=True)),
    (
        "KO111",
        lambda j: (
            edit(*GROUP, "resources", value={"CPU": "1"})(j),
            edit(*GROUP, "rayStartParams", value={"num-cpus": "1"})(j),
        ),
    ),
    ("KO112", edit(*CLUSTER, "networkPolicy", value={"mode": "DenyAll"})),
    ("KO113", edit(*SPEC, "activeDeadlineSeconds", value=0)),
    ("KO113", lambda j: j["spec"].pop("activeDeadlineSeconds")),
    ("KO114", edit(*SPEC, "entrypoint", value="geosweep run x.yaml --root /runs; rm -r /runs")),
    ("KO114", edit(*SPEC, "entrypointNumCpus", value=1)),
    ("KO115", edit(*SPEC, "backofLimit", value=1)),
    ("KO115", edit(*GROUP, "maxReplica", value=1)),
    ("KO116", edit(*CLUSTER, "headGroupSpec", "rayStartParams", "num-cpus", value=0)),
    ("KO201", edit(*BOX, "securityContext", value={})),
    ("KO201", edit(*BOX, "securityContext", "capabilities", "add", value=["NET_ADMIN"])),
    ("KO201", edit(*CLUSTER, "autoscalerOptions", "securityContext", value={})),
    ("KO202", edit(*POD, "securityContext", "runAsUser", value=0)),
    ("KO203", edit(*POD, "securityContext", "seccompProfile", value={"type": "Unconfined"})),
    ("KO204", edit(*POD, "hostNetwork", value=True)),
    ("KO204", edit(*POD, "hostIPC", value=True)),
    ("KO204", edit(*BOX, "ports", value=[{"containerPort": 1, "hostPort": 1}])),
    ("KO204", edit(*POD, "volumes", 0, value={"name": "runs", "nfs": {"server": "s", "path": "/"}})),
    ("KO205", edit(*BOX, "resources", value={})),
    ("KO205", edit(*BOX, "resources", "limits", "memory", value="8 GiB")),
    ("KO205", edit(*BOX, "resources", "requests", "memory", value="5000Mi")),
    ("KO206", edit(*BOX, "image", value="geosweep-worker:latest")),
    ("KO206", edit(*BOX, "image", value="https://registry.example.com/worker:1")),
    ("KO207", edit(*BOX, "env", value=[{"name": "AWS_SECRET_ACCESS_KEY", "value": "x"}])),
    ("KO207", edit(*BOX, "env", value=[{"name": "STUDIES", "value": "postgresql://a:b@c/d"}])),
    ("KO207", edit(*SPEC, "runtimeEnvYAML", value="env_vars: {STUDIES: 'postgresql://a:b@c/d'}")),
    ("KO208", edit(*BOX, "ports", value=[{"containerPort": 1}, {"containerPort": 1}])),
    ("KO209", edit(*BOX, "volumeMounts", value=[])),
    ("KO209", edit(*SPEC, "entrypoint", value="geosweep run /etc/sweep/sweep.yaml")),
]


@pytest.mark.slow
@pytest.mark.parametrize(("code", "change"), BREAKS, ids=[f"{c}-{i}" for i, (c, _) in enumerate(BREAKS)])
def test_rule_refuses(code: str, change: Callable[[dict[str, Any]], None]) -> None:
    job = job_of((EXAMPLES / "quickstart.rayjob.yaml").read_text())
    assert not lint([job])
    change(job)
    assert code in {finding.code for finding in lint([job])}


def test_quantities_are_read_as_the_client_does_and_nothing_else_is() -> None:
    for valid in ("0", "+2", "1.5", ".5", "3.", "100n", "250u", "500m", "3M", "1E", "1e3", "2E-3", "8Gi", "1.5Ti"):
        assert quantity(valid) == pytest.approx(float(parse_quantity(valid.lstrip("+")))), valid
    assert quantity(2) == 2
    for wrong in ("", "8 Gi", "8GB", "1K", "1ki", "-1", "NaN", "Infinity", "1e3Mi", "1e", "."):
        assert math.isnan(quantity(wrong)), wrong


def test_every_operator_rule_has_a_failing_manifest() -> None:
    from tests.kubernetes.test_mutants import NAMED  # which takes its paths from here
    from tests.kubernetes.test_mutants_of_jobs import JOBS
    from tests.kubernetes.test_mutants_of_profiles import REFUSED

    broken = {code for code, _ in (*BREAKS, *NAMED.values(), *JOBS.values())}
    assert set(RULES) <= broken | {code for _, code, _ in REFUSED.values()}


@with_crds
def test_the_schema_that_is_shipped_is_that_of_the_crd() -> None:
    assert json.loads(SCHEMA.read_text()) == vendored(), "python -m tests.kubernetes.manifests"


@pytest.mark.parametrize(
    "more", ["# \u00fc \u2192 \u65e5\u672c \U0001f600\n", "#  x   \n\n\n", "# a\tb\r\n", "# $(id) {{ x }}"]
)
def test_the_file_arrives_as_it_is(more: str) -> None:
    config, _ = yaml.safe_load_all(render(sweep() + more, "x"))
    assert config["data"]["sweep.yaml"] == sweep() + more


def test_the_sweep_file_is_beside_the_job() -> None:
    config, job = yaml.safe_load_all(render(sweep(), "x"))
    config["metadata"]["name"] += "-edited"
    assert [f.code for f in lint([config, job])] == ["KO210"]
    assert not lint([job]), "it may be there already"


def test_a_secret_beside_the_job_is_found() -> None:
    config, job = yaml.safe_load_all(render(sweep(), "x"))
    secret = {"kind": "Secret", "metadata": {"name": "s"}, "stringData": {"url": "x"}}
    config["data"]["sweep.yaml"] += "# s3://me:word@elsewhere\n"
    assert [f.code for f in lint([config, job])] == ["KO207"]
    assert [f.code for f in lint([secret, job])] == ["KO207"]
    assert "me:word" not in render(sweep() + "# http://me:word@elsewhere\n", "x")
    with pytest.raises(RenderError, match=r"tracking\.mlflow"):
        render(sweep(tracking="http://me:word@elsewhere"), "x")


def test_lint_survives_any_shape() -> None:
    for wrong in (
        None,
        [],
        {"kind": "RayJob"},
        {"kind": "RayJob", "spec": {"rayClusterSpec": {"workerGroupSpecs": 3}}},
    ):
        assert lint([wrong])


MUTATIONS = {
    "misspelt spec field": edit(*SPEC, "backofLimit", value=1),
    "misspelt toleration": edit(*POD, "tolerations", 0, "effects", value="NoSchedule"),
    "text for a number": edit(*SPEC, "backoffLimit", value="3"),
    "autoscaler v3": edit(*CLUSTER, "autoscalerOptions", "version", value="v3"),
    "number for a start parameter": edit(*CLUSTER, "headGroupSpec", "rayStartParams", "num-cpus", value=0),
    "memory with a space": edit(*BOX, "resources", "limits", "memory", value="8 GiB"),
    "empty deletion condition": edit(
        *SPEC, "deletionStrategy", value={"deletionRules": [{"policy": "DeleteCluster", "condition": {}}]}
    ),
    "bad managedBy": edit(*SPEC, "managedBy", value="me"),
}
OPERATOR_ONLY = {
    "unknown submission mode": edit(*SPEC, "submissionMode", value="Bogus"),
    "name of 60 characters": edit("metadata", "name", value="a" * 60),
    "time to live without shutdown": edit(*SPEC, "shutdownAfterJobFinishes", value=False),
    "port twice": edit(*BOX, "ports", value=[{"containerPort": 1}, {"containerPort": 1}]),
}


@pytest.mark.parametrize("name", [*MUTATIONS, *OPERATOR_ONLY])
@with_crds
def test_mutation_is_refused(name: str) -> None:
    job = copy.deepcopy(job_of((EXAMPLES / "quickstart.rayjob.yaml").read_text()))
    {**MUTATIONS, **OPERATOR_ONLY}[name](job)
    assert bool(schema_errors(job)) == (name in MUTATIONS)
    assert lint([job])
