"""The command itself in processes of its own: started, watched, killed; and what must hold of the sweep afterwards."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.executors.debug import DebugExecutor
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.base import NoTracker
from orchestrator.tracking.mlflow import STATE, TRIAL, embedded_uri

COMMAND = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
REPOSITORY = Path(__file__).parents[2]
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["mlflow.tracking", "orchestrator.launch", "orchestrator.compare.report.publish"])


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "150", **more}


def start(file: Path, *words: str, root: Path | None = None, **more: str) -> subprocess.Popen[str]:
    """`geosweep run FILE` in a process group of its own."""
    return subprocess.Popen(
        [*COMMAND, "run", str(file), "--root", str(root or file.parent / "runs"), *words],
        text=True,
        env=environment(**more),
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def say(*words: str) -> str:
    """What `geosweep WORDS` prints."""
    return subprocess.run(
        [*COMMAND, *words], text=True, env=environment(), cwd=REPOSITORY, capture_output=True, timeout=200, check=True
    ).stdout


def fresh(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """`geosweep WORDS` in a process that has loaded nothing of the user's: forked from one that has imported ours."""
    process = FORKED.Process(target=_become, args=(words, cwd))
    process.start()
    process.join(200)
    assert process.exitcode is not None, f"{words} has not ended"
    out, err = (cwd / f"{process.pid}.{stream}" for stream in ("out", "err"))
    done = subprocess.CompletedProcess(words, process.exitcode, out.read_text(), err.read_text())
    out.unlink()
    err.unlink()
    return done


def _become(words: tuple[str, ...], cwd: Path) -> None:
    os.chdir(cwd)
    for stream, number in (("out", 1), ("err", 2)):
        os.dup2(os.open(f"{os.getpid()}.{stream}", os.O_WRONLY | os.O_CREAT), number)
    os.environ["COLUMNS"] = environment()["COLUMNS"]
    sys.argv, sys.path[:0] = ["geosweep", *words], [""]
    from orchestrator.cli import main

    main()


def finish(process: subprocess.Popen[str], timeout: float = 250) -> str:
    try:
        out, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return out


def ended(file: Path) -> int:
    return len(list(file.parent.glob("runs/*/trials/*/result.json")))


def wait_for(file: Path, trials: int, process: subprocess.Popen[str]) -> None:
    deadline = time.time() + 200
    while ended(file) < trials and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, finish(process)


def values(folder: SweepFolder) -> dict[str, list[Any]]:
    """Trial -> every logged point without its times."""
    return {
        t.trial_id: [
            (p["step"], {k: v for k, v in p["metrics"].items() if not k.startswith("time/")})
            for p in MetricLog(folder.trial(t.trial_id) / "metrics.jsonl").points()
        ]
        for t in results.ended_trials(folder)
    }


def in_this_process(file: Path) -> SweepFolder:
    """The sweep without any fault, on the debug executor."""
    text = file.read_text()
    definition = sweep_file.loads(text, str(file))
    folder = runner.open_folder(definition, text, file.parent / "plain", {})
    with folder.hold():
        runner.run(definition, folder, DebugExecutor(), NoTracker())
    return folder


def processes() -> Iterator[tuple[int, int, str]]:
    """(process, parent, command line) of all that can be read."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode()
            parent = int((path.parent / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        yield int(path.parent.name), parent, words


def ray_processes(of: int) -> list[str]:
    """Ray daemons whose scratch folder carries the driver's process number."""
    return [words for _, _, words in processes() if f"/tmp/gs-{of}-" in words]


def workers(of: int | str, title: str = "Trainable") -> list[int]:
    """Processes of Ray workers that hold trials, of the driver with this number or below a scratch folder.

    Those that hold nothing have the title `ray::IDLE`.
    """
    mark = f"/tmp/gs-{of}-" if isinstance(of, int) else of
    found = {process: (parent, words) for process, parent, words in processes()}
    return [p for p, (up, w) in found.items() if title in w and mark in found.get(up, (0, ""))[1]]


def check_mlflow(
    folder: SweepFolder, uri: str = "", states: Mapping[str, str] | None = None, arms: Mapping[str, int] | None = None
) -> None:
    """One run for each trial and each arm below one parent; none running; no point lost or doubled.

    `states`: trial -> state of those that are not COMPLETE; `arms`: arm -> units (studies, or seeds) of its summary.
    """
    client = MlflowClient(uri or embedded_uri(folder.root))
    experiment = client.get_experiment_by_name("fit")
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    parents = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(parents) == 1
    assert all(r.data.tags["mlflow.parentRunId"] == parents[0].info.run_id for r in runs if r not in parents)
    children = {r.data.tags[TRIAL]: r for r in runs if TRIAL in r.data.tags}
    assert Counter(r.data.tags[TRIAL] for r in runs if TRIAL in r.data.tags) == Counter(list(children))
    logged = values(folder)
    assert set(children) == set(logged)
    for trial, run in children.items():
        state = (states or {}).get(trial, "COMPLETE")
        assert run.data.tags[STATE] == state
        assert run.info.status == ("FAILED" if state == "FAILED" else "FINISHED")
        history = client.get_metric_history(run.info.run_id, "loss/val")
        assert [(m.step, m.value) for m in history] == [(p[0], p[1]["loss/val"]) for p in logged[trial]]
    others = [r for r in runs if TRIAL not in r.data.tags]
    assert {r.info.status for r in others} == {"FINISHED"}
    summaries = {r.data.tags["geosweep.arm"]: r for r in others if r.data.tags.get("geosweep.stage") == "summary"}
    assert len(others) == 1 + len(summaries)
    expected = arms or {"sgd": 3, "adamw": 3}
    assert {arm: r.data.metrics["loss/val/n"] for arm, r in summaries.items()} == expected
