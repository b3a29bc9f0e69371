"""`submit`, `status`, `logs`, `stop` on Kubernetes: the real client against an API server that replays an operator."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.cli import follow
from orchestrator.definition import sweep_file
from orchestrator.definition.states import AttemptState
from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.render import render
from orchestrator.remote import Attempt
from orchestrator.storage import ending
from orchestrator.storage.ending import Ending
from orchestrator.storage.folder import SweepFolder
from orchestrator.travel.code import parcel
from tests.kubernetes.api_server import CLUSTERS, EVENTS, JOBS, MAPS, PODS, READERS, WORKLOADS, ApiServer
from tests.kubernetes.kubelet import keep, kubelet
from tests.orchestrator.sweep_files import sweep_text
from tests.verbs import Called

Call = Callable[..., Called]


def state(call: Call) -> tuple[str, str]:
    document = json.loads(call("status", "@last", "--json")[1])
    return document["state"], document["reason"]


@pytest.mark.slow
def test_what_is_created_is_what_render_prints(server: ApiServer, call: Call, file: Path) -> None:
    number, out, err = call("submit", str(file), "--profile", "kind", "--json")
    assert number == 0, err
    own = parcel(sweep_file.loads(file.read_text(), str(file)), file, leave_out=[Path("runs")])
    config, code, job = yaml.safe_load_all(render(file.read_text(), str(file), profile="kind", parcel=own))
    made = {**server.objects[JOBS], **server.objects[MAPS]}
    (uid,) = (found["metadata"]["uid"] for found in server.objects[JOBS].values())
    for found in server.objects[MAPS].values():
        (owner,) = found["metadata"].pop("ownerReferences")
        assert (owner["kind"], owner["name"], owner["uid"]) == ("RayJob", job["metadata"]["name"], uid)
    for document in made.values():
        del document["metadata"]["creationTimestamp"], document["metadata"]["uid"]
    assert made == {document["metadata"]["name"]: document for document in (config, code, job)}
    assert not lint(list(made.values()))
    document = json.loads(out)
    assert (document["state"], document["job"]) == ("waiting", job["metadata"]["name"])
    assert document["sweep_id"] == job["metadata"]["labels"]["geosweep.io/sweep"]


STATES = [
    ({}, "waiting"),
    ({"jobDeploymentStatus": "Initializing"}, "waiting"),
    ({"jobDeploymentStatus": "Suspended"}, "suspended"),
    ({"jobDeploymentStatus": "Suspending"}, "suspended"),
    ({"jobDeploymentStatus": "Running", "jobStatus": "PENDING"}, "waiting"),
    ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running"),
    ({"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED", "failed": 1}, "waiting"),
    ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "done"),
    ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "stopped"),
    ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "failed": 4}, "failed"),
    ({"jobDeploymentStatus": "Running", "jobStatus": "SUCCEEDED", "message": "Job finished successfully."}, "done"),
    ({"jobDeploymentStatus": "Running", "jobStatus": "FAILED", "message": "exit code 3"}, "failed"),
    ({"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded"}, "failed"),
    ({"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "JobStatusCheckTimeoutExceeded"}, "lost"),
    ({"jobDeploymentStatus": "ValidationFailed", "message": "the name is too long"}, "failed"),
]


@pytest.mark.slow
def test_every_state_of_the_operator(server: ApiServer, call: Call, file: Path) -> None:
    """Submitting changes nothing while it waits or runs, and when it is done; a failed one is made anew."""
    call("submit", str(file))
    for status, expected in STATES:
        server.job(**status)
        found, reason = state(call)
        assert found == expected, status
        assert all(str(status[k]) in reason for k in ("reason", "message", "failed") if k in status)
        number, out, _ = call("submit", str(file), "--json")
        assert number == 0
        (job,) = server.objects[JOBS].values()
        anew = expected in ("failed", "stopped", "lost")
        assert ("status" not in job or not status) == (anew or not status)
        assert json.loads(out)["state"] == ("waiting" if anew else expected)
    kinds = [
        document["metadata"]["labels"]["app.kubernetes.io/component"] for document in server.objects[MAPS].values()
    ]
    assert sorted(kinds) == sorted(set(kinds)), "each map once"


@pytest.mark.slow
def test_logs_are_of_the_newest_attempt(server: ApiServer, call: Call, file: Path) -> None:
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    number, _, err = call("logs", sweep)
    assert number == 4
    assert "has no log: it is waiting" in err
    labels = {"geosweep.io/sweep": sweep, "app.kubernetes.io/component": "sweep-submitter"}
    server.pod("first", "a try\n", **labels)
    server.pod("second", "confirm stage\n", **labels)
    server.pod("other", "another sweep\n", **{**labels, "geosweep.io/sweep": "other-00000000"})
    server.pod("worker", "a worker\n", **{**labels, "app.kubernetes.io/component": "sweep-worker"})
    assert call("logs", "fit")[1] == "confirm stage\n"


@pytest.mark.slow
def test_stop_deletes_and_submit_goes_on(server: ApiServer, call: Call, file: Path) -> None:
    call("submit", str(file))
    server.job(jobDeploymentStatus="Running", jobStatus="RUNNING")
    number, _, err = call("stop", "@last")
    assert number == 0
    assert "is being deleted; submit continues" in err
    assert not server.objects[JOBS]
    assert call("status", "@last")[0] == 4
    assert call("submit", str(file))[0] == 0
    server.job(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert "is not running" in call("stop", "@last")[2]
    assert server.objects[JOBS]


@pytest.mark.slow
def test_submitted_while_the_last_one_is_being_deleted(server: ApiServer, call: Call, file: Path) -> None:
    """A RayJob that is on its way out is no running one: submit waits for its end and makes it anew."""
    call("submit", str(file))
    server.job(jobDeploymentStatus="Running", jobStatus="RUNNING")
    server.lingers = True
    call("stop", "@last")
    assert state(call) == ("stopped", "being deleted")
    assert "is not running" in call("stop", "@last")[2]
    gone = threading.Timer(0.7, server.finalize)
    gone.start()
    assert json.loads(call("submit", str(file), "--json")[1])["state"] == "waiting"
    gone.join()
    (job,) = server.objects[JOBS].values()
    assert not {"status", "deletionTimestamp"} & {*job, *job["metadata"]}


@pytest.mark.slow
def test_why_nothing_runs_is_in_status_and_logs(server: ApiServer, call: Call, file: Path) -> None:
    sweep = json.loads(call("submit", str(file), "--queue", "sweeps", "--json")[1])["sweep_id"]
    (job,) = server.objects[JOBS]
    server.job(jobDeploymentStatus="Initializing", rayClusterName=f"{job}-abcde")
    quota = "exceeded quota: sweeps, requested: requests.cpu=2500m, used: requests.cpu=0, limited: requests.cpu=2"
    refused = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreateHeadPod", "message": quota}
    metadata = {"name": f"{job}-abcde"}
    server.objects[CLUSTERS][f"{job}-abcde"] = {"metadata": metadata, "status": {"conditions": [refused]}}
    assert "the head exceeds quota sweeps: requests requests.cpu=2500m (0 of 2 used)" in state(call)[1]
    number, _, err = call("logs", sweep)
    assert (number, "the head exceeds quota sweeps" in err) == (4, True)
    server.objects[CLUSTERS].clear()
    about = {"kind": "RayCluster", "name": f"{job}-abcde"}
    message = 'violates PodSecurity "restricted:latest": runAsNonRoot != true'
    server.objects[EVENTS]["e"] = {
        "metadata": {"name": "e"}, "involvedObject": about, "reason": "FailedToCreateHeadPod", "message": message,
    }  # fmt: skip
    assert "rejected by Pod Security restricted:latest" in state(call)[1]
    server.forbidden = {EVENTS, CLUSTERS, WORKLOADS}
    assert state(call) == ("waiting", "Initializing"), (
        "an account of before may not look there, and is shown what it may"
    )
    server.forbidden = set()
    server.objects[JOBS][job]["spec"]["suspend"] = True
    server.job(jobDeploymentStatus="Suspended")
    held = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": "insufficient unused quota"}
    owned = {"name": "w", "ownerReferences": [{"kind": "RayJob", "name": job}]}
    server.objects[WORKLOADS]["w"] = {"metadata": owned, "status": {"conditions": [held]}}
    assert state(call)[0] == "suspended"
    assert "waits in Kueue's queue sweeps: insufficient unused quota" in state(call)[1]
    assert json.loads(call("submit", str(file), "--queue", "sweeps", "--json")[1])["state"] == "suspended"


@pytest.mark.slow
def test_logs_outlive_the_pods(server: ApiServer, call: Call, file: Path, tmp_path: Path) -> None:
    """After the TTL: the driver's log is read where the sweep is kept, on this machine or on the claim."""
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    server.job(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    server.forbidden = {READERS}
    number, _, err = call("logs", sweep)
    assert (number, f"geosweep logs {sweep} --driver --root /runs" in err) == (4, True)
    server.forbidden = set()
    kept = keep(tmp_path, sweep)
    found = call("logs", sweep, "--root", str(tmp_path / "runs"))
    assert (found[0], found[1]) == (0, "a first head\nits successor\n")
    document = json.loads(call("logs", sweep, "--driver", "--json", "--root", str(tmp_path / "runs"))[1])
    assert list(document["drivers"].values()) == ["a first head\n", "its successor\n"]
    kubelet(server, kept.parent)
    found = call("logs", sweep)
    assert (found[0], "its successor" in found[1]) == (0, True)


@pytest.mark.slow
def test_how_a_driver_ended_is_in_its_log(server: ApiServer, call: Call, file: Path) -> None:
    """A budget that is spent is no job to make anew, a drained one is; text that changed is run."""
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    labels = {"geosweep.io/sweep": sweep, "app.kubernetes.io/component": "sweep-submitter"}
    server.job(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", message="Job finished successfully.")
    ended = Ending(ending="budget", exit_code=5, reason="the wall-clock budget is spent", when="2026-11-27T00:00:00Z")
    server.pod("s", f"training\n{ended.line()}\n", **labels)
    document = json.loads(call("status", "@last", "--json")[1])
    assert (document["state"], document["reason"]) == ("budget", ended.reason)
    assert document["ending"]["exit_code"] == 5
    assert json.loads(call("submit", str(file), "--json")[1])["state"] == "budget"
    file.write_text(file.read_text().replace("trials_per_arm: 4", "trials_per_arm: 4, wall_clock: 9h"))
    assert json.loads(call("submit", str(file), "--json")[1])["state"] == "waiting"
    server.job(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    drained = Ending(ending="stopped", exit_code=130, reason="drained")
    server.pod("t", f"{drained.line()}\n", **labels)
    assert state(call) == ("stopped", "drained")
    assert json.loads(call("submit", str(file), "--json")[1])["state"] == "waiting"


ENDS = [
    ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, ("done", 0), 0),
    ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, ("budget", 5), 5),
    ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, ("stopped", 130), 130),
    ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}, ("failed", 8), 8),
    ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}, ("fault", -9), 75),
    ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed"}, None, 1),
    ({"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "JobStatusCheckTimeoutExceeded"}, None, 75),
    ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, None, 0),
]


