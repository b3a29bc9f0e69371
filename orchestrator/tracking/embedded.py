"""The MLflow store inside the root folder: one SQLite file and a folder of artifacts, without any service."""

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
    """The address of the store's artifacts."""
    return (root / ARTIFACTS).resolve().as_uri()


def embedded_uri(root: Path) -> str:
    """The tracking URI of the store inside the root folder."""
    return f"sqlite:///{(root / 'mlflow.db').resolve()}"


def make_store(root: Path) -> None:
    """Make the embedded store whole or not at all: one of several first starts makes it, and gives it its name last.

    In a root that was moved or copied, artifacts are looked for, and put, where the root is now.
    """
    store = root / "mlflow.db"
    if not os.access(root, os.W_OK):
        return
    with FileLock(root / "mlflow.lock"):
        if store.exists():
            _follow(root, store)
            return
        for torn in root.glob(".mlflow-*.db*"):  # of a process that was killed
            torn.unlink()
        temporary = root / f".mlflow-{os.getpid()}.db"
        temporary.write_bytes(new_store())
        _settle(root, temporary)
        temporary.replace(store)


@cache
def new_store() -> bytes:
    """The file of a store without runs, as MLflow makes it: half a second's work, kept for the next root.

    It is kept in this process, and on this machine for each version of MLflow, with its digest in its name: what does
    not match, or cannot be kept, is made again.
    """
    try:
        place, name = machine_cache.folder(), f"mlflow-{version('mlflow')}-"
        for path in place.glob(f"{name}*.db"):
            if path.name == f"{name}{_digest(found := path.read_bytes())}.db":
                return found
    except (OSError, RuntimeError):  # no place, or none that may be read
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
    """Of MLflow's own first experiment: what a store was made with is of where, and when, that was."""
    now = int(1000 * time.time())
    with closing(sqlite3.connect(store)) as database, database:
        database.execute(
            "UPDATE experiments SET artifact_location = ?, creation_time = ?, last_update_time = ?",
            (artifacts_of(root), now, now),
        )


def _follow(root: Path, store: Path) -> None:
    """MLflow keeps absolute addresses of artifacts: let those of this store begin with its folder as it is now."""
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
    """Make a store in `place`, write a run and read it back. For `geosweep doctor`."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(embedded_uri(place))
    run = client.create_run(client.create_experiment("probe"))
    client.log_metric(run.info.run_id, "loss/train", 0.5)
    return f"an embedded store kept loss/train = {client.get_run(run.info.run_id).data.metrics['loss/train']}"
