"""The command itself in processes of its own: started, watched, killed; and what must hold of the sweep afterwards."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from orchestrator import results, runner
from orchestrator.cli import main
from orchestrator.definition import sweep_file
from orchestrator.executors.debug import DebugExecutor
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import MetricLog
from orchestrator.tracking.base import NoTracker
from orchestrator.tracking.mlflow import STATE, TRIAL, embedded_uri

COMMAND = [sys.executable, "-c", "from orchestrator.cli import main; main()"]
REPOSITORY = Path(__file__).parents[2]
FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(["tests.orchestrator.loaded"])


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "150", **more}


class Forked:
    """`geosweep WORDS`, as `subprocess.Popen` has it, in a process that has loaded nothing of the user's.

    It is forked from one that has imported ours, which takes most of the time of a start. `program`: a Python file to
    run in the command's place; `drop`: system capabilities that it gives up first; `session`: it leads a process group
    of its own; `warnings`: a filter, as after -W.
    """

    def __init__(
        self,
        *words: str,
        program: Path | None = None,
        cwd: Path = REPOSITORY,
        env: Mapping[str, str] | None = None,
        session: bool = False,
        drop: Sequence[int] = (),
        warnings: str = "",
    ) -> None:
        self._streams = [tempfile.NamedTemporaryFile("r", prefix="gs-said-") for _ in range(2)]  # noqa: SIM115
        streams = [stream.name for stream in self._streams]
        given = (words, program, cwd, dict(env or environment()), session, drop, warnings, streams)
        self._process = FORKED.Process(target=_become, args=given)
        self._process.start()
        assert self._process.pid is not None
        self.args, self.pid = words, self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def wait(self, timeout: float) -> int:
        self._process.join(timeout)
        if self.returncode is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def said(self) -> tuple[str, str]:
        """What it has printed so far, to stdout and to stderr."""
        return tuple(Path(stream.name).read_text() for stream in self._streams)  # type: ignore[return-value]

    def communicate(self, timeout: float = 250) -> tuple[str, str]:
        self.wait(timeout)
        return self.said()


def _become(
    words: Sequence[str], program: Path | None, cwd: Path, env: dict[str, str], session: bool, drop: Sequence[int],
    filters: str, streams: list[str],
) -> None:  # fmt: skip
    if session:
        os.setsid()
    os.environ.clear()
    os.environ.update(env)
    os.chdir(cwd)
    for number, stream in enumerate(streams, 1):
        os.dup2(os.open(stream, os.O_WRONLY | os.O_APPEND), number)
    if filters:
        warnings.simplefilter(filters)  # type: ignore[arg-type]
    if drop:
        give_up(drop)
    sys.argv = [str(program or "geosweep"), *words]
    places = ["" if program is None else str(program.parent), *env.get("PYTHONPATH", "").split(os.pathsep)]
    sys.path[:] = [*places, *(path for path in sys.path if path not in places)]
    try:
        if program is None:
            main()
        else:
            runpy.run_path(str(program), run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # which a process of multiprocessing leaves out


def give_up(capabilities: Sequence[int]) -> None:
    """This thread, of the superuser, does without these capabilities (capabilities(7)), as anybody else."""
    libc, head, sets = ctypes.CDLL(None, use_errno=True), (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    kept = ~sum(1 << number for number in capabilities)
    if libc.capget(head, sets) == 0:
        sets[0] &= kept & 0xFFFFFFFF  # effective, permitted, inheritable; the lower 32 of each first
        if libc.capset(head, sets) == 0:
            return
    raise OSError(ctypes.get_errno(), "cannot give up capabilities")


def hiding(folder: Path) -> Path:
    """The folder, with packages and modules in it that are called like ours and others, and fail if imported."""
    for name in ("geosweep", "optim_core", "orchestrator", "trainables"):
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text("raise RuntimeError(__file__)")
    for name in ("mlflow", "numpy", "optuna", "random", "ray", "statistics", "torch", "types"):
        (folder / f"{name}.py").write_text("raise RuntimeError(__file__)")
    return folder


def start(file: Path, *words: str, root: Path | None = None, cwd: Path = REPOSITORY, **more: str) -> Forked:
    """`geosweep run FILE` in a process group of its own."""
    given = ("run", str(file), "--root", str(root or file.parent / "runs"), *words)
    return Forked(*given, cwd=cwd, env=environment(**more), session=True)


def say(*words: str) -> str:
    """What `geosweep WORDS` prints."""
    done = fresh(*words, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fresh(*words: str, cwd: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """`geosweep WORDS`, run to its end; `options` are those of `Forked`."""
    process = Forked(*words, cwd=cwd, **options)
    code = process.wait(200)
    return subprocess.CompletedProcess(words, code, *process.said())


def together(program: Path, folder: Path, world: int) -> None:
    """Run a program in so many processes at once, as `PROGRAM RANK WORLD FOLDER`; all have to end well."""
    running = [Forked(str(rank), str(world), str(folder), program=program) for rank in range(world)]
    try:
        for process in running:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
    finally:
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)


def finish(process: Forked, timeout: float = 250) -> str:
    """All that it printed, once it has ended."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return "".join(process.said())


def ended(file: Path) -> int:
    return len(list(file.parent.glob("runs/*/trials/*/result.json")))


def wait_for(file: Path, trials: int, process: Forked) -> None:
    deadline = time.time() + 200
    while ended(file) < trials and process.poll() is None and time.time() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, finish(process)


def values(folder: SweepFolder) -> dict[str, list[Any]]:
    """Trial -> every logged point without its times."""
    return {
        t.trial_id: [
            (p.step, {k: v for k, v in p.metrics.items() if not k.startswith("time/")})
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
