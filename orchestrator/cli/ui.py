"""`ui`: the MLflow UI for the store in use."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from contextlib import suppress
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.app import ROOT, SWEEP, Exit, Root, app, fail, named, say, talk

if TYPE_CHECKING:
    from orchestrator.definition.resolved import Resolved
    from orchestrator.storage.folder import SweepFolder

FIRST_PORT, PORTS, START_S = 5000, 50, 120.0


@app.command()
def ui(
    sweep: Annotated[
        str, typer.Argument(help=f"{SWEEP[:-1]}; default: @last.", show_default=False, callback=named)
    ] = "",
    where: Annotated[
        str, typer.Option(help="Show only matching runs, params.rotation = 'output'.", show_default=False)
    ] = "",
    root: Root = ROOT,
    port: Annotated[
        int,
        typer.Option(
            min=0, max=65535, help="Port on this machine; default: the first free one from 5000.", show_default=False
        ),
    ] = 0,
    uri: Annotated[str, typer.Option(help="Another tracking URI.")] = "",
    browser: Annotated[bool, typer.Option(help="Open a browser if there is one.")] = True,
) -> None:
    """Open MLflow where it compares the sweep's arms. Ctrl-C ends it.

    Example: geosweep ui @last
    """
    from orchestrator.definition.passwords import bare, whole
    from orchestrator.definition.resolved import Resolved
    from orchestrator.storage import folder
    from orchestrator.storage.errors import NotFound
    from orchestrator.tracking.embedded import artifacts_of, embedded_uri, make_store

    resolved = Resolved()
    try:
        found = folder.find(root, sweep or "@last")
        resolved = found.resolved()
    except NotFound:
        if sweep:
            raise
    if sweep and resolved.imported:
        see = found.command("report", resolved.sweep_id)
        fail(f"{resolved.sweep_id} was imported and has no MLflow runs; see: {see}", Exit.USAGE)
    uri = whole(uri or resolved.tracking or "")
    if not uri and not (root / "mlflow.db").exists():
        fail(f"no MLflow store in {root}/; run a sweep first, or name its tracking server with --uri", Exit.NOT_FOUND)
    if not uri:
        make_store(root)
    try:
        page = _page(uri or embedded_uri(root), resolved, where)
    except ConnectionError as error:
        fail(f"MLflow does not answer ({error})", Exit.UNREACHABLE)
    if page:
        _tell_verdict(folder.SweepFolder(root, resolved.sweep_id))
    if uri.startswith(("http://", "https://")):
        _open(f"{bare(uri).rstrip('/')}/{page}", browser)
        return
    chosen = _port(port)
    command = [sys.executable, "-m", "mlflow", "server"]
    command += ["--default-artifact-root", artifacts_of(root), "--host", "127.0.0.1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["MLFLOW_BACKEND_STORE_URI"] = uri or embedded_uri(root)  # may hold a password, which `ps` would show
    environment["PYTHONSAFEPATH"] = "1"  # a `mlflow` or `fastapi.py` of the current folder is not meant
    server = subprocess.Popen([*command, "--port", str(chosen), "--workers", "1"], env=environment)
    try:
        if _answers(f"http://127.0.0.1:{chosen}/health", server):
            _open(f"http://127.0.0.1:{chosen}/{page}", browser)
            talk.print("Ctrl-C ends it", highlight=False)
        raise typer.Exit(server.wait())
    finally:
        if server.poll() is None:
            server.terminate()
            with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                server.wait(20)


def _page(uri: str, resolved: Resolved, where: str) -> str:
    """The page of the sweep; MLflow's home page if it does not have the sweep."""
    if not resolved.definition:
        return ""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    from orchestrator.definition.states import Goal
    from orchestrator.tracking.mlflow_report import shown_at

    definition = resolved.definition
    searched = [p["name"] for arm in definition["arms"].values() for p in arm["parameters"] if p["kind"] != "constant"]
    return shown_at(
        uri,
        definition["name"],
        sweep_id=resolved.sweep_id,
        reported=resolved.report_metric,
        tuned=definition["metric"]["name"],
        maximize=definition["metric"]["goal"] == Goal.MAXIMIZE,
        parameters=tuple(dict.fromkeys(searched)),
        where=where,
    )


def _tell_verdict(of: SweepFolder) -> None:
    """Have the parent run of a finished sweep show the verdict, unless it already does."""
    from orchestrator.cli.reconcile import renewed
    from orchestrator.compare import told

    with suppress(Exception):  # reported below, should MLflow not answer
        renewed(of)
    if trouble := told.tell(of):
        say(f"the verdict was not logged to MLflow ({trouble})", "yellow")


def _port(asked: int) -> int:
    """A free port: the requested one, or the first from FIRST_PORT."""
    for port in [asked] if asked else range(FIRST_PORT, FIRST_PORT + PORTS):
        with socket.socket() as probe, suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            if not asked and port != FIRST_PORT:
                talk.print(f"port {FIRST_PORT} is taken; using {port}", highlight=False)
            return port
    fail(f"port {asked or FIRST_PORT} is taken; omit --port to use a free one", Exit.USAGE)


def _answers(address: str, server: subprocess.Popen[bytes]) -> bool:
    """Whether the server came up; waits for it."""
    deadline = time.monotonic() + START_S
    while server.poll() is None and time.monotonic() < deadline:
        with suppress(OSError), urllib.request.urlopen(address, timeout=2):
            return True
        time.sleep(0.2)
    return False


def _open(address: str, browser: bool) -> None:
    """Print the address on one line, and open it if there is a desktop."""
    talk.print(address, highlight=False, markup=False, soft_wrap=True)
    desktop = sys.platform in ("darwin", "win32") or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if browser and desktop:
        with suppress(webbrowser.Error):
            webbrowser.open(address)
