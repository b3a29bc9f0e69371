"""Real sweeps by the command, with Ray, whose trials share the device."""

from __future__ import annotations

import contextlib
import os
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from orchestrator import results
from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.definition.states import State
from orchestrator.storage.folder import SweepFolder
from tests.bench.gpu_check.setting import Row, Setting

ROOT = Path(__file__).parents[3]
COMMAND = [sys.executable, "-c", "from orchestrator.cli import main; main()", "run"]
LAST_WORDS_S = 20.0


def sweeps(setting: Setting) -> Iterator[Row]:
    """A sweep of small trials (resnet18) by the command: trials an hour and the device's utilization, so many at once.

    Ray's start is left out: the clock runs from the first trial's first file to the last one's result. Without a GPU
    the trials follow one another in the command's own process, and only `shares` starts Ray.
    """

    def row(name: str) -> Row:
        count, sizes = int(name.split()[0]), setting.sizes
        task = {"name": "images", "data": setting.data("images"), "batch_size": sizes.small_batch}
        trials = max(count, sizes.trials)
        definition = {
            **_common(f"at-once-{count}", task, sizes.small_steps),
            "metric": {"name": "loss/val", "goal": "minimize"},
            "arms": {"sgd": {"parameters": {"lr": {"distribution": "log_uniform_values", "min": 1e-3, "max": 1e-1}}}},
            "method": {"name": "random"},
            "resources": _share(setting, count),
        }
        definition["budget"]["trials_per_arm"] = trials
        with _utilization(setting) as used:
            code, folder = _run(setting, definition, *([] if setting.cuda else ["--executor", "debug"]))
        states, seconds = _states(folder), _span(folder)
        found: Row = {"trials": len(states), "seconds": seconds, "trials an hour": 3600 * len(states) / seconds}
        found["utilization %"] = statistics.mean(used) if used else "unknown"
        if code or states != [State.COMPLETE] * trials:
            found["failed"] = f"exit code {code}, {states.count(State.COMPLETE)} of {trials} complete"
        return found

    return setting.each([f"{count} at once" for count in setting.sizes.at_once], row)


def packs(setting: Setting) -> Iterator[Row]:
    """A sweep of digits trials (mlp, sgd) by the command, with so many trials of a worker stepped together.

    `x` is against a pack of 1, in trials an hour; workers that share the device are the best way without packs. The
    clock runs from the first trial's first file to the last one's result, and with it all that a trial costs: of its
    milliseconds, `step` are its share of the steps, `rest` models, evaluations, logs, checkpoints and reports. Without
    a GPU in the command's own process.
    """
    alone: list[float] = []

    def row(name: str) -> Row:
        pack, workers = (int(word) for word in name.replace(",", "").split() if word.isdigit())
        sizes = setting.sizes
        trials = max(pack, sizes.pack_trials[1]) if pack > 1 else max(3 * workers, sizes.pack_trials[0])
        definition = {
            **_common(f"pack-{pack}-{workers}", {"name": "digits", "model": "mlp", "noise": 0.4}, sizes.pack_steps),
            "metric": {"name": "loss/val", "goal": "minimize"},
            "arms": {"sgd": {"parameters": {"lr": {"distribution": "log_uniform_values", "min": 1e-3, "max": 1e-1}}}},
            "method": {"name": "random"},
            "resources": {**_share(setting, workers), "pack": pack, "max_concurrent": pack * workers},
            "evaluations": 4,
        }
        definition["budget"]["trials_per_arm"] = trials
        with _utilization(setting) as used:
            code, folder = _run(setting, definition, *([] if setting.cuda else ["--executor", "debug"]))
        states, seconds = _states(folder), _span(folder)
        rate = 3600 * len(states) / seconds
        found: Row = {"trials": len(states), "seconds": seconds, "trials an hour": rate}
        each = [t.result.metrics.get("time/step_s", 0.0) for t in results.ended_trials(folder)]
        found["step ms"] = 1e3 * sizes.pack_steps * statistics.mean(each or [0.0])
        found["rest ms"] = 1e3 * seconds * workers / max(1, len(states)) - found["step ms"]
        if pack * workers == 1:
            alone.append(rate)
        elif alone:
            found["x"] = rate / alone[0]
        found["utilization %"] = statistics.mean(used) if used else "unknown"
        if code or states != [State.COMPLETE] * trials:
            found["failed"] = f"exit code {code}, {states.count(State.COMPLETE)} of {trials} complete"
        return found

    one, most, *others = (f"pack {pack}, 1 worker" for pack in (1, *setting.sizes.sweep_packs))
    sharing = [f"pack 1, {setting.sizes.at_once[-1]} workers"] if setting.cuda else []
    return setting.each([one, most, *sharing, *others], row)


