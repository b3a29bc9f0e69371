"""Delete a sweep's runs from MLflow, and their artifacts from the store under the root."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from orchestrator.definition.passwords import whole, without_passwords
from orchestrator.tracking import mlflow_view
from orchestrator.tracking.mlflow import SWEEP, embedded_uri


class MlflowRuns:
    """The runs of one sweep, found by tag; none if there is no store. Raises ConnectionError without an answer."""

    def __init__(self, *, uri: str | None, root: Path, sweep_id: str, name: str) -> None:
        self._embedded = uri is None
        self._runs: list[Any] = []
        self._client: Any = None
        self._views: tuple[str, str] | None = None
        if uri is None and not (root / "mlflow.db").exists():
            return
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.exceptions import MlflowException
        from mlflow.tracking import MlflowClient

        try:
            self._client = MlflowClient(whole(uri) if uri else embedded_uri(root))
            experiment = self._client.get_experiment_by_name(name)
            if experiment is not None:
                self._views = (experiment.experiment_id, sweep_id)
            token: str | None = ""
            while experiment is not None and token is not None:
                mine = f"tags.`{SWEEP}` = '{sweep_id}'"
                page = self._client.search_runs(
                    [experiment.experiment_id], mine, max_results=1000, page_token=token or None
                )
                self._runs += page
                token = page.token or None
        except (MlflowException, OSError) as error:
            said = f"{uri or 'MLflow'}: {(str(error).splitlines() or ['no answer'])[0]}"
            raise ConnectionError(without_passwords(said)) from None

    def __len__(self) -> int:
        return len(self._runs)

    def delete(self) -> int:
        """Delete them, and the views of the sweep; returns the bytes of artifacts freed on this machine."""
        if self._views:
            mlflow_view.forget(self._client, *self._views)
        freed = 0
        for run in self._runs:
            self._client.delete_run(run.info.run_id)
            place = urlparse(run.info.artifact_uri)
            folder = Path(unquote(place.path)).parent
            if self._embedded and place.scheme == "file" and folder.name == run.info.run_id and folder.is_dir():
                freed += size_of(folder)
                shutil.rmtree(folder)
        return freed


def size_of(folder: Path) -> int:
    """Bytes of the files in a folder."""
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
