"""What each environment variable changes in Ray and Tune, on a Ray of its own: one that changes nothing is to go."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray._common.usage import usage_lib

from orchestrator.executors.ray_environment import SWITCHES
from tests.orchestrator.command import environment

SWEEP = """
import json, os, signal, tempfile, time
from pathlib import Path
import orchestrator.executors
import ray
from ray import tune
from orchestrator.executors.ray_private import private_cluster

class Trial(tune.Trainable):
    def step(self):
        time.sleep(1.5)
        Path(os.environ["OUT"]).write_text(json.dumps({"cwd": os.getcwd(), "gpus": os.getenv("CUDA_VISIBLE_DEVICES")}))
        raise RuntimeError("on purpose")

class Watch(tune.Callback):
    handler, snapshots = None, set()
    def on_step_begin(self, iteration, trials, **info):
        Watch.handler = signal.getsignal(signal.SIGINT)
        Watch.snapshots |= {p.stat().st_mtime_ns for p in Path(tmp).rglob("driver_artifacts/experiment_state*")}

def mine(*_): pass
signal.signal(signal.SIGINT, mine)
with tempfile.TemporaryDirectory(prefix="gs-env-", dir="/tmp", ignore_cleanup_errors=True) as tmp:
    ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR", log_to_driver=False,
             **private_cluster(Path(tmp)))
    print("BEGIN", flush=True)
    tune.Tuner(tune.with_resources(Trial, {"cpu": 1}), tune_config=tune.TuneConfig(num_samples=1),
               run_config=tune.RunConfig(storage_path=tmp, name="t", verbose=0, callbacks=[Watch()])).fit()
    print("END", flush=True)
    seen = json.loads(Path(os.environ["OUT"]).read_text())
    seen |= {"logs": [p.name for p in Path(tmp).glob("t/Trial*/*") if p.name in ("result.json", "progress.csv")],
             "interrupt": Watch.handler is mine, "snapshots": len(Watch.snapshots)}
    Path(os.environ["OUT"]).write_text(json.dumps(seen))
    ray.shutdown()
"""
SEEN_ON_RAY = {name: value for name, (value, _) in SWITCHES.items() if name != "RAY_USAGE_STATS_ENABLED"}


def run(place: Path, **variables: str) -> dict[str, Any]:
    """What a trial that fails sees, what Tune does beside it, and what is printed meanwhile."""
    kept = {k: v for k, v in environment(OUT=str(place)).items() if k not in SWITCHES and k != "CUDA_VISIBLE_DEVICES"}
    command = [sys.executable, "-W", "ignore", "-c", SWEEP]
    done = subprocess.run(
        command, env={**kept, "RAY_USAGE_STATS_ENABLED": "0", **variables}, cwd=place.parent, capture_output=True,
        text=True, timeout=280, check=True, start_new_session=True,
    )  # fmt: skip
    said = done.stdout.partition("BEGIN\n")[2].partition("END\n")[0]
    return {**json.loads(place.read_text()), "said": said, "errors": done.stderr}


@pytest.mark.long  # two starts of Ray, and another answer only with another Ray
@pytest.mark.timeout(600)
def test_each_switch_changes_what_it_is_there_for(tmp_path: Path) -> None:
    on = run(tmp_path / "on")
    other = {name: str(1 - int(value)) for name, value in SEEN_ON_RAY.items()} | {"TUNE_GLOBAL_CHECKPOINT_S": "0.1"}
    off = run(tmp_path / "off", **other)
    seen = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": lambda r: not r["logs"],
        "TUNE_DISABLE_SIGINT_HANDLER": lambda r: r["interrupt"],
        "TUNE_GLOBAL_CHECKPOINT_S": lambda r: r["snapshots"] == 1,
        "TUNE_PRINT_ALL_TRIAL_ERRORS": lambda r: "Trial task failed" not in r["errors"],
        "RAY_AIR_NEW_OUTPUT": lambda r: "Configuration for experiment" not in r["said"],
        "RAY_CHDIR_TO_TRIAL_DIR": lambda r: r["cwd"] == str(tmp_path),
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": lambda r: r["gpus"] == "",
    }
    assert set(seen) == set(SEEN_ON_RAY)
    held = {name: (looks(on), looks(off)) for name, looks in seen.items()}
    assert held == dict.fromkeys(seen, (True, False)), f"a switch that changes nothing is to go: {held}\n{on}\n{off}"


def test_a_sweep_reports_to_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", SWITCHES["RAY_USAGE_STATS_ENABLED"][0])
    assert not usage_lib.usage_stats_enabled()
    monkeypatch.delenv("RAY_USAGE_STATS_ENABLED")
    assert usage_lib.usage_stats_enabled()


def test_the_users_own_setting_wins() -> None:
    names = "RAY_AIR_NEW_OUTPUT", "RAY_USAGE_STATS_ENABLED"
    code = f"import os, orchestrator.executors; print([os.environ[n] for n in {names}])"
    kept = {k: v for k, v in os.environ.items() if k not in SWITCHES}
    command = [sys.executable, "-c", code]
    out = subprocess.run(command, env={**kept, "RAY_AIR_NEW_OUTPUT": "1"}, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "['1', '0']"
