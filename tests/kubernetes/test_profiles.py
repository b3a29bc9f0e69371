"""Profiles are data, bundled or a team's own: errors know their place, and all that is said is rendered."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.definition.errors import SpecError
from orchestrator.kubernetes import profiles
from orchestrator.kubernetes.code import ANNOTATIONS, LAST_APPLIED
from orchestrator.kubernetes.fit import RenderError
from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.pod_rules import templates
from orchestrator.kubernetes.quantities import quantity
from orchestrator.kubernetes.render import render
from tests.kubernetes.manifests import CRDS, K8S, schema_errors
from tests.kubernetes.test_render import job_of, sweep
from tests.verbs import called

BAD = sorted((Path(__file__).parent / "bad_profiles").glob("*.yaml"))


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
def test_a_bad_profile_is_refused_with_its_place(path: Path) -> None:
    expected = path.read_text().splitlines()[0].removeprefix("# expect: ")
    with pytest.raises(SpecError) as caught:
        profiles.load(str(path))
    assert str(caught.value).startswith(f"{path}:")
    assert expected in str(caught.value)


def test_an_unknown_name_and_a_missing_file() -> None:
    with pytest.raises(SpecError, match="did you mean gpu-cluster"):
        profiles.load("gpu-clusters")
    with pytest.raises(SpecError, match="no such file"):
        profiles.load("./nothing.yaml")


@pytest.mark.slow
@pytest.mark.parametrize("name", profiles.names())
def test_every_bundled_profile_renders(name: str) -> None:
    gpu = max(group.gpu for group in profiles.load(name).groups.values())
    for text in (sweep(), sweep(gpu=min(gpu, 1))):
        documents = list(yaml.safe_load_all(render(text, "x", profile=name)))
        assert not lint(documents, profiles.load(name))
        if CRDS.exists():
            assert not schema_errors(documents[-1])
    assert (K8S / "profiles" / f"{name}.yaml").read_text() == (profiles.FOLDER / f"{name}.yaml").read_text()


def rendered(tmp_path: Path, profile: str, **options: Any) -> list[dict[str, Any]]:
    file = tmp_path / "own.yaml"
    file.write_text(profile)
    return list(yaml.safe_load_all(render(sweep(gpu=1), "x", profile=str(file), **options)))


WHOLE = """extends: gpu-cluster
namespace: team-x
registry: registry.example.com/x
images: {pull_secrets: [pull], pull_policy: Always}
accounts: {head: a-head, worker: a-worker, submitter: a-submitter}
node_selector: {zone: a}
tolerations: [shared]
affinity: {podAntiAffinity: {preferredDuringSchedulingIgnoredDuringExecution: []}}
priority_class: batch
runtime_class: nvidia
labels: {cost: x}
annotations: {example.com/owner: me}
env: {PROXY: "http://proxy.example.com", KEY_OF: {secret: s, key: k}}
env_from: [more]
volumes: [{name: data, mount: /data, source: {persistentVolumeClaim: {claimName: data}}}]
claim: other-runs
head: {node_selector: {zone: b}}
groups: {gpu: {labels: {kind: gpu}, env: {NCCL_DEBUG: INFO}}}
"""


def test_all_that_a_profile_says_is_in_the_objects(tmp_path: Path) -> None:
    config, job = rendered(tmp_path, WHOLE)
    for document in (config, job):
        assert document["metadata"]["namespace"] == "team-x"
        assert document["metadata"]["labels"]["cost"] == "x"
        assert document["metadata"]["annotations"]["example.com/owner"] == "me"
    found = {path.split(".")[-2].split("[")[0] if "Group" in path else "submitter": t for path, t in templates(job)}
    assert set(found) == {"headGroupSpec", "workerGroupSpecs", "submitter"}
    for name, template in found.items():
        pod = template["spec"]
        assert template["metadata"]["labels"]["cost"] == "x"
        assert template["metadata"]["annotations"]["example.com/owner"] == "me"
        assert pod["imagePullSecrets"] == [{"name": "pull"}]
        assert pod["serviceAccountName"] == f"a-{name[:4] if name[0] == 'h' else name[:6] if name[0] == 'w' else name}"
        assert pod["nodeSelector"] == {"zone": "b" if name == "headGroupSpec" else "a"}
        assert {"key": "shared", "operator": "Exists", "effect": "NoSchedule"} in pod["tolerations"]
        assert "podAntiAffinity" in pod["affinity"]
        assert (pod["priorityClassName"], pod["runtimeClassName"]) == ("batch", "nvidia")
        (box,) = pod["containers"]
        assert box["image"].startswith("registry.example.com/x/geosweep-")
        assert box["imagePullPolicy"] == "Always"
        if name == "submitter":
            continue
        told = {e["name"]: e for e in box["env"]}
        assert told["PROXY"]["value"] == "http://proxy.example.com"
        assert told["KEY_OF"]["valueFrom"] == {"secretKeyRef": {"name": "s", "key": "k"}}
        assert ("NCCL_DEBUG" in told) == (name == "workerGroupSpecs")
        assert {"secretRef": {"name": "more"}} in box["envFrom"]
        assert {"name": "data", "mountPath": "/data", "readOnly": True} in box["volumeMounts"]
        claims = {
            v["name"]: v["persistentVolumeClaim"]["claimName"] for v in pod["volumes"] if "persistentVolumeClaim" in v
        }
        assert claims == {"runs": "other-runs", "data": "data"}
    assert found["workerGroupSpecs"]["metadata"]["labels"]["kind"] == "gpu"
    assert "--tracking-uri http://mlflow.team-x.svc.cluster.local:5000" in job["spec"]["entrypoint"]


@pytest.mark.parametrize("wrong", [
    "tolerations: [{key: a, effects: NoSchedule}]",
    "tolerations: [{key: a, effect: Sometimes}]",
    "affinity: {nodeAffinities: {}}",
    "volumes: [{name: v, mount: /v, source: {hostPath: {path: /etc}}}]",
    "volumes: [{name: v, mount: /v, source: {persistentVolumeClaims: {claimName: x}}}]",
])  # fmt: skip
def test_what_is_in_the_words_of_kubernetes_is_checked_in_the_pods(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(RenderError, match="KO"):
        rendered(tmp_path, f"extends: gpu-cluster\n{wrong}\n")


def test_devices_of_every_kind_are_counted_by_ray(tmp_path: Path) -> None:
    for device, params in {
        "nvidia.com/gpu": {},
        "amd.com/gpu": {"num-gpus": "1"},
        "nvidia.com/mig-1g.10gb": {"num-gpus": "1"},
    }.items():
        _, job = rendered(tmp_path, f"extends: gpu-cluster\ngroups: {{gpu: {{gpu: 1, gpu_resource: {device}}}}}\n")
        (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
        assert group["rayStartParams"] == params
        assert group["template"]["spec"]["containers"][0]["resources"]["limits"][device] == "1"
    _, job = rendered(tmp_path, "extends: dra\n")
    (group,) = job["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    pod = group["template"]["spec"]
    assert group["rayStartParams"] == {"num-gpus": "1"}
    assert pod["resourceClaims"] == [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}]
    assert pod["containers"][0]["resources"]["claims"] == [{"name": "gpu"}]
    assert set(pod["containers"][0]["resources"]["limits"]) == {"cpu", "memory"}
    with pytest.raises(RenderError, match="its claim gives every Pod 2 GPU, not 1"):
        rendered(tmp_path, "extends: dra\ngroups: {gpu: {gpu: 2}}\n")


def test_a_queue_takes_a_priority_and_leaves_nothing_behind() -> None:
    plain = job_of(render(sweep(), "x", queue="q"))
    assert plain["spec"]["ttlSecondsAfterFinished"] == 0
    assert plain["spec"]["shutdownAfterJobFinishes"] is True
    assert "kueue.x-k8s.io/priority-class" not in plain["metadata"]["labels"]
    urgent = job_of(render(sweep(), "x", queue="q", priority="sweeps-high"))
    assert urgent["metadata"]["labels"]["kueue.x-k8s.io/priority-class"] == "sweeps-high"
    elastic = job_of(render(sweep(), "x", queue="q", elastic=True))
    assert elastic["metadata"]["annotations"] == {"kueue.x-k8s.io/elastic-job": "true"}
    cluster = elastic["spec"]["rayClusterSpec"]
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["workerGroupSpecs"][0]["minReplicas"] == 0
    assert elastic["spec"]["ttlSecondsAfterFinished"] == 0
    for options in (
        {"priority": "sweeps-high"},
        {"elastic": True},
        {"queue": "q", "priority": "A b"},
        {"namespace": "A"},
    ):
        with pytest.raises(RenderError, match=r"--queue|WorkloadPriorityClass|namespace"):
            render(sweep(), "x", **options)


@pytest.mark.parametrize("memory", ["1Gi", "3Gi", "4Gi", "7Gi", "8Gi", "64Gi", "100Gi", "12000Mi"])
def test_shared_memory_holds_the_object_store_of_ray(tmp_path: Path, memory: str) -> None:
    """Ray gives objects 30 % of what the Pod has, and puts them on disk where /dev/shm is smaller."""
    from ray._private.ray_constants import DEFAULT_OBJECT_STORE_MEMORY_PROPORTION as share

    _, job = rendered(tmp_path, f"extends: gpu-cluster\nhead: {{memory: {memory}}}\n")
    for _, template in templates(job["spec"]["rayClusterSpec"]):
        pod = template["spec"]
        (shm,) = (v["emptyDir"] for v in pod["volumes"] if v["name"] == "shm")
        whole = quantity(pod["containers"][0]["resources"]["limits"]["memory"])
        assert share * whole <= quantity(shm["sizeLimit"]) <= whole


def kubeconfig(path: Path, namespace: str | None) -> Path:
    context: dict[str, Any] = {"cluster": "c", "user": "u", **({"namespace": namespace} if namespace else {})}
    other = {"cluster": "c", "user": "u", "namespace": "elsewhere"}
    contexts = [{"name": "here", "context": context}, {"name": "there", "context": other}]
    path.write_text(yaml.safe_dump({"contexts": contexts, "current-context": "here"}))
    return path


@pytest.mark.slow
def test_the_namespace_is_the_flag_then_the_profile_then_the_context(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    file, own = tmp_path / "s.yaml", tmp_path / "own.yaml"
    file.write_text(sweep())
    own.write_text("extends: kind\nnamespace: of-profile\n")

    def namespaces(*words: str) -> set[str]:
        done = called(monkeypatch, capfd, "k8s", "render", str(file), *words)
        assert done.code == 0, done.err
        return {document["metadata"]["namespace"] for document in yaml.safe_load_all(done.out)}

    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert namespaces() == {"sweeps"}
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config", None)))
    assert namespaces() == {"sweeps"}
    monkeypatch.setenv("KUBECONFIG", f"{tmp_path / 'none'}:{kubeconfig(tmp_path / 'config', 'of-context')}")
    assert namespaces() == {"of-context"}
    assert namespaces("--profile", str(own)) == {"of-profile"}
    assert namespaces("--profile", str(own), "--namespace", "of-flag") == {"of-flag"}
    assert profiles.of_context("there") == "elsewhere"


@pytest.mark.slow
@pytest.mark.parametrize("filler, wide", [('"', 2), ("\n#", 3), ("&", 6), ("é", 2), ("x", 1)])
def test_what_apply_keeps_in_an_annotation_fits(filler: str, wide: int) -> None:
    """`kubectl apply` keeps the object as Go writes JSON, where a filler takes `wide` bytes; what renders has room."""

    def text(count: int) -> str:
        return sweep() + "#" + filler * count + "\n"

    config = next(yaml.safe_load_all(render(text(0), "x")))
    config["metadata"]["annotations"] = {}
    kept = len(json.dumps(config, separators=(",", ":"))) + 1 + len(LAST_APPLIED)
    most = (ANNOTATIONS - kept) // wide
    assert render(text(most), "x")
    with pytest.raises(RenderError, match="as stored by kubectl apply"):
        render(text(most + 1), "x")
