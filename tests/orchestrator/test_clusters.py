"""Every cluster keeps its contract, its client against a server over HTTP; listing one here is all that it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition.states import AttemptState
from orchestrator.executors.job_api import RayCluster
from orchestrator.kubernetes.cluster import KubernetesCluster
from tests import services
from tests.contracts import cluster_contract as contract
from tests.kubernetes import api_server

CHECKS = [check for name, check in vars(contract).items() if name.startswith("check_")]
NAMES = {AttemptState.RUNNING: "RUNNING", AttemptState.DONE: "SUCCEEDED", AttemptState.FAILED: "FAILED"}


class KubernetesWorld:
    """An API server and an operator."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self._server, self._ends, self._folder = api_server.ApiServer(), ends, folder
        self._address = ends.enter_context(api_server.serving(self._server))

    @property
    def cluster(self) -> KubernetesCluster:
        self._server.kubeconfig(self._folder / "kubeconfig", self._address)
        return KubernetesCluster(namespace="sweeps")

    def becomes(self, state: AttemptState, log: str = "") -> None:
        over = {AttemptState.RUNNING: "Running", AttemptState.DONE: "Complete", AttemptState.FAILED: "Failed"}[state]
        self._server.job(jobDeploymentStatus=over, jobStatus=NAMES[state])
        labels = {"geosweep.io/sweep": contract.SWEEP, "app.kubernetes.io/component": "sweep-submitter"}
        self._server.pod("submitter", log, phase="Running" if state is AttemptState.RUNNING else "Succeeded", **labels)

    def goes_away(self) -> None:
        self._ends.close()


class RayWorld:
    """A dashboard, and the jobs of its cluster."""

    def __init__(self, folder: Path, ends: ExitStack) -> None:
        self._jobs: list[dict[str, Any]] = []
        self._logs: dict[str, str] = {}
        self._ends = ends
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._address = f"http://127.0.0.1:{ends.enter_context(services.serving(server)).server_port}"

    @property
    def cluster(self) -> RayCluster:
        return RayCluster(self._address)

    def becomes(self, state: AttemptState, log: str = "") -> None:
        self._jobs[-1]["status"] = NAMES[state]
        self._logs[self._jobs[-1]["submission_id"]] = log

    def goes_away(self) -> None:
        self._ends.close()

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        parts = path.strip("/").split("/")
        if parts[1] == "version":
            return 200, {"ray_version": "2.60.0", "version": "4"}
        if parts[1] == "packages":
            return 200, {}
        if method == "POST" and len(parts) == 2:
            asked = json.loads(body)
            kept = {key: asked[key] for key in ("entrypoint", "submission_id", "metadata")}
            job = {"type": "SUBMISSION", "job_id": None, "status": "PENDING", "start_time": len(self._jobs), **kept}
            self._jobs.append(job)
            return 200, {"job_id": None, "submission_id": job["submission_id"]}
        if len(parts) == 2:
            return 200, self._jobs
        job = next(one for one in self._jobs if one["submission_id"] == parts[2])
        if parts[3:] == ["stop"]:
            job["status"] = "STOPPED"
            return 200, {"stopped": True}
        return 200, {"logs": self._logs.get(parts[2], "")} if parts[3:] == ["logs"] else job

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        world = self

        class Handler(BaseHTTPRequestHandler):
            def respond(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                code, found = world.answer(self.command, self.path, body)
                content = json.dumps(found).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_POST = do_PUT = do_DELETE = respond

            def log_message(self, *_: Any) -> None:
                return

        return Handler


CLUSTERS = [pytest.param(KubernetesWorld, id="kubernetes"), pytest.param(RayWorld, id="ray")]


@pytest.fixture
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[contract.World]:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    with ExitStack() as ends:
        yield request.param(tmp_path, ends)


@pytest.mark.slow
@pytest.mark.parametrize("world", CLUSTERS, indirect=True)
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__.removeprefix("check_"))
def test_a_cluster_keeps_the_contract(world: contract.World, check: Callable[[contract.World], None]) -> None:
    check(world)
