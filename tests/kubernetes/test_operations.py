"""What stands around sweeps: roles, teams, dashboards and alerts, the admission policy, locks of the images."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import celpy
import pytest
import ray.dashboard.modules.metrics.dashboards.default_dashboard_panels as panels
import yaml

import orchestrator.executors.ray_metrics as ours
from orchestrator.kubernetes import reader
from tests.kubernetes.manifests import K8S, OVERLAYS, TEAMS, overlay
from tests.kubernetes.test_mutants import HEAD, HEAD_POD
from tests.kubernetes.test_render import EXAMPLES, job_of
from tests.kubernetes.test_rules import BOX, CLUSTER, POD, SPEC, edit

DOCKER = K8S / "docker"


def of_kind(name: str, kind: str) -> list[dict[str, Any]]:
    return [d for d in overlay(name) if d["kind"] == kind]


COMMANDS = {
    "geosweep submit": {("rayjobs", "create"), ("rayjobs", "list"), ("rayjobs", "delete"), ("configmaps", "create"),
                        ("configmaps", "patch")},
    "geosweep status": {("rayjobs", "list"), ("events", "list"), ("rayclusters", "list"), ("workloads", "list"),
                        ("pods", "list")},
    "geosweep logs": {("rayjobs", "list"), ("pods", "list"), ("pods/log", "get"), ("jobs", "create"),
                      ("jobs", "delete")},
    "geosweep stop": {("rayjobs", "list"), ("rayjobs", "delete")},
    "kubectl apply -f -": {("rayjobs", "get"), ("rayjobs", "create"), ("rayjobs", "patch"), ("configmaps", "get"),
                           ("configmaps", "create"), ("configmaps", "patch")},
    "delete rayjob,configmap -l": {("rayjobs", "list"), ("rayjobs", "delete"), ("configmaps", "list"),
                                   ("configmaps", "delete")},
    "get rayjob -w": {("rayjobs", "list"), ("rayjobs", "watch")},
    "describe pod": {("pods", "get"), ("pods", "list"), ("events", "list")},
    "describe workload": {("workloads", "get"), ("workloads", "list"), ("events", "list")},
    "describe rayjob": {("rayjobs", "get"), ("rayjobs", "list"), ("events", "list")},
    "port-forward service/mlflow": {("services", "get"), ("pods", "list"), ("pods", "get"),
                                    ("pods/portforward", "create")},
}  # fmt: skip
"""A command of README.md -> (resource, verb) that it asks for."""
SPARE = {("rayclusters", "get"), ("events", "get"), ("services", "list")}
"""get beside list: `kubectl get KIND NAME`."""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kind", *TEAMS])
def test_roles_cover_the_commands_of_the_readme_and_nothing_else(name: str) -> None:
    text = (K8S / "README.md").read_text()
    assert [command for command in COMMANDS if command not in text] == []
    granted = {
        (kind, verb)
        for role in of_kind(name, "Role")
        for rule in role["rules"]
        for kind in rule["resources"]
        for verb in rule["verbs"]
    }
    asked = {right for rights in COMMANDS.values() for right in rights}
    assert asked <= granted
    assert granted - asked <= SPARE


def test_every_command_of_the_readme_on_sweeps_is_known() -> None:
    """kubectl in the README: a row of COMMANDS, or one of those that only whoever runs the cluster gives."""
    text = re.sub(r"\s+", " ", (K8S / "README.md").read_text())
    given = re.findall(
        r"kubectl ((?:-n \w+ )?(?:create|apply|get|describe|delete|port-forward|logs|exec|cp|patch)[^`|;]*)", text
    )
    owner = r"apply (-k |--server-side)|(-n sweeps )?create (namespace|secret)|(cp|apply)$|apply --dry-run=server"
    mine = [words for words in given if not re.match(owner, words.strip())]
    assert len(mine) >= 5
    assert [words for words in mine if not any(command in f"kubectl {words}" for command in COMMANDS)] == []


def test_two_teams_stand_beside_each_other() -> None:
    found = {}
    for name in TEAMS:
        documents = overlay(name)
        (namespace,) = (d for d in documents if d["kind"] == "Namespace")
        assert namespace["metadata"]["name"] == name
        assert {d["metadata"].get("namespace") for d in documents if d["kind"] != "Namespace"} == {name}
        for binding in (d for d in documents if d["kind"] == "RoleBinding"):
            assert {s["namespace"] for s in binding["subjects"]} == {name}
        found[name] = {(d["kind"], d["metadata"].get("namespace"), d["metadata"]["name"]) for d in documents}
        job = job_of((EXAMPLES / f"gpu.{name}.rayjob.yaml").read_text())
        assert job["metadata"]["namespace"] == name
        accounts = {d["metadata"]["name"] for d in documents if d["kind"] == "ServiceAccount"}
        assert {job["spec"]["submitterPodTemplate"]["spec"]["serviceAccountName"]} <= accounts
        hard = next(d for d in documents if d["kind"] == "ResourceQuota")["spec"]["hard"]
        (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert {f"requests.{key}" for key in limits if "/" in key} <= set(hard), "its quota counts its devices"
    assert not found["team-a"] & found["team-b"]


def test_a_team_is_one_patch() -> None:
    text = yaml.safe_load((K8S / "overlays" / "team-b" / "kustomization.yaml").read_text())
    assert (len(text["patches"]), text["resources"]) == (1, ["../../base/team"])


@pytest.mark.slow
def test_dashboards_and_alerts_ask_for_metrics_that_there_are() -> None:
    known = set(re.findall(r"ray_\w+", Path(panels.__file__).read_text())) | {"ray_node_mem_used"}
    told = re.findall(r"ray_geosweep_\w+", ours.__doc__ or "")
    known |= {f"{name}_total" if name.endswith("_ended") else name for name in told}  # Prometheus' name of a counter
    board = json.loads((K8S / "components" / "monitoring" / "sweeps.dashboard.json").read_text())
    asked = [t["expr"] for panel in board["panels"] for t in panel["targets"]]
    (rule,) = of_kind("gpu-cluster", "PrometheusRule")
    alerts = [r for group in rule["spec"]["groups"] for r in group["rules"]]
    assert len(alerts) == 2
    asked += [r["expr"] for r in alerts]
    used = {name for text in asked for name in re.findall(r"\bray_(?!io_)\w+", text)}
    assert used >= {"ray_geosweep_trials", "ray_geosweep_trials_ended_total", "ray_geosweep_waiting"}
    assert used <= known
    (held,) = (d for d in of_kind("gpu-cluster", "ConfigMap") if d["metadata"]["name"] == "geosweep-dashboard")
    assert json.loads(held["data"]["sweeps.dashboard.json"]) == board
    (monitor,) = of_kind("gpu-cluster", "PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert {"ray_io_cluster", "ray_io_node_type", "namespace"} == {r["targetLabel"] for r in endpoint["relabelings"]}


OPERATOR = "system:serviceaccount:kuberay-operator:kuberay-operator"


def admitted(job: dict[str, Any], name: str = "geosweep-rayjobs", by: str = "jane", *groups: str) -> list[str]:
    """The messages of the policy's rules that the object breaks, as the API server reads them."""
    (policy,) = (p for p in of_kind("guarded", "ValidatingAdmissionPolicy") if p["metadata"]["name"] == name)
    environment = celpy.Environment()
    variables: dict[str, Any] = {}

    def value(expression: str) -> Any:
        program = environment.program(environment.compile(expression))
        request = {"userInfo": {"username": by, "groups": ["system:authenticated", *groups]}}
        given = {"object": celpy.json_to_cel(job), "request": celpy.json_to_cel(request)}
        return program.evaluate({**given, "variables": celpy.celtypes.MapType(variables)})

    if not all(value(c["expression"]) for c in policy["spec"].get("matchConditions", ())):
        return []
    for variable in policy["spec"]["variables"]:
        variables[celpy.celtypes.StringType(variable["name"])] = value(variable["expression"])
    return [rule["message"] for rule in policy["spec"]["validations"] if not value(rule["expression"])]


