"""A sweep on real Ray over two hosts that are killed: the manifest's own entrypoint, start parameters and MLflow
arguments; studies in PostgreSQL, sweeps and artifacts in an S3 server, tracking by `mlflow server`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import optuna
import psycopg
import pytest
import yaml

from orchestrator import parquet, results, runner
from orchestrator.definition import sweep_file
from orchestrator.executors.debug import DebugExecutor
from orchestrator.kubernetes.code import MOUNT
from orchestrator.kubernetes.render import render
from orchestrator.protocol import amendments, seal
from orchestrator.search.optuna_storage import storage
from orchestrator.storage import folder as folders
from orchestrator.storage import object_store
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.base import NoTracker
from tests.kubernetes.manifests import K8S
from tests.kubernetes.pods import Cluster, Pod, cluster, wait
from tests.kubernetes.ray_head import TOKEN, code, environment
from tests.kubernetes.test_submission import submit_line
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_store import timeless
from tests.services import KEYS, postgres_server, s3_server

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
HEAD, WORKER, MLFLOW = 1, 2, 3
ROOT = "s3://sweeps/runs"
EVERY_S = 2.0


def sweep(pause_s: float) -> str:
    """Trials of 7 s that log every 0.14 s."""
    text = sweep_text(name="hosts", method="random", trials=3, confirm=2, per_trial=100, pause_s=pause_s)
    text = text.replace("evaluations: 4", "evaluations: 50")
    return f"{text}resources: {{checkpoint_every: {EVERY_S}s, max_concurrent: 2}}\n"


SWEEP = sweep(0.07)
TRIALS = 2 * (3 + 2)


@dataclass
class Services:
    """What a sweep on a cluster leans on."""

    network: Cluster
    database: str
    tracking: str
    variables: dict[str, str]
    hosts: str

    def pod(self, number: int, *command: str) -> Pod:
        """A Pod with the image's environment and the Secrets."""
        given = environment(**self.variables, GEOSWEEP_STORAGE=self.database)
        return self.network.pod(number, command, given, hosts=self.hosts, file=SWEEP)


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    with (
        cluster(f"gs{os.getpid() % 10000}", tmp_path / "pods.log") as network,
        postgres_server(network.outside) as postgres,
        s3_server("sweeps", network.outside) as variables,
    ):
        boto3.client("s3").create_bucket(Bucket="mlflow")
        with psycopg.connect(postgres.url.replace("+psycopg", ""), autocommit=True) as admin:
            for name in ("mlflow", "geosweep"):
                admin.execute(f"CREATE DATABASE {name}")  # type: ignore[call-overload]
        network.host(HEAD), network.host(WORKER)
        hosts = f"127.0.0.1 localhost\n{network.host(MLFLOW)} mlflow.sweeps.svc.cluster.local mlflow\n"
        base = postgres.url.rpartition("/")[0]
        tracking = f"http://{hosts.split()[2]}:5000"
        found = Services(network, f"{base}/geosweep", tracking, variables, hosts)
        start_mlflow(found, f"{base}/mlflow")
        yield found


def start_mlflow(services: Services, database: str) -> None:
    """The init container and the server of k8s/base/mlflow, with their own commands, arguments and settings."""
    (deployment,) = yaml.safe_load_all((K8S / "base/mlflow/deployment.yaml").read_text())
    settings = yaml.safe_load((K8S / "base/mlflow/settings.yaml").read_text())["data"]
    pod = deployment["spec"]["template"]["spec"]
    known = {**settings, **KEYS, "MLFLOW_BACKEND_STORE_URI": database, "HOME": "/tmp"}
    known["MLFLOW_S3_ENDPOINT_URL"] = services.variables["AWS_ENDPOINT_URL_S3"]

    def start(container: dict[str, Any]) -> Pod:
        words = [*container["command"], *container.get("args", [])]
        filled = [re.sub(r"\$\((\w+)\)", lambda m: known[m[1]], word) for word in words]
        return services.network.pod(MLFLOW, filled, environment(**known), hosts=services.hosts)

    assert start(pod["initContainers"][0]).wait() == 0
    start(pod["containers"][0])
    probe = urllib.request.Request(f"{services.tracking}/health")
    wait("MLflow", lambda: urllib.request.urlopen(probe, timeout=5).status == 200, 120)


