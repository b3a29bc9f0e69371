"""`logs` of what lies on a sweep's claim: by a Job that mounts it, whatever became of the sweep's Pods."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest

from orchestrator.kubernetes.pod_rules import pod_findings
from orchestrator.kubernetes.states import SWEEP
from tests.kubernetes.api_server import EVENTS, PODS, READERS, WORKLOADS, ApiServer
from tests.kubernetes.kubelet import keep, kubelet
from tests.verbs import Called

Call = Callable[..., Called]


@pytest.mark.slow
def test_a_trials_log_is_read_on_the_claim(server: ApiServer, call: Call, file: Path, tmp_path: Path) -> None:
    """By a Job in the sweep's image that may do nothing else, and leaves nothing behind."""
    words = ("--profile", "mig", "--registry", "registry.example.com/team", "--queue", "sweeps")
    sweep = json.loads(call("submit", str(file), *words, "--json")[1])["sweep_id"]
    made = kubelet(server, keep(tmp_path, sweep).parent)
    assert call("logs", sweep, "sgd-0000-s0")[:2] == (0, "step 1\nstep 2 \N{CHECK MARK}\n")
    assert "step 1\nstep 2 \N{CHECK MARK}\n" in call("logs", sweep, "sgd-0000-s0", "--follow").out
    assert made[-1]["spec"]["activeDeadlineSeconds"] > made[0]["spec"]["activeDeadlineSeconds"]
    assert call("logs", "@last", "sgd", "--stderr")[:2] == (0, "a warning\n")
    document = json.loads(call("logs", sweep, "sgd-0000-s0", "--json")[1])
    assert (document["trial_id"], document["stdout"]) == ("sgd-0000-s0", "step 1\nstep 2 \N{CHECK MARK}\n")
    number, out, err = call("logs", sweep, "adam-0000-s0")
    assert (number, out, "has no trial 'adam-0000-s0'" in err) == (4, "", True)
    assert not server.objects[READERS]
    for job in made:
        kubernetes_validate.validate(job, "1.34.0", strict=True)
        assert not list(pod_findings(job))
        assert SWEEP not in job["metadata"]["labels"], "stop waits for no such Pod"
        pod = job["spec"]["template"]["spec"]
        assert (pod["serviceAccountName"], pod["automountServiceAccountToken"]) == ("sweep-runner", False)
        (box,) = pod["containers"]
        assert box["image"].startswith("registry.example.com/team/geosweep-head:")
        (claim,) = (m for m in box["volumeMounts"] if m["mountPath"] == "/runs")
        assert claim["readOnly"]
        assert {e["secretRef"]["name"] for e in box["envFrom"]} == {"geosweep-tracking"}
        assert "kueue.x-k8s.io/queue-name" not in job["metadata"]["labels"], "it needs no device and waits for none"


@pytest.mark.slow
def test_logs_of_a_sweep_that_was_stopped(server: ApiServer, call: Call, file: Path, tmp_path: Path) -> None:
    """Its RayJob is gone: claim and image are those of the profile, and the whole id names it."""
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    call("stop", sweep)
    made = kubelet(server, keep(tmp_path, sweep).parent)
    profile = tmp_path / "team.yaml"
    profile.write_text(
        "extends: cpu-small\nclaim: of-team\nimages: {pull_secrets: [registry]}\nregistry: r.example.com/t\n"
    )
    assert call("logs", sweep, "sgd-0000-s0", "--profile", str(profile))[:2] == (0, "step 1\nstep 2 \N{CHECK MARK}\n")
    pod = made[-1]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"].startswith("r.example.com/t/geosweep-head:")
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert {"name": "runs", "persistentVolumeClaim": {"claimName": "of-team"}} in pod["volumes"]
    assert "its successor" in call("logs", sweep)[1]
    number, _, err = call("logs", "nothing", "sgd-0000-s0")
    assert (number, "no sweep on" in err, len(made)) == (4, True, 2)


def test_why_a_log_cannot_be_read(server: ApiServer, call: Call, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    server.pod("head-x", "", "Running", **{SWEEP: sweep, "app.kubernetes.io/component": "sweep-head"})
    server.forbidden = {READERS}
    number, _, err = call("logs", sweep, "sgd-0000-s0")
    assert (number, "User cannot list jobs" in err) == (4, True)
    assert f"kubectl -n sweeps exec head-x -c ray-head -- geosweep logs {sweep} sgd-0000-s0" in err
    server.forbidden = set()
    quota = "exceeded quota: sweeps, requested: pods=1, used: pods=128, limited: pods=128"

    def refuse(job: dict[str, Any]) -> None:
        about = {"kind": "Job", "name": job["metadata"]["name"]}
        server.objects[EVENTS]["e"] = {
            "metadata": {"name": "e"}, "involvedObject": about, "reason": "FailedCreate", "message": quota,
        }  # fmt: skip

    server.play = refuse
    number, _, err = call("logs", sweep, "sgd-0000-s0")
    assert (number, "the Pod that reads the log exceeds quota sweeps: requests pods=1 (128 of 128 used)" in err) == (
        75,
        True,
    )
    server.objects[EVENTS].clear()
    monkeypatch.setattr("orchestrator.kubernetes.reader.START_S", 0.0)
    waits = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "not found"}}, "image": "geosweep-head:0"}
    waits |= {"name": "logs", "imageID": "", "ready": False, "restartCount": 0}

    def pull(job: dict[str, Any]) -> None:
        server.pod("r", "", "Pending", **{"job-name": job["metadata"]["name"], **job["metadata"]["labels"]})
        server.objects[PODS]["r"]["status"]["containerStatuses"] = [waits]

    server.play = pull
    number, _, err = call("logs", sweep, "sgd-0000-s0")
    assert (number, "the Pod that reads the log cannot pull its image geosweep-head:0" in err) == (75, True)
    assert not server.objects[READERS]


def test_a_log_that_kueue_holds_back(
    server: ApiServer, call: Call, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A namespace with a LocalQueue `default`: Kueue's webhook puts every Job there."""
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]

    def hook(made: dict[str, Any]) -> str:
        made["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "default"
        made["spec"]["suspend"] = True
        held = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient unused quota"}
        owned = {"name": "w", "ownerReferences": [{"kind": "Job", "name": made["metadata"]["name"]}]}
        server.objects[WORKLOADS]["w"] = {"metadata": owned, "status": {"conditions": [held]}}
        return ""

    server.hook = hook
    monkeypatch.setattr("orchestrator.kubernetes.reader.START_S", 0.0)
    number, _, err = call("logs", sweep, "sgd-0000-s0")
    assert (number, "waits in Kueue's queue default: insufficient unused quota" in err) == (75, True)


def test_kueue_admits_all_jobs_of_a_namespace(server: ApiServer, call: Call, file: Path) -> None:
    """Its webhook's refusal is one of the manifest, with the way out, and no server that does not answer."""
    server.hook = lambda made: "spec.rayClusterSpec.enableInTreeAutoscaling: a kueue managed job should only use it"
    number, _, err = call("submit", str(file))
    assert (number, "name the queue with --queue" in err) == (6, True)
    server.hook = lambda made: "no owner label"
    number, _, err = call("submit", str(file))
    assert (number, "no owner label" in err, "--queue" in err) == (6, True, False)
