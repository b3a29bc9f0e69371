"""The verbs as a user calls them, on the debug executor and a real MLflow store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from mlflow.tracking import MlflowClient

from orchestrator.definition.errors import UsageError
from orchestrator.definition.states import SweepState
from orchestrator.search.optuna_storage import storage
from orchestrator.tracking.mlflow import ERROR, STATE, TRIAL, MlflowTracker, embedded_uri
from tests.orchestrator.sweep_files import sweep_text


def write(path: Path, **changes: Any) -> str:
    path.write_text(sweep_text(**changes))
    return str(path)


@pytest.mark.slow
def test_a_sweep_from_file_to_tables(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", per_trial=8)
    assert "valid, sweep fit-" in call("validate", file).out
    plan = call("plan", file, "--json").document
    assert plan["arms"]["sgd"] == {"trials": 7, "steps": 8, "grad_evals_per_trial": 8, "grad_evals": 56}
    assert "gradient evaluations in total" in call("plan", file).out
    done = call("run", file, "--executor", "debug")
    assert done.code == 0, done.err
    assert "confirm stage" in done.out
    assert f"geosweep ui --root {tmp_path / 'runs'}" in done.err
    again = call("run", file, "--executor", "debug", "--json")
    assert "is done; nothing to run" in again.err
    best = call("best", "@last", "--json").document
    assert again.document == best
    assert set(best) == {"schema", "sweep_id", "metric", "goal", "arms", "exploratory"}
    assert set(best["arms"]["sgd"]) >= {"value", "parameters", "trial_id", "stage"}
    status = call("status", "fit", "--json").document
    for name in (file, str(tmp_path / "runs" / status["sweep_id"])):
        assert call("status", name, "--json").document == status
        assert status["sweep_id"] in call("metrics", name).out + call("best", name, "--json").out
    assert status["arms"]["sgd"] == {"done": 7, "running": 0, "waiting": 0, "pruned": 0, "diverged": 0, "failed": 0}
    assert status["state"] == "done"
    assert status["grad_evals"] == 14 * 8
    out = tmp_path / "out"
    files = call("export", "@last", "-o", str(out), "--json").document["files"]
    assert [Path(f).name for f in files] == ["trials.parquet", "metrics.parquet"]
    assert pq.read_table(out / "trials.parquet").num_rows == 14
    for words in (
        ["best"],
        ["status"],
        ["export", "@last", "-o", str(out)],
        ["logs"],
        ["logs", "@last", "sgd-0000-s0"],
        ["metrics"],
        ["metrics", "@last", "sgd-0000-s0"],
    ):
        assert call(*words).code == 0
    logged = call("metrics", "@last", "sgd-0000-s0", "--json").document
    assert [p["step"] for p in logged["points"]] == [2, 4, 6, 8]
    refused = call("compare", "@last")
    assert refused.code == 6
    assert "3 confirm seeds; with fewer than 6" in refused.err
    assert not call("stop", "@last", "--json").document["draining"]


@pytest.mark.slow
def test_compare_answers_with_six_seeds(call: Any, tmp_path: Path) -> None:
    call("run", write(tmp_path / "fit.yaml", trials=2, confirm=6, per_trial=4), "--executor", "debug")
    document = call("compare", "--json").document
    assert [(p["a"], p["b"], p["n"]) for p in document["pairs"]] == [("adamw", "sgd", 6)]
    assert "paired over the confirm seeds" in call("compare", "@last", "--baseline", "sgd").out
    assert call("compare", "@last", "--metric", "loss/vla").code == 4


@pytest.mark.slow
def test_failed_and_diverged_trials_are_shown_as_such(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", fail_at=5, fail_seed=1001, max_lr=1e6, method="random", trials=4, per_trial=8)
    done = call("run", file, "--executor", "debug")
    assert done.code == 8
    assert "trials failed (0 allowed: max_failed)" in done.err
    status = call("status", "@last")
    assert "on fire" in status.out
    assert "on fire" in call("logs", "@last").out
    diverged = sum(c["diverged"] for c in call("status", "--json").document["arms"].values())
    assert diverged > 0
    client = MlflowClient(embedded_uri(tmp_path / "runs"))
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    runs = [r for r in client.search_runs([experiment.experiment_id]) if TRIAL in r.data.tags]
    states = {r.data.tags[TRIAL]: r for r in runs}
    failed = [r for r in states.values() if r.data.tags[STATE] == "FAILED"]
    assert 1 <= len(failed) == sum(c["failed"] for c in call("status", "--json").document["arms"].values())
    assert all(r.info.status == "FAILED" and "on fire" in r.data.tags[ERROR] for r in failed)
    worst = [r for r in states.values() if r.data.tags[STATE] == "DIVERGED"]
    assert len(worst) == diverged
    assert all(r.info.status == "FINISHED" and r.data.metrics["loss/val"] == 1e4 for r in worst)
    noise = {"pid", "hostname", "timestamp", "time_total_s"}
    assert not noise & {key for r in runs for key in r.data.metrics}
    assert all(r.data.params["optimizer"] == r.data.params["arm"] for r in runs)


@pytest.mark.slow
def test_an_absent_tracking_server_holds_nothing_up(call: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text(trials=1, confirm=2, per_trial=4) + "\ntracking: {mlflow: 'http://127.0.0.1:9'}\n")
    done = call("run", str(file), "--executor", "debug")
    assert done.code == 0, done.err
    assert "not everything was logged to MLflow" in done.err
    file.write_text(sweep_text(trials=1, confirm=2, per_trial=4))
    assert call("run", str(file), "--executor", "debug").code == 0
    client = MlflowClient(embedded_uri(tmp_path / "runs"))
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    assert len(client.search_runs([experiment.experiment_id])) == 1 + 2 + 2 * 3
    assert "nothing to run" in call("run", str(file), "--executor", "debug").err


@pytest.mark.slow
def test_the_sender_sends_again_without_doubling(call: Any, tmp_path: Path) -> None:
    """A run that a killed driver left open is completed by the next one; its points stay single."""
    file = write(tmp_path / "fit.yaml", trials=2, confirm=1, per_trial=8)
    call("run", file, "--executor", "debug")
    root = tmp_path / "runs"
    client = MlflowClient(embedded_uri(root))
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    runs = [r for r in client.search_runs([experiment.experiment_id]) if TRIAL in r.data.tags]
    client.update_run(runs[0].info.run_id, status="RUNNING")
    client.delete_run(runs[1].info.run_id)
    before = client.get_metric_history(runs[0].info.run_id, "loss/val")
    (next(root.glob("fit-*")) / "outcome.json").unlink()
    assert call("run", file, "--executor", "debug").code == 0
    after = [r for r in client.search_runs([experiment.experiment_id]) if TRIAL in r.data.tags]
    assert {r.data.tags[TRIAL] for r in after} == {r.data.tags[TRIAL] for r in runs}
    assert len(after) == len(runs)
    assert all(r.info.status == "FINISHED" for r in after)
    again = client.get_metric_history(runs[0].info.run_id, "loss/val")
    assert [(m.step, m.value) for m in again] == [(m.step, m.value) for m in before]


@pytest.mark.parametrize(
    "words, code, message",
    [
        (("validate", "none.yaml"), 3, "none.yaml: no such file"),
        (("run", "none.yaml"), 3, "no such file"),
        (("plan", "none.yaml"), 3, "no such file"),
        (("best", "nothing"), 4, "start one with: geosweep run FILE"),
        (("status",), 4, "no sweep under"),
        (("ui",), 4, "no MLflow store"),
        (("nonsense",), 2, "No such command"),
    ],
)
def test_errors_say_the_way_out(call: Any, words: tuple[str, ...], code: int, message: str) -> None:
    done = call(*words)
    assert done.code == code
    assert message in " ".join((done.out + done.err).replace("│", " ").split())


def test_what_was_not_tracked_is_sent_only_when_asked(call: Any, tmp_path: Path) -> None:
    file, store = (
        write(tmp_path / "fit.yaml", method="random", trials=1, confirm=2, per_trial=8),
        tmp_path / "runs/mlflow.db",
    )
    assert call("run", file, "--executor", "debug", "--no-tracking", "--skip-steps").code == 0
    plain = call("reconcile")
    assert (plain.code, store.exists()) == (0, False)
    assert plain.out.endswith(": study, trial folders and tables agree\n")
    assert "was run with --no-tracking, so it was not compared with MLflow" in plain.err
    [again] = [line.split()[1:] for line in plain.err.splitlines() if line.strip().startswith("geosweep ")]
    assert call("reconcile", "--json").document["differences"] == []
    assert len([line for line in call(*again).out.splitlines() if line.endswith("had no run; sent again")]) == 6
    assert call("reconcile").out.endswith(": study, trial folders, tables and MLflow agree\n")


def test_a_root_is_a_folder(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml")
    for words in (("list",), ("status",), ("run", file)):
        done = call(*words, "--root", file)
        assert done.code == 2
        assert "is a file; name the folder" in " ".join((done.out + done.err).replace("│", " ").split())


def test_a_root_has_a_name_and_can_be_made(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml")
    for words in (("list",), ("run", file)):
        done = call(*words, "--root", "")
        assert done.code == 2
        assert "it is empty; name a folder, . for the current one" in " ".join(done.err.replace("│", " ").split())
    done = call("run", file, "--root", "/proc/none/at/all", "--executor", "debug", "--no-tracking", "--skip-steps")
    assert (done.code, done.out) == (2, "")
    assert done.err == "/proc/none: cannot be created (No such file or directory); name another place\n"


def test_a_root_names_a_bucket(call: Any) -> None:
    done = call("list", "--root", "s3://")
    assert done.code == 2
    assert "s3:// names no bucket" in " ".join((done.out + done.err).replace("│", " ").split())


@pytest.mark.parametrize(("url", "said"), [
    ("oracle://me:secret@host/x", "reads a database at oracle://"), ("nonsense", "is not the URL of a database"),
])  # fmt: skip
def test_a_storage_that_is_none_is_named_without_its_password(url: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        storage(tmp_path / "study.journal", url)
    assert "secret" not in str(caught.value)


def test_invalid_files_start_nothing(call: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(sweep_text().replace("optimizer: sgd", "optimizer: sdg"))
    done = call("run", str(tmp_path / "bad.yaml"))
    assert done.code == 3
    assert "did you mean sgd?" in done.err
    assert not (tmp_path / "runs").exists()


def test_the_tracker_never_raises(tmp_path: Path) -> None:
    tracker = MlflowTracker(uri="nonsense://", root=tmp_path, sweep_id="x-1", name="x", description="", facts={})
    tracker.finish(SweepState.DONE, {})
    assert tracker.trouble
