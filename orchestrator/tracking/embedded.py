"""The MLflow store inside the root folder: an SQLite file and a folder of artifacts, without any service."""

from __future__ import annotations

import hashlib
import logging
import os
import sqlite3
import time
from contextlib import closing, suppress
from functools import cache
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from filelock import FileLock

from trainables import machine_cache

ARTIFACTS = "mlartifacts"


def artifacts_of(root: Path) -> str:
    """The URI of the store's artifacts."""
    return (root / ARTIFACTS).resolve().as_uri()


def embedded_uri(root: Path) -> str:
    """The tracking URI of the store inside the root folder."""
    return f"sqlite:///{(root / 'mlflow.db').resolve()}"


def make_store(root: Path) -> None:
    """Create the embedded store completely or not at all: concurrent first starts create one, renamed into place last.

    In a root that was moved or copied, artifacts are read and written at the current location.
    """
    store = root / "mlflow.db"
    if not os.access(root, os.W_OK):
        return
    with FileLock(root / "mlflow.lock"):
        if store.exists():
            _follow(root, store)
            return
        for torn in root.glob(".mlflow-*.db*"):  # left by a killed process
            torn.unlink()
        temporary = root / f".mlflow-{os.getpid()}.db"
        temporary.write_bytes(new_store())
        _settle(root, temporary)
        temporary.replace(store)


@cache
def new_store() -> bytes:
    """The file of an empty store as created by MLflow, which takes half a second.

    It is cached for this process, and on this machine per MLflow version, with its digest in the file name; a file that
    does not match its digest, or cannot be written, is created again.
    """
    try:
        place, name = machine_cache.folder(), f"mlflow-{version('mlflow')}-"
        for path in place.glob(f"{name}*.db"):
            if path.name == f"{name}{_digest(found := path.read_bytes())}.db":
                return found
    except (OSError, RuntimeError):  # no such folder, or not readable
        place = None
    made = _made_store()
    with suppress(OSError):
        if place is not None:
            place.mkdir(parents=True, exist_ok=True)
            temporary = place / f".{name}{os.getpid()}"
            temporary.write_bytes(made)
            temporary.replace(place / f"{name}{_digest(made)}.db")
    return made


def _made_store() -> bytes:
    from mlflow.tracking import MlflowClient

    with TemporaryDirectory(prefix="gs-store-") as place:
        store = Path(place) / "mlflow.db"
        MlflowClient(f"sqlite:///{store}").search_experiments(max_results=1)
        return store.read_bytes()


def _digest(store: bytes) -> str:
    return hashlib.sha256(store).hexdigest()[:16]


def _settle(root: Path, store: Path) -> None:
    """Set location and time of MLflow's default experiment, which are those of the store's creation."""
    now = int(1000 * time.time())
    with closing(sqlite3.connect(store)) as database, database:
        database.execute(
            "UPDATE experiments SET artifact_location = ?, creation_time = ?, last_update_time = ?",
            (artifacts_of(root), now, now),
        )


def _follow(root: Path, store: Path) -> None:
    """MLflow stores absolute artifact URIs: update those of this store to its current folder."""
    here = artifacts_of(root)
    with closing(sqlite3.connect(store, timeout=60)) as database, database:
        places = {place for (place,) in database.execute("SELECT artifact_location FROM experiments")}
        for place in places:
            old = str(place).removesuffix("/")
            if not old.endswith(f"/{ARTIFACTS}") or old == here:
                continue
            for table, column in (("experiments", "artifact_location"), ("runs", "artifact_uri")):
                database.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) WHERE {column} = ? OR {column} LIKE ?",
                    (here, len(old) + 1, old, f"{old}/%"),
                )


def probe(place: Path) -> str:
    """Create a store in `place`, write a run and read it back. For `geosweep doctor`."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(embedded_uri(place))
    run = client.create_run(client.create_experiment("probe"))
    client.log_metric(run.info.run_id, "loss/train", 0.5)
    return f"an embedded store kept loss/train = {client.get_run(run.info.run_id).data.metrics['loss/train']}"
