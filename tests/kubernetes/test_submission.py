"""Sweeps submitted to real Ray with token authentication: by the line an operator makes of a manifest, and by verbs."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from orchestrator.executors.job_api import RayCluster
from orchestrator.kubernetes.code import MOUNT
from orchestrator.kubernetes.profiles import ROOT, tracking
from orchestrator.kubernetes.render import render
from orchestrator.tracking.mlflow import TRIAL
from tests.kubernetes.pods import wait
from tests.kubernetes.ray_head import REPOSITORY, TOKEN, Head, code, environment, head
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_checkpoint_interval import EVERY_S, STEP_S, STEPS, TASK, TEXT, trace
from tests.verbs import Called, called

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def ray_head() -> Iterator[Head]:
    with head(RAY_metrics_report_interval_ms="500") as found:
        yield found


@contextlib.contextmanager
def watched(url: str) -> Iterator[dict[str, float]]:
    """The largest value of every series of ours that is exported meanwhile."""
    found: dict[str, float] = {}
    over = threading.Event()

    def look() -> None:
        while not over.wait(0.3):
            with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
                for line in answer.read().decode().splitlines():
                    if line.startswith("ray_geosweep"):
                        name, labels, value = re.fullmatch(r"(\w+)\{(.*)\} (\S+)", line).groups()  # type: ignore[union-attr]
                        told = dict(re.findall(r'(\w+)="([^"]*)"', labels))
                        key = f"{name} {told.get('state') or told.get('reason')}"
                        found[key] = max(found.get(key, 0.0), float(value))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    yield found
    over.set()
    thread.join(10)


@pytest.fixture
def address(ray_head: Head) -> str:
    return ray_head.address


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], address: str) -> Callable[..., Any]:
    """A verb against the head; what it printed, and its code."""
    monkeypatch.setenv("RAY_AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # Ray's client prefers it to the address it is given

    def run(*words: str) -> Called:
        return called(monkeypatch, capfd, *words, "--address", address)

    return run


def submit_line(job: dict[str, Any], identity: str, address: str, places: dict[str, str]) -> str:
    """What KubeRay 1.7 runs in the submitter Pod (ray-operator/controllers/ray/common/job.go), with our places."""
    spec = job["spec"]
    entrypoint = spec["entrypoint"]
    for theirs, ours in places.items():
        assert theirs in entrypoint
        entrypoint = entrypoint.replace(theirs, ours)
    at = f"--address {address}"
    metadata = shlex.quote(json.dumps(spec["metadata"]))
    return (
        f"if ! ray job status {at} {identity} >/dev/null 2>&1 ; then ray job submit {at} --no-wait "
        f"--metadata-json {metadata} --submission-id {identity} -- {entrypoint} ; fi ; "
        f"ray job logs {at} --follow {identity}"
    )


def shell(line: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", line], env=environment(), cwd=REPOSITORY, capture_output=True, text=True, timeout=240
    )


def log_of(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The driver's lines, without those of the command `ray`."""
    lines = [line for line in done.stdout.splitlines() if " cli.py:" not in line and line.strip()]
    return lines[next(number for number, line in enumerate(lines) if line.startswith("sweep ")) :]


def files(root: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for p in root.glob("*/trials/*/result.json")}


def test_token(ray_head: Head) -> None:
    jobs = f"{ray_head.address}/api/jobs/"
    assert (code(jobs, ""), code(jobs, "wrong"), code(jobs)) == (401, 403, 200)
    assert code(f"{ray_head.address}/api/gcs_healthz", "") == 200  # the submitter waits for it, without a token
    for path in ("healthz", "local_raylet_healthz"):  # the operator's probes of a Pod, without one either
        wait("the agent", lambda path=path: code(f"{ray_head.agent}/api/{path}", "") == 200, 60)


