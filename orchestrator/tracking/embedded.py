"""The MLflow store inside the root folder: one SQLite file and a folder of artifacts, without any service."""

from __future__ import annotations

import logging
import os
from pathlib import Path

from filelock import FileLock


def embedded_uri(root: Path) -> str:
    """The tracking URI of the store inside the root folder."""
    return f"sqlite:///{(root / 'mlflow.db').resolve()}"


def make_store(root: Path) -> None:
    """Make the embedded store whole or not at all: one of several first starts makes it, and gives it its name last."""
    store = root / "mlflow.db"
    with FileLock(root / "mlflow.lock"):
        if store.exists():
            return
        from mlflow.tracking import MlflowClient

        for torn in root.glob(".mlflow-*.db*"):  # of a process that was killed
            torn.unlink()
        temporary = root / f".mlflow-{os.getpid()}.db"
        MlflowClient(f"sqlite:///{temporary.resolve()}").search_experiments(max_results=1)
        temporary.replace(store)


def probe(place: Path) -> str:
    """Make a store in `place`, write a run and read it back. For `geosweep doctor`."""
    logging.getLogger("alembic").setLevel(logging.ERROR)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(embedded_uri(place))
    run = client.create_run(client.create_experiment("probe"))
    client.log_metric(run.info.run_id, "loss/train", 0.5)
    return f"an embedded store kept loss/train = {client.get_run(run.info.run_id).data.metrics['loss/train']}"
