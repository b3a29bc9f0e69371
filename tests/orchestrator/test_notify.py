"""Messages to a real HTTP server; what goes wrong there harms nothing, and addresses are shown and kept nowhere."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition.model import sweep_id
from orchestrator.definition.states import State
from orchestrator.definition.sweep_file import loads
from orchestrator.storage.folder import find
from orchestrator.tracking.notify import Notifier, message
from orchestrator.trial.job import Report
from orchestrator.trial.record import TrialRecord
from tests.orchestrator.sweep_files import sweep_text
from tests.services import serving
from tests.swept import swept

SECRET = "T0000-B0000-secret"


class Server(ThreadingHTTPServer):
    """Keeps what it is sent; answers as it is told to, 200 when it is not told."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.got: list[tuple[str, dict[str, Any], dict[str, str]]] = []
        self.answers: list[int] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}/{SECRET}"


class Handler(BaseHTTPRequestHandler):
    """One message."""

    def do_POST(self) -> None:
        assert isinstance(self.server, Server)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, body, dict(self.headers)))
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.end_headers()

    def log_message(self, *words: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as made:
        yield made


def run(call: Any, tmp_path: Path, *words: str, tail: str = "", **changes: Any) -> Any:
    file = tmp_path / "fit.yaml"
    given = {"trials": 2, "confirm": 2, "method": "random", "max_failed": 9, **changes}
    file.write_text(sweep_text(per_trial=8, **given) + tail)
    return call("run", str(file), "--executor", "debug", *words)


@pytest.mark.slow
def test_a_sweep_tells_how_it_ended_and_keeps_no_address(call: Any, tmp_path: Path, server: Server) -> None:
    tail = f"notify: {{done: '{server.url}/done', failed: '{server.url}/failed', diverged: '${{env:NOT_SET_HERE}}'}}\n"
    done = run(call, tmp_path, tail=tail, fail_at=3, fail_seed=1001)
    assert done.code == 0, done.err
    assert "notify.diverged: the environment variable NOT_SET_HERE is not set" in done.err
    folder = find(tmp_path / "runs", "@last")
    bodies = {path.rpartition("/")[2]: body for path, body, _ in server.got}
    assert bodies["done"]["event"] == "done"
    assert bodies["done"]["sweep_id"] == folder.sweep_id
    assert bodies["done"]["trials"] == {"done": 6, "pruned": 0, "diverged": 0, "failed": 2}
    assert bodies["done"]["text"].startswith(f"{folder.sweep_id}: done after ")
    failed = [body for path, body, _ in server.got if path.endswith("/failed")]
    assert sorted(trial for body in failed for trial in body["trials"]) == ["adamw-0001-s1001", "sgd-0001-s1001"] or {
        trial.rpartition("-")[2] for body in failed for trial in body["trials"]
    } == {"s1001"}
    assert "RuntimeError: the disk of this test is on fire" in failed[0]["text"]
    for path in (tmp_path / "runs").rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in done.out + done.err
    with_it, without = (loads(sweep_text() + t) for t in (tail, ""))
    assert sweep_id(with_it) == sweep_id(without)
    kept = (folder.path / "sweep.yaml").read_text()
    assert "done: null" in kept
    assert "${env:NOT_SET_HERE}" in kept
    assert sweep_id(loads(kept)) == folder.sweep_id
    assert call("run", str(folder.path / "sweep.yaml"), "--executor", "debug").code == 0


@pytest.mark.parametrize("address", [f"https://[{SECRET}", f"https://u:{SECRET}/x", f"http://127.0.0.1:9/{SECRET} x"])
def test_an_address_that_is_none_ends_no_thread_and_is_not_shown(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.tracking.notify.PAUSE_S", 0.0)
    said = list[str]()
    notifier = Notifier("fit", {"done": address, "failed": address}, stuck_after_s=60.0, say=said.append)
    notifier.end("done", "done")
    notifier.end("failed", "failed")
    notifier.close()
    assert [line.split(" was not sent")[0] for line in said] == ["notify.done", "notify.failed"]
    assert SECRET not in " ".join(said)


@pytest.mark.slow
def test_a_variable_that_holds_no_address_is_said_and_not_shown(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT", f"hooks.slack.com/{SECRET}")
    done = run(call, tmp_path, "--notify", "done=${env:CHAT}", "--no-tracking", trials=1, confirm=1)
    assert "notify.done: its environment variable holds no https://...; nothing will be sent" in done.err
    assert SECRET not in done.err + done.out
    (tmp_path / "fit.yaml").write_text(f"{sweep_text()}notify: {{'https://hooks.slack.com/{SECRET}': done}}\n")
    refused = call("validate", str(tmp_path / "fit.yaml"))
    assert "notify: an address stands where one of done, diverged, failed, stuck should be" in refused.err
    assert SECRET not in refused.err


@pytest.mark.slow
def test_a_server_that_refuses_harms_nothing(
    call: Any, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAT", server.url)
    server.answers = [404]
    done = run(call, tmp_path, "--notify", "done=${env:CHAT}", "--no-tracking", trials=1, confirm=1)
    assert done.code == 0
    assert "notify.done was not sent: 127.0.0.1 answers 404" in done.err
    assert SECRET not in done.err + done.out
    assert len(server.got) == 1


@pytest.mark.slow
def test_nobody_there_harms_nothing(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.tracking.notify.PAUSE_S", 0.01)
    done = run(call, tmp_path, "--notify", "http://127.0.0.1:9/secret", "--no-tracking", trials=1, confirm=1)
    assert done.code == 0
    assert "notify.done was not sent: 127.0.0.1 cannot be reached (Connection refused)" in done.err
    refused = call("run", str(tmp_path / "fit.yaml"), "--notify", "done=secret")
    assert (refused.code, "secret" in refused.err) == (2, False)


def test_a_server_that_stumbles_is_asked_again(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.tracking.notify.PAUSE_S", 0.01)
    server.answers = [503, 429]
    said: list[str] = []
    found = Notifier("fit-1", {"done": server.url.replace("//", "//me:word@")}, stuck_after_s=60, say=said.append)
    found.end("done", "done")
    found.close()
    assert (len(server.got), said) == (3, [])
    assert server.got[-1][2]["Authorization"] == "Basic bWU6d29yZA=="


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> TrialRecord:
    """A trial of a sweep that has ended."""
    text = sweep_text(per_trial=8, trials=1, confirm=1, method="random")
    folder = swept(text, tmp_path_factory.mktemp("runs"))
    found = TrialRecord.read(folder.trial("sgd-0000-s0"))
    assert found is not None
    return found


def test_a_sweep_that_stands_still_is_told_once(record: TrialRecord, server: Server) -> None:
    found = Notifier("fit-1", {"stuck": server.url}, stuck_after_s=0.05, say=print)
    found.on_start(record.job)
    deadline = time.monotonic() + 10
    while not server.got and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)
    found.close()
    [(_, body, _)] = server.got
    assert body["trials"] == [record.trial_id]
    assert "no trial has reported" in body["text"]


def test_a_report_without_progress_is_none(record: TrialRecord, server: Server) -> None:
    """The worker of a silent script reports all the time that it lives."""
    found = Notifier("fit-1", {"stuck": server.url}, stuck_after_s=0.2, say=print)
    found.on_start(record.job)
    deadline = time.monotonic() + 10
    while not server.got and time.monotonic() < deadline:
        seconds = time.monotonic()
        found.on_report(record.job, Report(trial_id=record.trial_id, grad_evals=1.0, metrics={"x": 1}, seconds=seconds))
        time.sleep(0.01)
    found.close()
    assert len(server.got) == 1


def test_a_message_that_cannot_be_sent_keeps_no_other_one_back(
    record: TrialRecord, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is retried at the end while another message waits. A script's trial is counted in its own unit."""
    monkeypatch.setattr("orchestrator.tracking.notify.PAUSE_S", 60.0)
    server.answers, said = [500], list[str]()
    found = Notifier("fit-1", dict.fromkeys(("diverged", "done"), server.url), stuck_after_s=60, say=said.append)
    job, result = replace(record.job, program={"unit": "steps"}), replace(record.result, state=State.DIVERGED)
    found.on_end(job, replace(result, grad_evals=8.0))
    deadline = time.monotonic() + 10
    while not server.got and time.monotonic() < deadline:
        time.sleep(0.01)
    found.end("done", "done")
    found.close()
    assert [body["event"] for _, body, _ in server.got] == ["diverged", "done"]
    assert server.got[0][1]["text"].endswith(" diverged after 8 steps")
    assert said == ["notify.diverged was not sent: 127.0.0.1 answers 500"]


@pytest.mark.parametrize(
    "address, place, keys",
    [
        ("https://hooks.slack.com/services/T/B/x", "https://hooks.slack.com/services/T/B/x", {"text"}),
        ("https://discord.com/api/webhooks/1/x", "https://discord.com/api/webhooks/1/x", {"content"}),
        ("https://ntfy.sh/my-sweeps", "https://ntfy.sh/", {"topic", "title", "message"}),
        (
            "https://ntfy.example.org/a/sweeps?auth=x",
            "https://ntfy.example.org/a/?auth=x",
            {"topic", "title", "message"},
        ),
        ("https://example.org/hook", "https://example.org/hook", {"event", "text"}),
    ],
)
def test_each_host_gets_what_it_takes(address: str, place: str, keys: set[str]) -> None:
    where, body = message(address, {"event": "done", "text": f"fit-1: done, {'x' * 5000}"})
    assert (where, set(body)) == (place, keys)
    assert len(body.get("content", "")) <= 2000
    if "topic" in keys:
        assert (body["topic"] in ("my-sweeps", "sweeps"), body["title"]) == (True, "geosweep fit-1")


def test_a_manifest_holds_no_address(call: Any, tmp_path: Path) -> None:
    text = sweep_text().replace("tests.tasks:Fit", "digits").replace(", pause_s: 0.0, fail_at: -1, fail_seed: -1", "")
    text = text.replace("loss/val, goal: minimize", "accuracy/val, goal: maximize")
    file = tmp_path / "fit.yaml"
    file.write_text(text + f"notify: {{done: 'https://example.org/{SECRET}'}}\n")
    refused = call("k8s", "render", str(file))
    assert (refused.code, SECRET in refused.err + refused.out, "${env:NAME}" in refused.err) == (6, False, True)
    assert call("k8s", "render", str(file), "notify.done=${env:CHAT}").code == 0
