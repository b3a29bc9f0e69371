"""Mutants of what profiles render: devices by claims, elastic jobs under Kueue, a team's sweep in an object store."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import yaml

from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.profiles import load
from orchestrator.kubernetes.render import render
from tests.kubernetes.test_mutants import HEAD, HEAD_BOX, HEAD_POD, LIMITS, Change, both, drop, variable
from tests.kubernetes.test_mutants_of_pods import SUB
from tests.kubernetes.test_render import EXAMPLES
from tests.kubernetes.test_rules import BOX, CLUSTER, GROUP, POD, SPEC, edit

TEAM = str(EXAMPLES / "team-a.profile.yaml")
QUEUE = "kueue.x-k8s.io/"
LABELS, CLAIM = ("metadata", "labels"), (*POD, "resourceClaims", 0)


def more(*path: Any, value: Any) -> Change:
    def change(job: dict[str, Any]) -> None:
        place: Any = job
        for key in path[:-1]:
            place = place[key]
        place.setdefault(path[-1], []).append(value)

    return change


@cache
def rendered(profile: str) -> str:
    sweep = (EXAMPLES / "gpu.sweep.yaml").read_text()
    root = "s3://bucket/sweeps" if profile == TEAM else "/runs"
    return render(sweep, "gpu.sweep.yaml", profile=profile, root=root, registry="registry.example.com/team")


def documents(profile: str) -> tuple[dict[str, Any], dict[str, Any]]:
    config, job = yaml.load_all(rendered(profile), yaml.CSafeLoader)
    return config, job


REFUSED: dict[str, tuple[str, str, Change]] = {
    "a claim that no container takes": ("dra", "KO127", drop(*BOX, "resources", "claims")),
    "one device for all workers": ("dra", "KO127", edit(*CLAIM, value={"name": "gpu", "resourceClaimName": "gpu"})),
    "a claim and a device": ("dra", "KO127",
        both(edit(*LIMITS, "nvidia.com/gpu", value="1"), edit(*BOX, "resources", "requests", "nvidia.com/gpu",
            value="1"))),
    "a claim of which Ray knows nothing": ("dra", "KO127", edit(*GROUP, "rayStartParams", value={})),
    "a claim twice": ("dra", "KO127", more(*POD, "resourceClaims",
        value={"name": "gpu", "resourceClaimTemplateName": "one-gpu"})),
    "a claim of the head": ("dra", "KO127", edit(*HEAD_POD, "resourceClaims",
        value=[{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}])),
    "misspelt label of Kueue": ("queue-elastic", "KO104",
        both(edit(*LABELS, f"{QUEUE}priority-class-name", value="sweeps-high"))),
    "label of Kueue as annotation": ("queue-elastic", "KO104",
        edit("metadata", "annotations", f"{QUEUE}queue-name", value="sweeps")),
    "queue of Pods": ("queue-elastic", "KO104",
        edit(*GROUP, "template", "metadata", "labels", f"{QUEUE}queue-name", value="sweeps")),
    "group by a name of Kueue's": ("queue-elastic", "KO104", edit(*GROUP, "groupName", value="head")),
    "the autoscaler's start by hand": ("queue-elastic", "KO125", edit(*CLUSTER, "autoscalerOptions", "env",
        value=[{"name": "KUBERAY_GEN_AUTOSCALER_START_CMD", "value": "true"}])),
    "a variable of the operator's": (TEAM, "KO124", variable(BOX, "RAY_NODE_TYPE_NAME", "gpu")),
    "autoscaler without a token": ("queue-elastic", "KO125",
        edit(*HEAD_POD, "automountServiceAccountToken", value=False)),
    "Ray at another port than the head's": (TEAM, "KO119", edit(*HEAD, "rayStartParams", "port", value="6380")),
    "trials under the head's account": (TEAM, "KO212", edit(*POD, "serviceAccountName", value="sweep-head")),
    "key out of a ConfigMap": (TEAM, "KO207", more(*BOX, "env", value={"name": "AWS_SECRET_ACCESS_KEY",
        "valueFrom": {"configMapKeyRef": {"name": "a", "key": "b"}}})),
    "password of PostgreSQL": (TEAM, "KO207", variable(HEAD_BOX, "PGPASSWORD", "hunter2")),
    "key for Ray's workers": (TEAM, "KO207",
        edit(*SPEC, "runtimeEnvYAML", value="env_vars: {WANDB_API_KEY: abc}")),
    "key by its name in an annotation": (TEAM, "KO207",
        edit("metadata", "annotations", "db-password", value="hunter2")),
}  # fmt: skip
OF_MAPS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "apiVersion is core/v1": lambda config: config.update(apiVersion="core/v1"),
    "no field imutable": lambda config: config.update(imutable=True),
    "data.n: 3 is not text": lambda config: config["data"].update(n=3),
    "sweep.yaml:": lambda config: config["data"].update({"sweep.yaml": "a: [1"}),
    "did you mean task": lambda config: config["data"].update(
        {"sweep.yaml": config["data"]["sweep.yaml"].replace("task:", "tsk:")}
    ),
}
"""What is said -> what was done to the sweep's ConfigMap."""
ACCEPTED: dict[str, tuple[str, Change]] = {
    "more devices than one claim": ("a template may ask for several", edit(*GROUP, "rayStartParams", "num-gpus",
        value="4")),
    "a secret by no name": ("forty letters may be anything", edit(*SPEC, "metadata", "note", value="aB3/" * 10)),
    "a database without a password": ("it may know the account", edit(*HEAD_BOX, "env",
        value=[{"name": "GEOSWEEP_STORAGE", "value": "postgresql+psycopg://geosweep@db/geosweep"}])),
    "no word on the submitter's token": ("the account says it", drop(*SUB, "automountServiceAccountToken")),
    "no pull secret": ("the account may have it", drop(*POD, "imagePullSecrets")),
    "hosts by hand": ("a choice", edit(*POD, "hostAliases", value=[{"ip": "192.0.2.4", "hostnames": ["a"]}])),
    "a volume of the Pod's own": ("goes with its Pod", more(*POD, "volumes", value={"name": "t", "ephemeral": {
        "volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}}})),
    "a command after the start": ("an image's own business", edit(*BOX, "lifecycle",
        value={"postStart": {"exec": {"command": ["true"]}}})),
    "workers started again in place": ("they join again", edit(*POD, "restartPolicy", value="OnFailure")),
    "no group of files": ("an object store needs none", drop(*POD, "securityContext", "fsGroup")),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    profile, code, change = REFUSED[name]
    config, job = documents(profile)
    assert lint([config, job], load(profile)) == []
    change(job)
    found = lint([config, job], load(profile))
    assert code in {f.code for f in found}, found
    assert "hunter2" not in str(found)


@pytest.mark.parametrize("said", OF_MAPS)
def test_what_is_no_map_of_a_sweep_is_refused(said: str) -> None:
    config, job = copy.deepcopy(documents(TEAM))
    OF_MAPS[said](config)
    found = [f for f in lint([config, job], load(TEAM)) if f.code == "KO210"]
    assert any(said in f.message for f in found), found


@pytest.mark.parametrize("name", ACCEPTED)
def test_accepted(name: str) -> None:
    why, change = ACCEPTED[name]
    profile = "dra" if "claim" in name else TEAM
    config, job = documents(profile)
    change(job)
    assert why
    assert lint([config, job], load(profile)) == []
