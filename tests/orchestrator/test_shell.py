"""A sweep goes where the command and the file send it; what a shell happens to hold sends it nowhere else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from orchestrator.tracking.mlflow import embedded_uri
from tests.orchestrator.sweep_files import sweep_text
from tests.orchestrator.test_cli import write

TRACED = """
import os
from tests.tasks import Fit
class Traced(Fit):
    "Writes down the process it trains in."
    def __init__(self, *, trace: str) -> None:
        super().__init__()
        self._trace = trace
    def batch(self, seed, index):
        with open(self._trace, "a") as out:
            out.write(f"{os.getpid()}\\n")
        return super().batch(seed, index)
"""


@pytest.fixture
def crowded_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables with which a user works on something else; nobody listens there."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def runs(uri: str) -> int:
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("fit")
    return len(client.search_runs([experiment.experiment_id])) if experiment else 0


@pytest.mark.slow
@pytest.mark.usefixtures("crowded_shell")
def test_tracking_goes_where_it_is_sent(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", trials=1, confirm=2)
    done = call("run", file, "--executor", "debug")
    assert done.code == 0, done.err
    assert "MLFLOW_TRACKING_URI is set but not used; pass --tracking-uri $MLFLOW_TRACKING_URI to use it" in done.err
    assert "RAY_ADDRESS is set but not used; pass --address $RAY_ADDRESS to use it" in done.err
    assert runs(embedded_uri(tmp_path / "runs")) == 1 + 2 + 2 * 3
    given = f"sqlite:///{tmp_path / 'given.db'}"
    done = call("run", file, "--executor", "debug", "--root", str(tmp_path / "other"), "--tracking-uri", given)
    assert "MLFLOW_TRACKING_URI" not in done.err
    assert runs(given) == 1 + 2 + 2 * 3
    assert not (tmp_path / "other" / "mlflow.db").exists()
    own = tmp_path / "own.yaml"
    own.write_text(f"{sweep_text(trials=1, confirm=2)}tracking: {{mlflow: '{given}'}}\n")
    elsewhere = ("--root", str(tmp_path / "third"), "--tracking-uri", "http://127.0.0.1:9")
    done = call("run", str(own), "--executor", "debug", *elsewhere)
    assert done.code == 0
    assert "logged to MLflow" not in done.err  # the file comes first


@pytest.mark.long
@pytest.mark.usefixtures("crowded_shell")
def test_a_local_run_stays_local_and_keeps_to_its_number(
    call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a private Ray of its own, with one trial at a time."""
    (tmp_path / "traced_for_ray.py").write_text(TRACED)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    text = sweep_text(trials=2, confirm=2).splitlines()
    text[3] = f'task: {{name: "traced_for_ray:Traced", trace: "{tmp_path / "trace"}"}}'
    (tmp_path / "fit.yaml").write_text("\n".join(text))
    done = call("run", str(tmp_path / "fit.yaml"), "--no-tracking", "--skip-steps", "--max-concurrent", "1")
    assert done.code == 0, done.err
    trained = list((tmp_path / "runs").glob("fit-*/trials/*/result.json"))
    assert len(trained) == 2 * (2 + 2)
    ours = {str(os.getpid())}  # which counts an update's FLOPs at the end
    assert len(set((tmp_path / "trace").read_text().split()) - ours) == 1


def test_a_cluster_needs_a_root_that_it_can_see(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "fit.yaml")
    done = call("run", file, "--root", "runs", "--address", "127.0.0.1:1")
    assert done.code == 2
    assert "absolute path" in done.err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("root", ["runs", "/runs/$(id)", "/runs; true"])
def test_submit_needs_one_too(call: Any, tmp_path: Path, root: str) -> None:
    done = call("submit", write(tmp_path / "fit.yaml"), "--address", "http://127.0.0.1:9", "--root", root)
    assert done.code == 2
    assert "absolute path" in done.err


def test_submit_says_when_nobody_answers(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml")
    assert call("submit", file, "--address", "http://127.0.0.1:9").code == 75
    assert call("submit", file, "--address", "127.0.0.1:9").code == 2
    assert call("submit", str(tmp_path / "none.yaml"), "--address", "k8s").code == 3
    (tmp_path / "bad.yaml").write_text(sweep_text().replace("optimizer: sgd", "optimizer: sdg"))
    assert call("submit", str(tmp_path / "bad.yaml"), "--address", "http://127.0.0.1:9").code == 3
