"""`doctor`: tests the installation."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import typer

from orchestrator.cli.app import ROOT, Exit, Json, Root, app, data, emit
from orchestrator.storage import object_store


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
    return f"{root}/ is writable, {free:.0f} GiB free"


def _torch() -> str:
    import torch

    from orchestrator.storage.processors import usable

    devices = torch.cuda.device_count()
    return f"torch {torch.__version__}, {usable()} CPUs, {devices} CUDA devices"


def _plugins() -> str:
    """What installed distributions offer, each loaded once. Raises PluginError for a name that is already taken."""
    import optim_core
    import trainables
    from optim_core import plugins
    from orchestrator.definition import method, schema

    found = []
    for room in (trainables, optim_core):
        for name, entries in plugins.offered(room.registry.GROUP).items():
            if wrong := room.conflict(name):
                raise plugins.PluginError(wrong)
            room.lookup(name)
            found.append(f"{name} ({plugins.distribution(entries[0])})")
    for name, entries in plugins.offered(schema.SAMPLERS).items():
        if wrong := method.conflict(name):
            raise plugins.PluginError(wrong)
        method.load(name)
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
    """Test the installation: versions, storage, torch, a Ray cluster, an MLflow store. Exit code 6 if a check fails.

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
