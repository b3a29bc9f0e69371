"""`ui` and `doctor`: the page over the store, and the test of the set-up."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.app import ROOT, Exit, Json, Root, app, data, emit, fail, talk
from orchestrator.storage import object_store


@app.command()
def ui(
    root: Root = ROOT,
    port: Annotated[int, typer.Option(help="Port of the page on this machine.")] = 5000,
    uri: Annotated[str, typer.Option(help="Another tracking URI.")] = "",
) -> None:
    """Open MLflow's page over the store in use. Ctrl-C ends it.

    Example: geosweep ui --port 5001
    """
    from orchestrator.tracking.embedded import artifacts_of, embedded_uri, make_store

    if not uri and not (root / "mlflow.db").exists():
        fail(f"no MLflow store in {root}/; run a sweep first, or name its tracking server with --uri", Exit.NOT_FOUND)
    if not uri:
        make_store(root)
    talk.print(f"http://127.0.0.1:{port}  (Ctrl-C ends it)", highlight=False)
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", uri or embedded_uri(root)]
    command += ["--default-artifact-root", artifacts_of(root), "--host", "127.0.0.1"]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    raise typer.Exit(subprocess.call([*command, "--port", str(port), "--workers", "1"], env=environment))


def _versions() -> str:
    names = ("geosweep", "ray", "optuna", "mlflow", "torch", "pyarrow")
    return ", ".join(f"{n} {importlib.metadata.version(n)}" for n in names)


def _storage(root: Path) -> str:
    if uri := object_store.far(root):
        return object_store.probe(uri)
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=root) as probe:
        probe.write(b"x" * 4096)
        probe.flush()
        os.fsync(probe.fileno())
    free = shutil.disk_usage(root).free / 2**30
    if free < 1:
        raise OSError(f"{root}/ has {free:.1f} GiB free; a sweep needs 1 GiB or more")
    return f"{root}/ can be written, {free:.0f} GiB free"


def _torch() -> str:
    import torch

    from orchestrator.storage.processors import usable

    devices = torch.cuda.device_count()
    return f"torch {torch.__version__}, {usable()} CPUs, {devices} CUDA devices"


def _plugins() -> str:
    """What installed distributions offer, each loaded once. Raises PluginError for a name that is taken."""
    import optim_core
    import trainables
    from optim_core import plugins

    found = []
    for room in (trainables, optim_core):
        for name, entries in plugins.offered(room.registry.GROUP).items():
            if wrong := room.conflict(name):
                raise plugins.PluginError(wrong)
            room.lookup(name)
            found.append(f"{name} ({plugins.distribution(entries[0])})")
    return ", ".join(found) or "none installed"


def _ray() -> str:
    from orchestrator.executors import ray

    return ray.probe()


def _mlflow() -> str:
    from orchestrator.tracking import embedded

    with tempfile.TemporaryDirectory() as place:
        return embedded.probe(Path(place))


@app.command()
def doctor(root: Root = ROOT, as_json: Json = False) -> None:
    """Test the set-up: versions, storage, torch, a Ray cluster, an MLflow store. Exit code 6 when a check fails.

    Example: geosweep doctor
    """
    checks: dict[str, Callable[[], str]] = {
        "versions": _versions,
        "storage": lambda: _storage(root),
        "torch": _torch,
        "plugins": _plugins,
        "mlflow": _mlflow,
        "ray": _ray,
    }
    rows = {}
    for name, check in checks.items():
        try:
            rows[name] = {"ok": True, "says": check()}
        except Exception as error:
            rows[name] = {"ok": False, "says": f"{type(error).__name__}: {error}"}
        if not as_json:
            mark = "ok  " if rows[name]["ok"] else "FAIL"
            data.print(f"{mark} {name}: {rows[name]['says']}", highlight=False, markup=False)
    good = all(row["ok"] for row in rows.values())
    if as_json:
        emit({"schema": "geosweep/doctor/1", "ok": good, "checks": rows})
    if not good:
        raise typer.Exit(int(Exit.CHECK_FAILED))
