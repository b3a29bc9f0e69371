"""What a tracking server answers that takes nothing is said while the sweep runs: once, with what to do about it."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from orchestrator import launch
from orchestrator.definition import sweep_file
from orchestrator.definition.states import SweepState
from orchestrator.tracking import mlflow_answers
from tests.orchestrator.sweep_files import sweep_text
from tests.services import free_port, serving


class Refusing(BaseHTTPRequestHandler):
    """Gives every request the server's `answer`: a status and a body."""

    answer = (401, "")

    def do_GET(self) -> None:
        code, body = self.answer
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    do_POST = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture
def refusing(monkeypatch: pytest.MonkeyPatch) -> Iterator[HTTPServer]:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with serving(HTTPServer(("127.0.0.1", 0), type("Handler", (Refusing,), {}))) as http:
        yield http


@pytest.mark.parametrize(("code", "body", "expected"), [
    (401, "no", "answered 401 (Unauthorized): set MLFLOW_TRACKING_USERNAME"),
    (403, "<html>no</html>", "answered 403 (Forbidden): this user may not write there"),
    (404, "", "answered 404 (Not Found): check that it is the address of an MLflow server"),
    (500, "<html>oops</html>", "answered 500 (Internal Server Error): the server has a fault of its own"),
    (503, "", "answered 503 (Service Unavailable): the server has a fault of its own"),
    (599, "", "answered 599: the server has a fault of its own"),
    (200, "<!doctype html><html>log in</html>", "answered with a page instead of JSON: check that it is the address"),
    (400, '{"error_code": "BAD_REQUEST", "message": "a\\nb"}', "answered BAD_REQUEST: a"),
    (0, "", "does not answer: check the address"),
])  # fmt: skip
def test_each_answer_has_its_way_out(refusing: HTTPServer, code: int, body: str, expected: str) -> None:
    refusing.RequestHandlerClass.answer = (code, body)  # type: ignore[attr-defined]
    place = f"127.0.0.1:{refusing.server_port if code else free_port()}"
    with pytest.raises(MlflowException) as caught:
        MlflowClient(f"http://me:secret@{place}").get_experiment_by_name("fit")
    said = mlflow_answers.words(f"http://me:secret@{place}", caught.value)
    assert said.startswith(f"MLflow (http://{place}) {expected}")
    assert "secret" not in said
    assert "\n" not in said


class Patient:
    """A callback that holds each trial's end up until something was said, as a longer trial would."""

    def __init__(self, said: list[str]) -> None:
        self._said = said

    def on_start(self, *_: Any) -> None:
        """Nothing."""

    on_report = on_recover = on_start

    def on_end(self, *_: Any) -> None:
        deadline = time.monotonic() + 60
        while not any("MLflow" in line for line in self._said) and time.monotonic() < deadline:
            time.sleep(0.01)


def test_a_sweep_goes_on_and_says_it_once(refusing: HTTPServer, tmp_path: Path) -> None:
    text = sweep_text(method="random", trials=2, confirm=1, per_trial=8)
    said: list[str] = []
    warned: list[str] = []

    def say(line: str, *, warns: bool = False) -> None:
        (warned if warns else said).append(line)

    uri = f"http://me:secret@127.0.0.1:{refusing.server_port}"
    options = launch.Options(executor="debug", tracking_uri=uri, steps=False)
    ended = launch.launch(
        sweep_file.loads(text, "s.yaml"), text, tmp_path, options, say=say, callbacks=(Patient(warned),)
    )
    assert ended.state is SweepState.DONE
    live, last = warned
    assert re.search(r"answered 401 \(Unauthorized\): set .*\. The sweep goes on and nothing is lost", live)
    assert live.endswith(f": geosweep reconcile {ended.folder.sweep_id} --root {tmp_path}")
    assert last.startswith("not everything was logged to MLflow")
    assert "secret" not in " ".join((*warned, *said))
