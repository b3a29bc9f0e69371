"""k8s/: overlays build, every kind is valid, every Pod is restricted, every reference and selector finds its target."""

from __future__ import annotations

import re
import shutil
from typing import Any

import pytest
import yaml

from orchestrator.kubernetes.pod_rules import pod_findings, templates
from orchestrator.kubernetes.secret_shapes import shape_of
from tests.kubernetes.manifests import CRDS, K8S, OVERLAYS, PLACES, TEAMS, overlay, schema_errors

pytestmark = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl builds the overlays; it is missing")
EXAMPLES = sorted(p for p in (K8S / "examples").glob("*.rayjob.yaml") if ".team-" not in p.name)
SECRETS = {
    "geosweep-postgres": {"password"},
    "geosweep-studies": {"url"},
    "geosweep-mlflow": {"backend-store-uri"},
    "geosweep-s3": {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"},
    "geosweep-tracking": set(),
    "geosweep-mlflow-auth": {"flask-secret-key", "basic_auth.ini"},
}
UNKNOWN = ("PodMonitor", "PrometheusRule", "WorkloadPriorityClass", "ValidatingAdmissionPolicyBinding")
"""Kinds whose schemas are not at hand here."""
FOREIGN = ("kuberay-operator", "prometheus")
"""Pods of other namespaces, named by policies."""


def example(path: Any) -> list[dict[str, Any]]:
    return list(yaml.load_all(path.read_text(), yaml.CSafeLoader))


@pytest.mark.slow
@pytest.mark.parametrize("version", ["1.30.0", "1.34.0", "1.37.0"])
def test_core_kinds_are_valid(version: str) -> None:
    """What several overlays hold is looked at once."""
    import kubernetes_validate

    valid: list[dict[str, Any]] = []
    for name in (*OVERLAYS, *TEAMS):
        count = 0
        for document in (*overlay(name), *(d for p in EXAMPLES for d in example(p))):
            if document["kind"] not in (*PLACES, *UNKNOWN):
                if document not in valid:
                    kubernetes_validate.validate(document, version, strict=True)
                    valid.append(document)
                count += 1
        assert count > 10, name


@pytest.mark.slow
def test_core_validator_refuses_a_typo() -> None:
    import kubernetes_validate

    (mlflow,) = (d for d in overlay("kind") if d["kind"] == "Deployment" and d["metadata"]["name"] == "mlflow")
    wrong = {**mlflow, "spec": {**mlflow["spec"], "replica": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.34.0", strict=True)


@pytest.mark.slow
@pytest.mark.skipif(not CRDS.exists(), reason="the CRDs of KubeRay and Kueue are not beside this checkout")
def test_kueue_kinds_obey_their_crds() -> None:
    found = [d for d in overlay("with-kueue") if d["kind"] in PLACES]
    assert {d["kind"] for d in found} == {"ClusterQueue", "LocalQueue", "ResourceFlavor"}
    assert not [error for d in found for error in schema_errors(d)]
    queue = next(d for d in found if d["kind"] == "ClusterQueue")
    for wrong in ({"queueingStrategy": "Sometimes"}, {"resourceGroup": []}, {"cohort": "x"}):
        assert schema_errors({**queue, "spec": {**queue["spec"], **wrong}}), wrong


@pytest.mark.slow
@pytest.mark.parametrize("name", OVERLAYS)
def test_every_pod_is_restricted(name: str) -> None:
    pods = [d for d in overlay(name) if list(templates(d))]
    assert pods
    for document in pods:
        assert not list(pod_findings(document))
        for _, template in templates(document):
            assert template["spec"]["automountServiceAccountToken"] is False
    (namespace,) = (d for d in overlay(name) if d["kind"] == "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


@pytest.mark.parametrize("name", OVERLAYS)
def test_references_resolve(name: str) -> None:
    documents = [*overlay(name), *(d for p in EXAMPLES for d in example(p))]
    there = {(d["kind"], d["metadata"]["name"]) for d in documents}
    for document in documents:
        for key, value in walk(document):
            if key in ("secretKeyRef", "secretRef"):
                assert value["name"] in SECRETS, value
                assert value.get("key") in (SECRETS[value["name"]] | {None}), value
            elif key in ("configMapRef", "configMap"):
                assert ("ConfigMap", value["name"]) in there, value
            elif key == "persistentVolumeClaim":
                assert ("PersistentVolumeClaim", value["claimName"]) in there
            elif key == "serviceAccountName":
                assert ("ServiceAccount", value) in there
            elif key == "roleRef":
                assert (value["kind"], value["name"]) in there
            elif key == "clusterQueue":
                assert ("ClusterQueue", value) in there
    development = [d for d in documents if d["metadata"].get("labels", {}).get("geosweep.io/grade") == "dev"]
    assert bool(development) == (name == "kind")


@pytest.mark.parametrize("name", OVERLAYS)
def test_selectors_match_pods(name: str) -> None:
    documents = [*overlay(name), *(d for p in EXAMPLES for d in example(p))]
    pods = [t["metadata"]["labels"] for d in documents if d["kind"] != "RayJob" for _, t in templates(d)]
    for path, template in (x for d in documents if d["kind"] == "RayJob" for x in templates(d)):
        labels = dict(template["metadata"]["labels"])
        if "Group" in path:  # what the operator adds to the Pods of a cluster
            labels |= {"ray.io/is-ray-node": "yes", "ray.io/node-type": "head" if "head" in path else "worker"}
        pods.append(labels)
    for document in documents:
        selectors = [v for k, v in walk(document) if k == "podSelector" and v]
        if document["kind"] == "Service":
            selectors.append({"matchLabels": document["spec"]["selector"]})
        if document["kind"] in ("Deployment", "StatefulSet", "PodMonitor"):
            selectors.append(document["spec"]["selector"])
        for selector in selectors:
            wanted = selector["matchLabels"]
            if wanted.get("app.kubernetes.io/name") in FOREIGN:
                continue
            assert any(wanted.items() <= labels.items() for labels in pods), (document["metadata"]["name"], wanted)


def test_service_ports_are_ports_of_their_pods() -> None:
    documents = overlay("kind")
    ports = {p["name"] for d in documents for _, t in templates(d) for c in t["spec"]["containers"] for p in c["ports"]}
    for service in (d for d in documents if d["kind"] == "Service"):
        assert {p["targetPort"] for p in service["spec"]["ports"]} <= ports


def test_mlflow_answers_to_its_service_names() -> None:
    from orchestrator.kubernetes.profiles import tracking

    (mlflow,) = (d for d in overlay("kind") if d["kind"] == "Deployment" and d["metadata"]["name"] == "mlflow")
    arguments = mlflow["spec"]["template"]["spec"]["containers"][0]["args"]
    allowed = next(a for a in arguments if a.startswith("--allowed-hosts=")).split("=")[1].split(",")
    host = tracking("sweeps").removeprefix("http://")
    assert any(re.fullmatch(re.escape(a).replace(r"\*", ".*"), host) for a in allowed)
    assert not any("disable-security" in a for a in arguments)


def test_the_image_has_what_the_operator_calls() -> None:
    """Its commands run in bash, in a login shell where the operator is set to it, and may ask for health by wget."""
    text = (K8S / "docker" / "Dockerfile").read_text()
    head = text.partition(" AS head\n")[2].partition("\nFROM ")[0]
    assert re.search(r"apt-get install .*\bwget\b", head)
    (path,) = re.findall(r"export PATH=(\S+):\$PATH' >/etc/profile\.d/\S+\.sh", head)
    assert f"ENV PATH={path}:" in head
    context = (K8S / "docker" / "Dockerfile.dockerignore").read_text().split()
    copied = [word for line in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.MULTILINE) for word in line.split()]
    assert {f"!{name}" for name in copied} == {word for word in context if word.startswith("!")}


def test_no_secret_in_the_tree() -> None:
    for path in (p for p in K8S.rglob("*") if p.is_file()):
        text = path.read_text()
        assert "kind: Secret\n" not in text, path
        assert not shape_of(text.replace("USER:PASSWORD@", "").replace("geosweep:$word@", "")), path


def walk(value: Any) -> Any:
    if isinstance(value, dict):
        for key, part in value.items():
            yield key, part
            yield from walk(part)
    elif isinstance(value, list):
        for part in value:
            yield from walk(part)