class RayCluster:
    """What the operator makes of a RayJob: a head, one worker Pod, and the submitter."""

    def __init__(self, services: Services, attempt: str) -> None:
        self._services, self._attempt = services, attempt
        _, self._job = yaml.safe_load_all(render(SWEEP, "sweep.yaml", profile="kind", root=ROOT))
        self._ray = self._job["spec"]["rayClusterSpec"]
        self.address = f"http://{services.network.outside.rpartition('.')[0]}.{HEAD}:8265"
        self._head_ip = self.address[7:].partition(":")[0]
        asked = self._ray["headGroupSpec"]["rayStartParams"]
        self.head = self._pod(HEAD, asked, "--head", "--port=6379")
        wait("the head", lambda: code(f"{self.address}/api/jobs/") == 200, 120)
        self.worker = self.start_worker()
        self.submitter = self.submit()

    def start_worker(self) -> Pod:
        asked = self._ray["workerGroupSpecs"][0]["rayStartParams"]
        self.worker = self._pod(WORKER, {**asked, "num-cpus": "2"}, f"--address={self._head_ip}:6379")
        return self.worker

    def submit(self) -> subprocess.Popen[str]:
        line = submit_line(self._job, self._attempt, self.address, {f"{MOUNT}/sweep.yaml": "/tmp/own/sweep.yaml"})
        return subprocess.Popen(
            ["sh", "-c", line], env=environment(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )

    def run(self, command: str) -> str:
        """What a command prints on the head."""
        line = ["ray", "job", "submit", "--address", self.address, "--", *command.split()]
        return subprocess.run(line, env=environment(), capture_output=True, text=True, timeout=120).stdout

    def nodes(self) -> int:
        """Machines that have joined and live."""
        asked = urllib.request.Request(
            f"{self.address}/nodes?view=summary", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        with urllib.request.urlopen(asked, timeout=10) as answer:
            listed = json.load(answer)["data"]["summary"]
        return sum(node["raylet"]["state"] == "ALIVE" for node in listed)

    def kill(self) -> None:
        self.head.kill()
        self.worker.kill()
        self.submitter.kill()
        self.submitter.communicate()

    def _pod(self, number: int, asked: dict[str, str], *more: str) -> Pod:
        address = f"{self._head_ip.rpartition('.')[0]}.{number}"
        own = [f"--{name}={value}" for name, value in asked.items()]
        fixed = [f"--node-ip-address={address}", "--object-store-memory=100000000", "--block"]
        return self._services.pod(number, "ray", "start", *more, *own, *fixed)


def objects() -> dict[str, float]:
    """What lies in the bucket, and when it was written."""
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket="sweeps")
    return {o["Key"]: o["LastModified"].timestamp() for page in pages for o in page.get("Contents", [])}


def ended() -> int:
    return sum(name.endswith("/result.json") for name in objects())


def under_way(since: float) -> dict[str, float]:
    """Trials that wrote a checkpoint since then, behind their first logged point, and have no result: when they did."""
    found = objects()
    newest: dict[str, float] = {}
    for name, written in found.items():
        trial = name.rpartition("/")[0]
        if "/checkpoint" in name and written > since and f"{trial}/metrics.jsonl" in found:
            newest[trial] = max(written, newest.get(trial, 0.0))
    return {trial: written for trial, written in newest.items() if f"{trial}/result.json" not in found}


def tracked(server: str, sweep_id: str) -> list[tuple[str, dict[str, str]]]:
    """(status, tags) of every run, asked under the Service's name: the server answers to no address."""

    def ask(what: str, name: str, **body: Any) -> Any:
        request = urllib.request.Request(f"{server}/api/2.0/mlflow/{what}", json.dumps(body).encode())
        request.add_header("Host", name)
        request.add_header("Content-Type", "application/json")
        return json.loads(urllib.request.urlopen(request, timeout=20).read())

    with pytest.raises(urllib.error.HTTPError, match="403"):
        ask("experiments/search", server[7:], max_results=1)
    name = "mlflow.sweeps.svc.cluster.local:5000"
    experiments = ask("experiments/search", name, max_results=100)["experiments"]
    wanted = [e["experiment_id"] for e in experiments]
    runs = ask("runs/search", name, experiment_ids=wanted, max_results=1000)["runs"]
    found = [(r["info"]["status"], {t["key"]: t["value"] for t in r["data"]["tags"]}) for r in runs]
    return [(status, tags) for status, tags in found if tags["geosweep.sweep_id"] == sweep_id]


class Kill:
    """What trained when something was killed, shortly before the next checkpoint; `since` as in `under_way`."""

    def __init__(self, kill: Callable[[], None], since: float = 0.0) -> None:
        time.sleep(0.8 * EVERY_S)
        self.at = time.time()
        kill()
        self.trials = {path.rpartition("/")[2] for path in under_way(since)}

    def lost_s(self, folder: folders.SweepFolder) -> list[float]:
        """Of each of them, how much training was lost: what lies between the kill and its last point that is kept."""
        logs = [[p.time / 1000 for p in MetricLog(folder.trial(t) / "metrics.jsonl").points()] for t in self.trials]
        assert logs
        assert all(times[0] < self.at < times[-1] for times in logs), "resumed behind its first step"
        return [self.at - max(at for at in times if at < self.at) for times in logs]


def test_hosts_are_killed_and_the_sweep_loses_nothing(
    services: Services, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RayCluster(services, "hosts-1")
    wait("both hosts", lambda: first.nodes() == 2, 60)
    assert "--root s3://BUCKET/FOLDER" in first.run("geosweep run /tmp/own/sweep.yaml --root /tmp/runs --address auto")
    wait("two trials under way", lambda: len(under_way(0.0)) == 2, 120)
    kills = [Kill(first.worker.kill)]
    first.start_worker()
    before = ended()
    wait("trials end on the new worker", lambda: ended() >= before + 2, 180)
    wait("trials under way again", lambda: bool(under_way(kills[0].at + 2)), 60)
    kills.append(Kill(first.kill, since=kills[0].at + 2))

    second = RayCluster(services, "hosts-2")
    out, _ = second.submitter.communicate(timeout=240)
    assert "confirm stage" in out, out[-3000:]

    monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / "reader"))
    there = folders.find(object_store.near(ROOT), "@last")
    status = results.status(there)
    assert [status.state, status.total.done] == ["done", TRIALS]
    assert seal.verify(there).intact
    told = [line["trial_id"] for line in amendments.lines(there.path / "witness.jsonl")]
    assert sorted(told) == sorted({p.name for p in (there.path / "trials").iterdir()}), "each trial once"
    for kill in kills:
        lost = kill.lost_s(there)
        print(
            f"{len(lost)} trials under way lost {', '.join(f'{s:.1f}' for s in lost)} s, checkpoints every {EVERY_S} s"
        )
        assert max(lost) < 2 * EVERY_S, "one interval, and what an upload takes on a busy machine"
    assert not [name for name in objects() if "checkpoint" in name or name.endswith(("/lock", "/stop"))]

    kept = storage(Path("unused"), services.database)
    for arm in ("sgd", "adamw"):
        study = optuna.load_study(study_name=f"{there.sweep_id}/{arm}", storage=kept)
        assert [t.state.name for t in study.trials] == ["COMPLETE"] * 3

    runs = tracked(services.tracking, there.sweep_id)
    assert sum("mlflow.parentRunId" not in tags for _, tags in runs) == 1
    assert sorted(tags["geosweep.trial_id"] for _, tags in runs if "geosweep.trial_id" in tags) == sorted(told)
    assert {status for status, _ in runs} == {"FINISHED"}

    definition = sweep_file.loads(sweep(0.0))
    alone = runner.open_folder(definition, sweep(0.0), tmp_path / "local", {})
    with alone.hold():
        runner.run(definition, alone, DebugExecutor(), NoTracker())
    mine, plain = (timeless(parquet.trials_table(f)).drop_columns(["sweep_id"]) for f in (there, alone))
    assert mine.equals(plain), "as on one machine that nobody killed"
    second.kill()

    report = services.pod(WORKER, "geosweep", "report", "@last", "--root", ROOT)
    assert report.wait() == 0
    assert f"runs/{there.sweep_id}/report/report.html" in objects()
    listed = boto3.client("s3").list_objects_v2(Bucket="mlflow")["Contents"]
    assert any(o["Key"].endswith("report.html") for o in listed), "artifacts go through the server"