@pytest.mark.slow
@pytest.mark.parametrize(("status", "how", "code"), ENDS)
def test_waiting_ends_with_the_code_of_run(
    server: ApiServer, call: Call, file: Path, status: dict[str, str], how: tuple[str, int] | None, code: int
) -> None:
    def go_on() -> None:
        """What an operator does meanwhile."""
        while not server.objects[JOBS]:
            time.sleep(0.02)
        ((name, job),) = server.objects[JOBS].items()
        labels = {"geosweep.io/sweep": job["metadata"]["labels"]["geosweep.io/sweep"]}
        server.pod(f"{name}-s", "training\n", **labels, **{"app.kubernetes.io/component": "sweep-submitter"})
        server.job(jobDeploymentStatus="Running", jobStatus="RUNNING")
        time.sleep(0.2)
        if how is not None:
            server.logs[f"{name}-s"] += Ending(ending=how[0], exit_code=how[1], reason="so it is").line() + "\n"
        server.job(**status)

    played = threading.Thread(target=go_on)
    played.start()
    number, out, err = call("submit", str(file), "--wait")
    played.join()
    assert number == code, out + err
    assert "training" in out
    assert ("so it is" in err) == (how is not None and code != 0)


@pytest.mark.slow
def test_waiting_prints_one_document(server: ApiServer, call: Call, file: Path) -> None:
    call("submit", str(file))
    server.job(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    number, out, _ = call("submit", str(file), "--wait", "--json")
    assert (number, json.loads(out)["exit_code"], json.loads(out)["state"]) == (0, 0, "done")


@pytest.mark.slow
def test_a_job_that_somebody_deletes_ends_the_wait(server: ApiServer, call: Call, file: Path) -> None:
    def delete() -> None:
        while not server.objects[JOBS]:
            time.sleep(0.02)
        server.job(jobDeploymentStatus="Running", jobStatus="RUNNING")
        time.sleep(0.2)
        server.objects[JOBS].clear()

    played = threading.Thread(target=delete)
    played.start()
    number, out, err = call("submit", str(file), "--wait")
    played.join()
    assert number == 130, out + err
    assert "was deleted; submit continues" in err


def test_an_ending_of_an_earlier_attempt_is_none_of_this_one(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path, "fit-12345678")
    folder.path.mkdir()
    (folder.path / "resolved.json").write_text("{}")
    before = Ending(ending="budget", exit_code=5, when="2026-11-27T00:00:00Z")
    before.write(folder)
    attempt = Attempt(job="fit-12345678", sweep_id="fit-12345678", state=AttemptState.FAILED)
    assert follow.exit_code(attempt, folder) == 5
    assert follow.exit_code(attempt, folder, before) == 1, "its image could not be pulled, say"
    assert follow.exit_code(replace(attempt, state=AttemptState.DONE), folder, before) == 0
    assert not Ending(ending="failed", exit_code=2).write(folder), "whoever drives a sweep clears it first"
    ending.clear(folder)
    assert Ending(ending="failed", exit_code=8, when="2026-11-27T01:00:00Z").write(folder)
    assert follow.exit_code(attempt, folder, before) == 8


@pytest.mark.slow
def test_stop_frees_the_pods_of_a_job_in_any_state(
    server: ApiServer, call: Call, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    server.job(jobDeploymentStatus="Failed", jobStatus="RUNNING", reason="JobStatusCheckTimeoutExceeded")
    server.pod("head", "", phase="Running", **{"geosweep.io/sweep": sweep})
    found, reason = state(call)
    assert (found, "stop frees them" in reason) == ("lost", True)
    assert "is being deleted" in call("stop", "@last")[2]
    assert not server.objects[JOBS]
    assert not server.objects[PODS]
    call("submit", str(file))
    server.job(jobDeploymentStatus="Running", jobStatus="RUNNING")
    server.pod("head", "", phase="Running", **{"geosweep.io/sweep": sweep})
    server.pod("old", "", phase="Succeeded", **{"geosweep.io/sweep": sweep})
    server.lingers = True
    monkeypatch.setattr("orchestrator.kubernetes.cluster.FREED_S", 0.0)
    said = call("stop", "@last")[2]
    assert "1 Pods are not gone yet: head (Running)" in said
    assert "is the KubeRay operator running" in said
    assert "kubectl -n sweeps delete pod head" in said


def test_a_pod_that_starts_has_no_log_yet(server: ApiServer, call: Call, file: Path) -> None:
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    server.pod("first", "", **{"geosweep.io/sweep": sweep, "app.kubernetes.io/component": "sweep-submitter"})
    server.logs.clear()
    number, _, err = call("logs", "@last")
    assert (number, "first is starting: container is waiting to start" in err) == (4, True)


def test_refusals_say_why(server: ApiServer, call: Call, file: Path, tmp_path: Path) -> None:
    server.refuse = (403, "rayjobs.ray.io is forbidden: User cannot list")
    number, _, err = call("status", "@last")
    assert (number, "cannot list" in err) == (75, True)
    server.refuse = (404, "the server could not find the requested resource")
    assert "KubeRay operator" in call("submit", str(file))[2]
    server.refuse = None
    large = tmp_path / "large.yaml"
    large.write_text(sweep_text() + "resources: {cpu: 400}\n")
    number, _, err = call("submit", str(large))
    assert (number, "fits no worker group" in err) == (6, True)
    number, _, err = call("status", "@last", address="k8s://elsewhere")
    assert (number, "elsewhere" in err) == (75, True)
    assert not server.objects[JOBS]


@pytest.mark.slow
def test_unknown_names_and_a_wrong_token(
    server: ApiServer, call: Call, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    for verb in ("status", "logs", "stop"):
        number, _, err = call(verb, "nothing")
        assert (number, f"available: {sweep}" in err) == (4, True)
    known = yaml.safe_load((tmp_path / "kubeconfig").read_text())
    address = known["clusters"][0]["cluster"]["server"]
    monkeypatch.setenv("KUBECONFIG", str(server.kubeconfig(tmp_path / "other", address, token="wrong")))
    for words in (("status", "@last"), ("submit", str(file))):
        number, _, err = call(*words)
        assert (number, "401" in err, "Unauthorized" in err) == (75, True, True)
    assert len(server.objects[JOBS]) == 1


def test_an_invalid_manifest_leaves_nothing_behind(server: ApiServer, call: Call, file: Path) -> None:
    answer = server.answer

    def strict(method: str, path: str, body: Any) -> tuple[int, Any]:
        if method == "POST" and path.startswith(JOBS):
            return 422, {"kind": "Status", "message": "spec.entrypoint: Invalid value", "code": 422}
        return answer(method, path, body)

    server.answer = strict  # type: ignore[method-assign]
    number, _, err = call("submit", str(file))
    assert (number, "spec.entrypoint: Invalid value" in err) == (6, True)
    assert not server.objects[MAPS]


def test_no_server_and_no_kubeconfig(call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    number, _, err = call("status", "@last")
    assert (number, "KUBECONFIG" in err) == (75, True)
    path = ApiServer().kubeconfig(tmp_path / "dead", "http://127.0.0.1:9")
    monkeypatch.setenv("KUBECONFIG", str(path))
    number, _, err = call("status", "@last")
    assert (number, "does not answer" in err) == (75, True)