def shares(setting: Setting) -> Iterator[Row]:
    """Four trials with a quarter of the device each, one of which asks for nine tenths: it fails, the others do not."""

    def row(name: str) -> Row:
        definition = {
            **_common("hungry", {"name": "tests.bench.gpu_check.hungry:Hungry", "hungry_seed": 2}, 200),
            "metric": {"name": "loss/val", "goal": "minimize"},
            "arms": {"sgd": {"parameters": {"lr": {"values": [0.1]}}}},
            "method": {"name": "grid"},
            "resources": _share(setting, 4 if setting.cuda else 2),
            "seeds": {"tune": 4, "confirm": 0},
            "max_failed": 1,
        }
        code, folder = _run(setting, definition)
        ended = {t.job.seed: t.result for t in results.ended_trials(folder)}
        states = {seed: result.state for seed, result in ended.items()}
        found: Row = {"states": ", ".join(f"seed {seed} {state}" for seed, state in sorted(states.items()))}
        right = states == {seed: State.FAILED if seed == 2 else State.COMPLETE for seed in range(4)}
        if code or not right or "OutOfMemoryError" not in ended[2].error:
            found["failed"] = f"exit code {code}, {found['states']}"
        return found

    return setting.each(["out of memory"], row)


def processes(setting: Setting) -> Iterator[Row]:
    """Two processes of one trial on one GPU: refused before anything starts."""

    def row(name: str) -> Row:
        definition = {
            **_common("two", {"name": "tests.bench.gpu_check.hungry:Hungry"}, 8),
            "metric": {"name": "loss/val", "goal": "minimize"},
            "arms": {"sgd": {"parameters": {"lr": {"values": [0.1]}}}},
            "method": {"name": "grid"},
            "resources": {"gpu": 1, "processes": 2},
        }
        try:
            sweep_file.loads(yaml.safe_dump(definition))
        except SpecError as error:
            return {"refused": str(error).partition(" ")[2]}
        return {"failed": "was not refused"}

    return setting.each(["2 processes, 1 GPU"], row)


def _common(name: str, task: dict[str, Any], budget: int) -> dict[str, Any]:
    return {
        "schema_version": 1,
        "name": name,
        "task": task,
        "budget": {"unit": "grad_evals", "per_trial": budget},
        "seeds": {"tune": 1, "confirm": 0},
        "evaluations": 1,
    }


def _share(setting: Setting, count: int) -> dict[str, Any]:
    return {"cpu": 1, "gpu": 1 / count if setting.cuda else 0, "max_concurrent": count}


def _run(setting: Setting, definition: dict[str, Any], *words: str) -> tuple[int, SweepFolder]:
    """The command's exit code and the sweep's folder. Interrupted when there is no time left.

    No step is taken before the first trial: it would leave the command a context on the device.
    """
    file, root = setting.place / f"{definition['name']}.yaml", setting.place / "runs"
    file.write_text(yaml.safe_dump(definition))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [*COMMAND, str(file), "--root", str(root), "--no-tracking", "--skip-steps", *words]
    with (setting.place / "output.txt").open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment, cwd=ROOT)
        try:
            code = process.wait(max(1.0, setting.left))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(LAST_WORDS_S)
            process.kill()
            code = process.wait()
    folders = sorted(root.glob(f"{definition['name']}-*"))
    if not folders:
        raise RuntimeError(f"exit code {code}: {(setting.place / 'output.txt').read_text()[-500:]}")
    return code, SweepFolder(root, folders[0].name)


def _states(folder: SweepFolder) -> list[State]:
    return [trial.result.state for trial in results.ended_trials(folder)]


def _span(folder: SweepFolder) -> float:
    """Seconds from the first trial's description to the last one's result."""
    begun = min((p.stat().st_mtime for p in folder.path.glob("trials/*/trial.json")), default=0.0)
    ended = max((p.stat().st_mtime for p in folder.path.glob("trials/*/result.json")), default=0.0)
    return max(ended - begun, 1e-3)


@contextlib.contextmanager
def _utilization(setting: Setting) -> Iterator[list[float]]:
    """Fills in, at its end, the percent of time in which the device was busy, second by second; empty where unknown."""
    found: list[float] = []
    command = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-l", "1"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        yield found
        return
    try:
        yield found
    finally:
        process.terminate()
        said = process.communicate(timeout=10)[0]
        busy = [float(word) for word in said.split() if word.replace(".", "", 1).isdigit()]
        found += [value for value in busy if value] or busy  # not while Ray starts
