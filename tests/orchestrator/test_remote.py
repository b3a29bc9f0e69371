"""Where a sweep goes and with which token; nothing in the shell sends it elsewhere. Over HTTP a dashboard is played."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition.states import AttemptState
from orchestrator.executors.job_api import RayCluster
from orchestrator.remote import Attempt, pick, token
from orchestrator.storage.errors import NotFound, Unreachable
from tests.services import serving
from tests.verbs import called

TOKEN = "the-token"
QUICKSTART = Path(__file__).parents[2] / "sweeps" / "quickstart.yaml"


def job(identity: str, status: str, start: int, **more: Any) -> dict[str, Any]:
    name, _, digest = identity.rpartition(".")[0].rpartition("-")
    found = {
        "type": "SUBMISSION",
        "job_id": None,
        "submission_id": identity,
        "status": status,
        "entrypoint": "geosweep",
    }
    return {**found, "metadata": {"sweep": name, "definition": digest}, "start_time": start, **more}


JOBS = [
    job("b-00000002.1", "RUNNING", 30),
    job("a-00000001.2", "SUCCEEDED", 20),
    job("a-00000001.1", "FAILED", 10, message="Job entrypoint command failed with exit code 8, last available logs: x"),
    job("c-00000003.1", "SUCCEEDED", 5),
    job("another", "RUNNING", 40, metadata={"owner": "somebody else"}),
]


@pytest.fixture
def dashboard() -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
            answers = {"version": {"ray_version": "2.60.0", "version": "4"}, "logs": {"logs": "a driver of old\n"}}
            found = answers.get(self.path.rpartition("/")[2], JOBS)
            content = json.dumps(found).encode() if allowed else b"Forbidden"
            lost = self.path.endswith("c-00000003.1/logs")  # the node that held it is gone
            self.send_response(500 if lost else 200 if allowed else 403)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            return

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as http:
        yield f"http://127.0.0.1:{http.server_port}"


def test_the_address_wins_over_the_shell(dashboard: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    cluster = RayCluster(dashboard, TOKEN)
    newest = cluster.status("@last")
    assert newest == Attempt(job="b-00000002.1", sweep_id="b-00000002", state=AttemptState.RUNNING)
    assert cluster.status("a") == Attempt(job="a-00000001.2", sweep_id="a-00000001", state=AttemptState.DONE)
    assert cluster.stop("a") is None
    with pytest.raises(Unreachable, match="rejects the token"):
        RayCluster(dashboard, "wrong")
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9"):
        RayCluster("http://127.0.0.1:9")


def test_reasons_leave_out_the_log(dashboard: str) -> None:
    attempts = RayCluster(dashboard, TOKEN)._attempts()
    assert [a.job for a in attempts] == ["c-00000003.1", "a-00000001.1", "a-00000001.2", "b-00000002.1"]
    assert attempts[1].reason == "Job entrypoint command failed with exit code 8"


def test_a_log_that_is_lost_hides_no_state(dashboard: str) -> None:
    cluster = RayCluster(dashboard, TOKEN)
    assert cluster.status("c") == Attempt(job="c-00000003.1", sweep_id="c-00000003", state=AttemptState.DONE)
    with pytest.raises(NotFound, match="geosweep logs c-00000003 --driver --root"):
        cluster.logs("c")


def test_picked_by_prefix() -> None:
    made = [Attempt(job=f"j{n}", sweep_id=i, state=AttemptState.DONE) for n, i in enumerate(["a-1", "ab-2", "a-1"])]
    assert pick(made, "a-1", "x").job == "j2"
    assert pick(made, "@last", "x").job == "j2"
    with pytest.raises(NotFound, match="2 sweeps"):
        pick(made, "a", "x")
    with pytest.raises(NotFound, match="ab-2"):
        pick(made, "c", "x")
    with pytest.raises(NotFound, match="names no sweep"):
        pick(made[:1], "", "x")
    with pytest.raises(NotFound, match="geosweep submit"):
        pick([], "@last", "x")


@pytest.mark.parametrize("address", ["auto", "ray://host:10001", "host:8265", "http://", "k8", ""])
def test_other_addresses_are_refused(
    address: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    refused = called(monkeypatch, capfd, "submit", str(QUICKSTART), "--address", address)
    assert (refused.code, "http://HOST:8265" in refused.err) == (2, True)


def test_token_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert token() == ""
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("of-home\n")
    assert token() == "of-home"
    (tmp_path / "file").write_text("of-file\n")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "file"))
    assert token() == "of-file"
    monkeypatch.setenv("RAY_AUTH_TOKEN", "of-variable")
    assert token() == "of-variable"
    monkeypatch.delenv("RAY_AUTH_TOKEN")
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(ValueError, match="RAY_AUTH_TOKEN_PATH"):
        token()
