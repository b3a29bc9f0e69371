"""Passwords in addresses: nothing that is written or sent holds one, and the environment makes an address whole."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from orchestrator.definition.model import sweep_id
from orchestrator.definition.overrides import without_secrets
from orchestrator.definition.passwords import PasswordNeeded, bare, kept, whole, without_passwords
from orchestrator.definition.sweep_file import loads
from orchestrator.storage.folder import find
from orchestrator.travel.secrets import found_in
from tests.orchestrator.sweep_files import sweep_text
from tests.services import serving

SECRET = "s3cret-Word"


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TRACKING_URI", "TRACKING_USERNAME", "TRACKING_PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_{name}", raising=False)


@pytest.mark.parametrize(
    "address, stored",
    [
        (f"http://me:{SECRET}@h:5000/x", "http://***@h:5000/x"),
        (f"https://{SECRET}@h", "https://***@h"),
        (f"https://me:{SECRET}@with@h/x", "https://***@h/x"),
        (f"http://me:{SECRET}${{env:PW}}@h", "http://***@h"),
        (f"postgresql+psycopg://me:{SECRET}/@h/db", "postgresql+psycopg://me:***@h/db"),
        (f"mysql://me@h/db?ssl=1&password={SECRET}", "mysql://me@h/db?ssl=1&password=***"),
        (f"https://h/mlflow?access_token={SECRET}", "https://h/mlflow?access_token=***"),
        *(
            (plain, plain)
            for plain in (
                "http://h:5000/a@b", "sqlite:///runs/mlflow.db", "postgresql://me@h/db", "databricks", "mlruns",
                "http://me:${env:PW}@h", "https://${env:TOKEN}@h", "${env:MLFLOW}", "http://h/?token=${env:TOKEN}",
            )
        ),
    ],
)  # fmt: skip
def test_what_is_stored_and_shown_of_an_address(address: str, stored: str) -> None:
    assert kept(address) == stored
    assert kept(stored) == stored
    assert SECRET not in without_passwords(f"API request to {address} failed")


def test_an_address_becomes_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PW", "p@ss/word")
    assert whole("postgresql://me:${env:PW}@h/db") == "postgresql://me:p%40ss%2Fword@h/db"
    assert whole("http://h:5000") == "http://h:5000"
    assert whole("http://***@h:5000") == "http://h:5000", "MLflow reads MLFLOW_TRACKING_USERNAME and _PASSWORD itself"
    assert whole("postgresql://me:***@h/db") == "postgresql://me@h/db", "libpq reads PGPASSWORD itself"
    with pytest.raises(PasswordNeeded, match=r"mysql://\*\*\*@h/db is not kept; set MLFLOW_TRACKING_URI to all of it"):
        whole("mysql://me:***@h/db")
    with pytest.raises(PasswordNeeded, match=r"tracking\.mlflow: the environment variable NOT_SET is not set"):
        whole("http://me:${env:NOT_SET}@h")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"mysql://me:{SECRET}@h/db")
    assert whole("mysql://me:***@h/db") == f"mysql://me:{SECRET}@h/db"
    assert whole("http://***@h:5000") == "http://h:5000", "that of another server is left alone"
    assert bare(f"http://me:{SECRET}@h/x") == "http://h/x"


class Server(ThreadingHTTPServer):
    """An MLflow that knows nothing; keeps who asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked = set[str]()
        self.host = f"127.0.0.1:{self.server_address[1]}"

    def heard(self) -> set[str]:
        """Names and passwords since the last call."""
        found, self.asked = self.asked, set()
        return found


class Handler(BaseHTTPRequestHandler):
    """One question."""

    def do_GET(self) -> None:
        assert isinstance(self.server, Server)
        who = self.headers.get("Authorization", "Basic ").removeprefix("Basic ")
        self.server.asked.add(base64.b64decode(who).decode())
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(404)
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *words: Any) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(Server()) as made:
        yield made


