"""The few paths of a Kubernetes API server that our verbs ask, over HTTP: for the real client to talk to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from tests import services

KEY = "a-bearer-token-of-this-test"
JOBS = "/apis/ray.io/v1/namespaces/sweeps/rayjobs"
MAPS, PODS = "/api/v1/namespaces/sweeps/configmaps", "/api/v1/namespaces/sweeps/pods"
CLUSTERS, EVENTS = "/apis/ray.io/v1/namespaces/sweeps/rayclusters", "/api/v1/namespaces/sweeps/events"
READERS = "/apis/batch/v1/namespaces/sweeps/jobs"
WORKLOADS = "/apis/kueue.x-k8s.io/v1beta2/namespaces/sweeps/workloads"


class ApiServer:
    """Holds objects by path and name, as a server without any operator would."""

    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {
            place: {} for place in (JOBS, MAPS, PODS, CLUSTERS, EVENTS, WORKLOADS, READERS)
        }
        self.forbidden: set[str] = set()
        """Places that this account may not look at."""
        self.logs: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.play: Callable[[dict[str, Any]], None] = lambda made: None
        """What controllers and kubelet do of a Job that was made."""
        self.hook: Callable[[dict[str, Any]], str] = lambda made: ""
        """What an admission webhook has against an object; it may change it."""
        self.refuse: tuple[int, str] | None = None
        self.lingers = False
        """Whether what is deleted stays, marked, until `finalize`."""
        self.clock = 0

    def kubeconfig(self, path: Path, address: str, token: str = KEY) -> Path:
        named = {"cluster": "c", "user": "u"}
        path.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [{"name": "c", "cluster": {"server": address}}],
                    "users": [{"name": "u", "user": {"token": token}}],
                    "contexts": [{"name": "here", "context": named}],
                    "current-context": "here",
                }
            )
        )
        return path

    def job(self, **status: Any) -> None:
        """Set the status of the only RayJob, as the operator would."""
        (job,) = self.objects[JOBS].values()
        job["status"] = status

    def pod(self, name: str, log: str, phase: str = "Succeeded", **labels: str) -> None:
        self.clock += 1
        metadata = {
            "name": name,
            "namespace": "sweeps",
            "labels": labels,
            "creationTimestamp": f"2026-01-01T00:00:{self.clock:02d}Z",
        }
        self.objects[PODS][name] = {"metadata": metadata, "spec": {"containers": []}, "status": {"phase": phase}}
        self.logs[name] = log

    def finalize(self) -> None:
        """The operator lets go of what is being deleted."""
        self.lingers = False
        for held in self.objects.values():
            for name in [n for n, o in held.items() if "deletionTimestamp" in o["metadata"]]:
                del held[name]

    def answer(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        parts = urlsplit(path)
        query = {k: v[0] for k, v in parse_qs(parts.query).items()}
        self.asked.append((method, parts.path))
        if self.refuse:
            return self.refuse[0], status(*self.refuse)
        if parts.path.endswith("/log"):
            pod = parts.path.split("/")[-2]
            if pod not in self.logs:
                return 400, status(400, "container is waiting to start: ContainerCreating")
            return 200, self.logs[pod]
        folder, name = (parts.path, "") if parts.path in self.objects else parts.path.rsplit("/", 1)
        if folder not in self.objects:
            return 404, status(404, "the server could not find the requested resource")
        held = self.objects[folder]
        if folder in self.forbidden:
            return 403, status(403, f"User cannot list {folder.rsplit('/', 1)[1]}")
        if method == "GET" and name and name in held:
            return 200, held[name]
        if method == "GET" and not name:
            chosen = dict(part.split("=") for part in query.get("labelSelector", "").split(",") if part)
            found = [o for o in held.values() if chosen.items() <= o["metadata"].get("labels", {}).items()]
            return 200, {"apiVersion": "v1", "kind": "List", "metadata": {}, "items": found}
        if method == "POST" and self.hook(body):
            return 403, status(403, f'admission webhook "v.kb.io" denied the request: {self.hook(body)}')
        if method == "POST":
            name = body["metadata"]["name"]
            if name in held:
                return 409, status(409, f"{name} already exists")
            if query.get("dryRun") != "All":
                self.clock += 1
                body["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{self.clock:02d}Z"
                body["metadata"]["uid"] = f"uid-{self.clock}"
                held[name] = body
                if folder == READERS:
                    self.play(body)
            return 201, body
        if method == "PATCH" and name in held:
            held[name]["metadata"] |= body["metadata"]
            return 200, held[name]
        if method == "DELETE" and name in held:
            if folder == READERS:
                return 200, held.pop(name)
            if not self.lingers:
                self.objects[PODS].clear()  # of the tests' only sweep: the garbage collector takes what a job owns
                return 200, held.pop(name)
            held[name]["metadata"]["deletionTimestamp"] = "2026-01-01T01:00:00Z"
            return 200, held[name]
        return 404, status(404, f"{name} not found")


def status(code: int, message: str) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code}


@contextmanager
def serving(server: ApiServer) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            if self.headers.get("Authorization") != f"Bearer {KEY}":
                code, found = 401, status(401, "Unauthorized")
            else:
                code, found = server.answer(self.command, self.path, body)
            content = (found if isinstance(found, str) else json.dumps(found)).encode()
            self.send_response(code)
            self.send_header("Content-Type", "text/plain" if isinstance(found, str) else "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = respond

        def log_message(self, *_: Any) -> None:
            return

    with services.serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as http:
        yield f"http://127.0.0.1:{http.server_port}"
