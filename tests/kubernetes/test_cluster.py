"""`submit`, `status`, `logs`, `stop` on Kubernetes: the real client against an API server that replays an operator."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.definition import sweep_file
from orchestrator.kubernetes.operator_rules import lint
from orchestrator.kubernetes.render import render
from orchestrator.travel.code import parcel
from tests.kubernetes.api_server import JOBS, MAPS, ApiServer, serving
from tests.kubernetes.manifests import K8S
from tests.orchestrator.sweep_files import sweep_text
from tests.verbs import Called, called

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    made = ApiServer()
    with serving(made) as address:
        monkeypatch.setenv("KUBECONFIG", str(made.kubeconfig(tmp_path / "kubeconfig", address)))
        yield made
    assert {right_of(method, path) for method, path in made.asked} <= rights()


def right_of(method: str, path: str) -> tuple[str, str]:
    """(resource, verb) of a request, in the words of RBAC."""
    kind, *names = path.split("/namespaces/sweeps/")[1].split("/")
    verb = {"POST": "create", "PATCH": "patch", "DELETE": "delete"}.get(method, "get" if names else "list")
    return (f"{kind}/log" if path.endswith("/log") else kind, verb)


def rights() -> set[tuple[str, str]]:
    """What k8s/base grants to the account that starts sweeps."""
    documents = yaml.safe_load_all((K8S / "base" / "team" / "rbac.yaml").read_text())
    (role,) = (d for d in documents if d["kind"] == "Role" and d["metadata"]["name"] == "sweep-submitter")
    return {(kind, verb) for rule in role["rules"] for kind in rule["resources"] for verb in rule["verbs"]}


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    def run(*words: str, address: str = "k8s") -> Called:
        return called(monkeypatch, capfd, *words, "--address", address)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "fit.yaml"
    path.write_text(sweep_text())
    return path


def state(call: Call) -> tuple[str, str]:
    document = json.loads(call("status", "@last", "--json")[1])
    return document["state"], document["reason"]


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
    ({"jobDeploymentStatus": "Suspended"}, "waiting"),
    ({"jobDeploymentStatus": "Running", "jobStatus": "PENDING"}, "waiting"),
    ({"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}, "running"),
    ({"jobDeploymentStatus": "Retrying", "jobStatus": "FAILED", "failed": 1}, "waiting"),
    ({"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED"}, "done"),
    ({"jobDeploymentStatus": "Complete", "jobStatus": "STOPPED"}, "stopped"),
    ({"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "failed": 4}, "failed"),
    ({"jobDeploymentStatus": "Failed", "jobStatus": "RUNNING", "reason": "DeadlineExceeded"}, "failed"),
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
        anew = expected in ("failed", "stopped")
        assert ("status" not in job or not status) == (anew or not status)
        assert json.loads(out)["state"] == ("waiting" if anew else expected)
    kinds = [
        document["metadata"]["labels"]["app.kubernetes.io/component"] for document in server.objects[MAPS].values()
    ]
    assert sorted(kinds) == sorted(set(kinds)), "each map once"


def test_logs_are_of_the_newest_attempt(server: ApiServer, call: Call, file: Path) -> None:
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    number, _, err = call("logs", sweep)
    assert number == 4
    assert "no log yet" in err
    labels = {"geosweep.io/sweep": sweep, "app.kubernetes.io/component": "sweep-submitter"}
    server.pod("first", "a try\n", **labels)
    server.pod("second", "confirm stage\n", **labels)
    server.pod("other", "another sweep\n", **{**labels, "geosweep.io/sweep": "other-00000000"})
    server.pod("worker", "a worker\n", **{**labels, "app.kubernetes.io/component": "sweep-worker"})
    assert call("logs", "fit")[1] == "confirm stage\n"


def test_stop_deletes_and_submit_goes_on(server: ApiServer, call: Call, file: Path) -> None:
    call("submit", str(file))
    server.job(jobDeploymentStatus="Running", jobStatus="RUNNING")
    number, _, err = call("stop", "@last")
    assert number == 0
    assert "is being deleted; submit goes on" in err
    assert not server.objects[JOBS]
    assert call("status", "@last")[0] == 4
    assert call("submit", str(file))[0] == 0
    server.job(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED")
    assert "is not running" in call("stop", "@last")[2]
    assert server.objects[JOBS]


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


def test_unknown_names_and_a_wrong_token(
    server: ApiServer, call: Call, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = json.loads(call("submit", str(file), "--json")[1])["sweep_id"]
    for verb in ("status", "logs", "stop"):
        number, _, err = call(verb, "nothing")
        assert (number, f"there is: {sweep}" in err) == (4, True)
    number, _, err = call("logs", sweep, "sgd-0000-s0")
    assert (number, "driver's log only" in err, "kubectl exec" in err) == (4, True, True)
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