@pytest.mark.slow
def test_a_sweep_keeps_no_password_and_goes_on(
    call: Any, tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    uri, plain = f"http://me:{SECRET}@{server.host}", sweep_text(trials=1, confirm=2, method="random", per_trial=8)
    text = f"# {uri}, as always\n{plain}tracking:\n  mlflow: {uri}  # {uri}\nnotify: {{done: 'http://127.0.0.1:9/{SECRET}'}}\n"
    file = tmp_path / "fit.yaml"
    file.write_text(text)
    assert sweep_id(loads(text)) == sweep_id(loads(plain))
    said = list[str]()

    def ran(*words: str) -> Any:
        done = call(*words)
        said.append(done.out + done.err)
        return done

    done = ran("run", str(file), "--executor", "debug", "--skip-steps")
    assert done.code == 0, done.err
    assert server.heard() == {f"me:{SECRET}"}
    folder = find(tmp_path / "runs", "@last")
    copy = folder.path / "sweep.yaml"
    assert f'mlflow: "http://***@{server.host}"  # http://***@{server.host}' in copy.read_text()
    assert sweep_id(loads(copy.read_text())) == folder.sweep_id
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "she")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "other")
    assert ran("reconcile").code == 75
    assert server.heard() == {"she:other"}
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert ran("extend", "@last", "--seeds", "+1", "--executor", "debug").code == 0
    assert server.heard() == {f"me:{SECRET}"}
    assert ran("ui", "@last", "--no-browser").code == 75
    hook = f"http://127.0.0.1:9/{SECRET}"
    late = (f"tracking.mlflow={uri}", f"notify.done={hook}", "--notify", hook, "name=late", "budget.wall_clock=0.001s")
    again = ran("run", str(file), *late, "--executor", "debug")
    assert "continue with" in again.err, again.err
    assert server.heard() == {f"me:{SECRET}"}
    for path in (tmp_path / "runs").rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in "".join(said)


def test_a_cluster_gets_no_password(call: Any, tmp_path: Path) -> None:
    text = sweep_text().replace("tests.tasks:Fit", "digits").replace(", pause_s: 0.0, fail_at: -1, fail_seed: -1", "")
    text = text.replace("loss/val, goal: minimize", "accuracy/val, goal: maximize")
    file = tmp_path / "fit.yaml"
    uri = f"http://me:{SECRET}@mlflow:5000"
    for key, section in (
        ("tracking.mlflow", f"tracking: {{mlflow: '{uri}'}}\n"),
        ("notify.failed", f"notify: {{failed: 'https://ntfy.sh/{SECRET}'}}\n"),
    ):
        file.write_text(text + section)
        for words in (
            ("k8s", "render", str(file)),
            ("submit", str(file), "--address", "http://127.0.0.1:1"),
            ("submit", str(file), "--address", "k8s://nowhere"),
        ):
            refused = call(*words)
            assert (refused.code, key in refused.err, "${env:NAME}" in refused.err) == (6, True, True), refused.err
            assert SECRET not in refused.err + refused.out
    file.write_text(f"{text}# {uri}\ntracking: {{mlflow: 'http://me:${{env:PW}}@mlflow:5000'}}\n")
    shown = call("k8s", "render", str(file))
    assert (shown.code, "http://me:${env:PW}@mlflow:5000" in shown.out, SECRET in shown.out) == (0, True, False), (
        shown.err
    )


def test_a_sweep_file_is_sent_along_without_them() -> None:
    text = f"name: a\nnotify: {{done: https://ntfy.sh/{SECRET}}}\ntracking: {{mlflow: 'http://me:{SECRET}@h'}}\n"
    clean = without_secrets(text)
    assert (SECRET in clean, found_in(clean.encode())) == (False, None)
    task = f"task: {{program: train.py, db: 'postgresql://me:{SECRET}@h/db'}}\n"
    assert without_secrets(text + task).endswith(task), "what a sweep is made of stays as it is"