def key_of(secret: str) -> dict[str, Any]:
    return {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": secret, "key": "a"}}}


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.rayjob.yaml")), ids=lambda p: p.name)
def test_the_policy_admits_what_is_rendered(path: Path) -> None:
    job = job_of(path.read_text())
    assert admitted(job) == []
    assert admitted(reader.of_job(job, ["sgd-0000-s0"]), "geosweep-jobs") == []


@pytest.mark.parametrize("path, value, word", [
    (("serviceAccountName",), "sweep-head", "sweep-runner"),
    (("automountServiceAccountToken",), True, "token"),
    (("volumes", 0), {"name": "runs", "secret": {"secretName": "geosweep-mlflow"}}, "volumes"),
    (("volumes", 0), {"name": "runs", "persistentVolumeClaim": {"claimName": "of-others"}}, "volumes"),
    (("containers", 0, "volumeMounts", 0, "readOnly"), False, "read alone"),
    (("containers", 0, "envFrom"), [{"secretRef": {"name": "geosweep-mlflow"}}], "whole"),
    (("containers", 0, "env"), [key_of("geosweep-studies")], "keys"),
    (("initContainers",), [{"name": "a"}], "read alone"),
])  # fmt: skip
def test_the_policy_fixes_what_a_job_of_logs_may_be(path: tuple[Any, ...], value: Any, word: str) -> None:
    job = reader.of_job(job_of((EXAMPLES / "gpu.rayjob.yaml").read_text()), ["sgd-0000-s0"])
    edit("spec", "template", "spec", *path, value=value)(job)
    assert any(word in message for message in admitted(job, "geosweep-jobs"))
    for by, group in (
        (OPERATOR, "system:serviceaccounts:kuberay-operator"),
        ("x", "system:serviceaccounts:kube-system"),
    ):
        assert not admitted(job, "geosweep-jobs", by, group), (
            "what controllers make comes of objects that were admitted"
        )


@pytest.mark.parametrize("change, word", [
    (edit(*HEAD_POD, "serviceAccountName", value="sweep-submitter"), "sweep-head"),
    (edit(*POD, "serviceAccountName", value="cluster-admin"), "sweep-runner"),
    (edit(*SPEC, "submitterPodTemplate", "spec", "serviceAccountName", value="default"), "sweep-runner"),
    (edit(*POD, "automountServiceAccountToken", value=True), "token"),
    (edit(*POD, "volumes", 0, value={"name": "runs", "persistentVolumeClaim": {"claimName": "of-others"}}), "volumes"),
    (edit(*POD, "volumes", 0, value={"name": "runs", "secret": {"secretName": "geosweep-mlflow"}}), "volumes"),
    (edit(*POD, "volumes", 0, value={"name": "runs", "hostPath": {"path": "/"}}), "volumes"),
    (edit(*BOX, "envFrom", value=[{"secretRef": {"name": "geosweep-mlflow"}}]), "Secrets"),
    (edit(*BOX, "env", value=[key_of("geosweep-mlflow")]), "keys"),
    (edit(*POD, "initContainers", value=[{"name": "a", "env": [key_of("geosweep-mlflow")]}]), "keys"),
    (edit(*POD, "initContainers", value=[{"name": "a", "envFrom": [{"secretRef": {"name": "b"}}]}]), "whole"),
    (edit(*HEAD, "serviceType", value="LoadBalancer"), "ClusterIP"),
])  # fmt: skip
def test_the_policy_refuses(change: Any, word: str) -> None:
    job = job_of((EXAMPLES / "gpu.rayjob.yaml").read_text())
    change(job)
    assert any(word in message for message in admitted(job)), admitted(job)
    assert CLUSTER


@pytest.mark.slow
def test_the_policy_is_bound_to_the_namespaces_of_teams() -> None:
    bindings = of_kind("guarded", "ValidatingAdmissionPolicyBinding")
    policies = of_kind("guarded", "ValidatingAdmissionPolicy")
    assert {b["spec"]["policyName"] for b in bindings} == {p["metadata"]["name"] for p in policies}
    (wanted,) = {tuple(b["spec"]["matchResources"]["namespaceSelector"]["matchLabels"].items()) for b in bindings}
    for name in (*OVERLAYS, *TEAMS):
        (namespace,) = of_kind(name, "Namespace")
        assert dict(wanted).items() <= namespace["metadata"]["labels"].items()


def test_mlflow_asks_for_a_password() -> None:
    (mlflow,) = (d for d in of_kind("mlflow-auth", "Deployment") if d["metadata"]["name"] == "mlflow")
    (box,) = mlflow["spec"]["template"]["spec"]["containers"]
    assert "--app-name=basic-auth" in box["args"]
    told = {e["name"]: e for e in box["env"]}
    assert told["MLFLOW_AUTH_CONFIG_PATH"]["value"].startswith(box["volumeMounts"][-1]["mountPath"])
    assert "valueFrom" in told["MLFLOW_FLASK_SERVER_SECRET_KEY"]


def locked(name: str) -> dict[str, tuple[str, list[str]]]:
    text = re.sub(r"^#.*\n", "", (DOCKER / f"{name}.lock").read_text(), flags=re.MULTILINE)
    found = {}
    for block in re.split(r"\n(?=\S)", text.strip()):
        package, version = re.match(r"([\w.-]+)(?:\[.*\])?==(\S+)", block).groups()  # type: ignore[union-attr]
        found[package.lower().replace("_", "-")] = (version, re.findall(r"--hash=sha256:([0-9a-f]{64})\b", block))
    assert "://" not in text, "where wheels come from is the builder's to say"
    return found


def test_every_wheel_is_pinned_by_its_hash() -> None:
    pins = dict(line.split("==") for line in (K8S.parent / "constraints.txt").read_text().split() if "==" in line)
    pins = {name.lower().replace("_", "-"): version for name, version in pins.items()}
    for name in ("requirements", "torch-cpu", "torch-cuda", "mlflow"):
        for package, (version, hashes) in locked(name).items():
            assert hashes, package
            assert version == pins.get(package, version), package
    wanted = tomllib.loads((K8S.parent / "pyproject.toml").read_text())["project"]["dependencies"]
    names = {re.match(r"[\w.-]+", w)[0].lower().replace("_", "-") for w in wanted}  # type: ignore[index]
    assert names - {"torch"} <= set(locked("requirements")), "k8s/docker/lock.sh"
    assert "torch" not in locked("requirements")


def test_the_index_of_torch_fails_closed() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    assert "extra-index-url" not in text
    installs = re.findall(r"pip install [^&;\n]*", text)
    assert [i for i in installs if "--require-hashes" not in i and "--no-deps --no-build-isolation" not in i] == []
    assert re.search(r"^ARG BASE$", text, re.MULTILINE), "no default: the digest is pinned by who builds"


@pytest.mark.parametrize("torch", ["cpu", "cuda"])
def test_one_argument_builds_the_image_for_gpus(torch: str, tmp_path: Path) -> None:
    """The Dockerfile's own line in a shell, with a pip that writes down what it was asked for."""
    (line,) = re.findall(r"^RUN (if .*TORCH.*)$", (DOCKER / "Dockerfile").read_text(), re.MULTILINE)
    pip = tmp_path / "pip"
    pip.write_text('#!/bin/sh\necho "$@"\n')
    pip.chmod(0o755)
    shown = {"TORCH": torch, "TORCH_INDEX": "https://index.example.com"}
    asked = ["sh", "-ec", line.replace("/opt/geosweep/bin/pip", str(pip))]
    done = subprocess.run(asked, env=shown, capture_output=True, text=True, check=True).stdout
    assert f"/src/torch-{torch}.lock" in done
    assert "--require-hashes" in done
    assert ("https://index.example.com" in done) == (torch == "cpu"), "CUDA's wheels lie on PyPI"
    packages = locked(f"torch-{torch}")
    assert packages["torch"][0] == locked("torch-cpu")["torch"][0]
    assert any(name.startswith("nvidia-") for name in packages) == (torch == "cuda")


@pytest.mark.parametrize("base, taken", [
    ("docker.io/library/python@sha256:" + "ab" * 32, True),
    ("python:3.11-slim-bookworm@sha256:" + "ab" * 32, True),
    ("python:3.11-slim-bookworm", False),
    ("python@sha256:abcd", False),
    ("", False),
])  # fmt: skip
def test_a_base_without_a_digest_ends_the_build(base: str, taken: bool) -> None:
    text = (DOCKER / "Dockerfile").read_text()
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)[1:]
    of_base = [stage for stage in stages if stage.startswith("${BASE}")]
    checks = [found[1] for stage in of_base if (found := re.search(r"^RUN (case .* esac)$", stage, re.MULTILINE))]
    copied = [stage for stage in of_base if "COPY --from=build" in stage]
    assert len(checks) + len(copied) == len(of_base), "what is copied from a stage is built after it"
    for check in checks:
        done = subprocess.run(["sh", "-c", check], env={"BASE": base}, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == taken
        assert taken or "--build-arg BASE=NAME@sha256:" in done.stderr


def test_images_say_what_they_are_made_of() -> None:
    text = re.sub(r"\\\n\s*", " ", (DOCKER / "Dockerfile").read_text())
    labels = [line for line in text.splitlines() if line.startswith("LABEL")]
    assert len(labels) == 2, "the workers' image is made of the head's"
    for name in ("title", "version", "licenses", "source", "revision", "base.name"):
        assert all(f"org.opencontainers.image.{name}=" in line for line in labels), name
    assert "pip inspect --local >/opt/geosweep/packages.json" in text