def test_the_rendered_line_twice_is_one_sweep(ray_head: Head, tmp_path: Path) -> None:
    address = ray_head.address
    text = sweep_text(trials=2, confirm=2)
    file, root, store = tmp_path / "sweep.yaml", tmp_path / "runs", tmp_path / "mlflow.db"
    file.write_text(text)
    _, job = yaml.safe_load_all(render(text, str(file), profile="kind"))
    places = {
        f"{MOUNT}/sweep.yaml": str(file),
        f"--root {ROOT} ": f"--root {root} ",
        tracking("sweeps"): f"sqlite:///{store}",
    }
    with watched(ray_head.metrics) as metrics:
        first = shell(submit_line(job, "fit-1", address, places))
    assert "confirm stage" in first.stdout, first.stdout + first.stderr
    trained = files(root)
    assert len(trained) == 2 * (2 + 2)
    assert metrics["ray_geosweep_trials running"] >= 1, metrics
    assert [name for name in metrics if name.startswith("ray_geosweep_trials_ended_total ")], metrics
    again = shell(submit_line(job, "fit-1", address, places))
    assert log_of(again) == log_of(first)
    doubled = shell(f"ray job submit --address {address} --no-wait --submission-id fit-1 -- true")
    assert "already exists" in doubled.stdout + doubled.stderr
    retried = shell(submit_line(job, "fit-2", address, places))  # the operator's retry: a new id on the same root
    assert "is done; nothing to run" in retried.stdout
    assert files(root) == trained
    assert len(list(root.glob("*/resolved.json"))) == 1
    client = MlflowClient(f"sqlite:///{store}")
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len([r for r in runs if "mlflow.parentRunId" not in r.data.tags]) == 1
    assert not (root / "mlflow.db").exists()
    attempt = RayCluster(address, TOKEN).status("fit-")
    assert (attempt.job, attempt.state) == ("fit-2", "done")


def living(words: str) -> list[int]:
    """Processes with these words on their command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if words in path.read_bytes().replace(b"\0", b" ").decode(errors="replace"):
                found.append(int(path.parent.name))
    return found


def test_a_lost_head_costs_one_checkpoint_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator's answer to a lost head: a new cluster, a new id, the same line on the same root."""
    (tmp_path / "traced_task.py").write_text(TASK.format(pause=STEP_S))
    monkeypatch.syspath_prepend(str(tmp_path))
    file, root = tmp_path / "sweep.yaml", tmp_path / "runs"
    file.write_text(TEXT.format(trace=tmp_path / "trace", steps=STEPS, every=EVERY_S))
    _, job = yaml.safe_load_all(render(file.read_text(), str(file), profile="kind"))
    places = {
        f"{MOUNT}/sweep.yaml": str(file),
        f"--root {ROOT} ": f"--root {root} ",
        tracking("sweeps"): f"sqlite:///{root}.db",
    }
    path = {"PYTHONPATH": f"{REPOSITORY}:{tmp_path}"}
    with head(**path) as first:
        line = submit_line(job, "traced-1", first.address, places)
        shell(line.partition(" ; ray job logs")[0])
        deadline = time.monotonic() + 150
        while not max((max(batches) for batches in trace(file).values()), default=0) > STEPS // 2:
            assert time.monotonic() < deadline, shell(line).stdout
            time.sleep(0.02)
        first.lose()
    while living(str(root)) and time.monotonic() < deadline:
        time.sleep(0.1)
    before = trace(file)
    last = max(max(batches) for batches in before.values())
    (folder,) = root.glob("traced-*/trials/sgd-0000-s0")
    newest = max(int(path.name.split("-")[1]) for path in folder.glob("checkpoint-*.pt"))
    with head(**path) as second:
        done = shell(submit_line(job, "traced-2", second.address, places))
    assert "confirm stage" in done.stdout, done.stdout + done.stderr
    after = {process: [b for b in batches if b] for process, batches in trace(file).items() if process not in before}
    resumed = max(
        batches[0] for batches in after.values() if batches
    )  # batch 0: a worker warms up, with or without work
    assert resumed > 1
    assert last - resumed <= 3 * last / (newest + 1)
    assert len(files(root)) == 1 + 2
    client = MlflowClient(f"sqlite:///{root}.db")
    experiment = client.get_experiment_by_name("traced")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id])
    assert len([r for r in runs if "mlflow.parentRunId" not in r.data.tags]) == 1
    assert len([r for r in runs if TRIAL in r.data.tags]) == 1 + 2


def wait_for(call: Callable[..., Any], sweep: str, *states: str) -> dict[str, Any]:
    deadline = time.monotonic() + 150
    while True:
        document: dict[str, Any] = json.loads(call("status", sweep, "--json")[1])
        if document["state"] in states:
            return document
        assert time.monotonic() < deadline, (document, call("logs", sweep)[1])
        time.sleep(1)


def test_submit_status_logs_stop(call: Callable[..., Any], tmp_path: Path) -> None:
    file, root = tmp_path / "verbs.yaml", tmp_path / "runs"
    file.write_text(sweep_text(name="verbs", trials=2, confirm=2, pause_s=0.1))
    submit = ("submit", str(file), "--root", str(root), "--json")
    number, out, err = call(*submit)
    assert number == 0, err
    first = json.loads(out)
    assert first["job"] == f"{first['sweep_id']}.1"
    assert json.loads(call(*submit)[1])["job"] == first["job"]
    deadline = time.monotonic() + 120
    while not list(root.glob("*/trials/*/metrics.jsonl")) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert wait_for(call, "verbs", "running")["job"] == first["job"]
    assert call("stop", "verbs")[2].strip() == f"{first['sweep_id']} is draining"
    assert wait_for(call, "verbs", "stopped")["job"] == first["job"]
    assert "drained: every running trial wrote a checkpoint" in call("logs", "@last")[1]
    assert list(root.glob("*/trials/*/checkpoint-*.pt"))
    second = json.loads(call(*submit)[1])
    assert second["job"] == f"{first['sweep_id']}.2"
    wait_for(call, "verbs", "done")
    assert len(files(root)) == 2 * (2 + 2)
    assert call("stop", "verbs")[2].strip() == f"{first['sweep_id']} is not running"
    assert json.loads(call(*submit)[1])["job"] == second["job"]
    assert call("status", "nothing")[0] == 4
    printing = sorted(root.glob("*/trials/*/trial.json"))[0].parent
    (printing / "stdout.log").write_text("a line of a trial's\n")
    assert call("logs", "verbs", printing.name)[1] == "a line of a trial's\n"
    number, _, err = call("logs", "verbs", "nothing")
    assert (number, "has no trial 'nothing'" in err) == (4, True)


def test_a_wrong_token_is_said(call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "another-token-that-is-also-long-enough")
    number, out, err = call("status", "@last")
    assert (number, out) == (75, "")
    assert "rejects the token" in err
    assert "RAY_AUTH_TOKEN" in err


def test_a_hopeless_sweep_is_not_tried_twice(call: Callable[..., Any], tmp_path: Path) -> None:
    file, root = tmp_path / "hopeless.yaml", tmp_path / "runs"
    file.write_text(sweep_text(name="hopeless", method="random", trials=30, confirm=2, fail_at=2))
    submit = ("submit", str(file), "--root", str(root), "--json")
    logs, reasons = [], []
    for _ in range(2):
        assert call(*submit)[0] == 0
        reasons.append(wait_for(call, "hopeless", "failed", "done", "stopped"))
        logs.append(call("logs", "hopeless")[1])
    assert [r["job"][-2:] for r in reasons] == [".1", ".2"]
    assert [r["ending"]["exit_code"] for r in reasons] == [8, 8]
    assert all("all failed in the same way" in r["reason"] for r in reasons)
    said = [next(line for line in log.splitlines() if "all failed in the same way" in line) for log in logs]
    assert said[0] == said[1]
    assert "the disk of this test is on fire" in said[0]
    assert 5 <= len(files(root)) < 20
