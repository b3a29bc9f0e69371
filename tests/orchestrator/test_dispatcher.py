"""Workers that come late, never, die and come back: the sweep ends as it does in one process, trial by trial."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayActorError

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.executors.dispatcher import CALM, GIVEN_BACK_S, Dispatcher
from orchestrator.executors.ray_faults import BYSTANDER_REPEATS, WorkerLost
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker
from orchestrator.trial.crew import Crew
from orchestrator.trial.job import Job, Report
from tests.orchestrator.command import in_this_process, values
from tests.orchestrator.sweep_files import sweep_text

DIED = RayActorError(error_msg="The actor is dead because its worker process has died.\n\tpid: 77")
MEMORY = """{number} worker(s) were killed due to the node running low on memory.
Selected to kill: (Actor(aa): job ID=01, pid=42, actual memory used=2.06GB, worker ID=4a)
"""


class Stage:
    """An executor whose workers are sessions in this process; what happens next is drawn from `seed`."""

    def __init__(self, seed: int, logs: Path, *, deaths: float = 0.0, workers: int = 3) -> None:
        self._random, self._logs, self._deaths, self._workers = random.Random(seed), logs, deaths, workers
        self.names = 0
        self.most = 0

    def run(self, conductor: Any) -> None:
        conductor.workers = self._workers
        dispatcher = Dispatcher(conductor, self._logs)
        asked: list[str] = []
        up: dict[str, Crew] = {}
        while True:
            while dispatcher.wanted() is not None:
                self.names += 1
                asked.append(str(self.names))
                dispatcher.ask(asked[-1])
            if found := dispatcher.assign():
                worker, jobs = found
                assert set(up[worker].trials) <= {job.trial_id for job in jobs}, "what it has, it keeps"
                up[worker].turn_to(jobs)
            for worker in dispatcher.dismiss():
                assert worker not in up or not up.pop(worker).trials
                asked = [w for w in asked if w != worker]
            if dispatcher.exhausted and not up and not asked:
                return
            self.most = max(self.most, len(up))
            self._happen(dispatcher, asked, up)

    def close(self) -> None:
        """Nothing was started."""

    def _happen(self, dispatcher: Dispatcher, asked: list[str], up: dict[str, Crew]) -> None:
        worker = self._random.choice([*asked, *up])
        crew = up.get(worker)
        if self._random.random() < self._deaths:
            if crew is not None:
                crew.close()
            up.pop(worker, None)
            asked[:] = [w for w in asked if w != worker]
            dispatcher.lose(worker, DIED)
        elif worker in asked:
            asked.remove(worker)
            up[worker] = Crew()
            dispatcher.arrive(worker)
        elif crew is not None and crew.trials:
            dispatcher.hear(worker, crew.advance())


def swept(file: Path, stage: Stage) -> SweepFolder:
    text = file.read_text()
    definition = sweep_file.loads(text, str(file))
    folder = runner.open_folder(definition, text, file.parent / "staged", {})
    with folder.hold():
        runner.run(definition, folder, stage, NoTracker())
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", "pbt", "tpe strict"])
def test_a_sweep_whose_workers_die_ends_as_in_one_process(tmp_path: Path, method: str) -> None:
    file = tmp_path / "fit.yaml"
    text = sweep_text(method="tpe" if "tpe" in method else "random", trials=6, confirm=2)
    if method == "pbt":
        text = "\n".join(line for line in text.splitlines() if "adamw" not in line)
        text += "\nearly_terminate: {type: pbt, eta: 3, min_budget: 25%}\n"
    if method == "tpe strict":
        text = text.replace("random_share: 0.5", "random_share: 0.5, replay: strict, lag: 2")
    file.write_text(text)
    plain = values(in_this_process(file))
    stage = Stage(seed=len(method), logs=tmp_path, deaths=0.05)
    folder = swept(file, stage)
    assert values(folder) == plain
    assert stage.most == 3
    assert stage.names > 3, "nobody died"
    assert {t.result.state for t in results.ended_trials(folder)} <= {"COMPLETE", "PRUNED"}


@pytest.mark.slow
def test_as_many_workers_as_there_are_places_do_all_trials(tmp_path: Path) -> None:
    """Ray Tune holds what it is given for each of them in memory until the end: it is given two, not two thousand."""
    file = tmp_path / "fit.yaml"
    file.write_text(sweep_text(method="random", trials=8, confirm=2))
    stage = Stage(seed=0, logs=tmp_path, workers=2)
    assert len(results.ended_trials(swept(file, stage))) == 20
    assert stage.names == 2


class Line:
    """A conductor of trials in a row that wait for nothing."""

    def __init__(self, trials: int, folder: Path, workers: int) -> None:
        self.workers, self._folder = workers, folder
        self.remaining = self._open = trials
        self.given_up: list[str] = []
        self.given_back: list[str] = []
        self.there: list[int] = []
        self.draining = False

    def on_workers(self, count: int) -> None:
        self.there.append(count)

    def give_back(self, trial_id: str) -> None:
        self.given_back.append(trial_id)

    @property
    def exhausted(self) -> bool:
        return not self._open or self.draining

    def next_job(self, like: Job | None = None) -> Job | None:
        if not self.remaining or self.draining:
            return None
        self.remaining -= 1
        place = str(self._folder / str(self.remaining))
        return Job(
            trial_id=str(self.remaining), arm="a", stage="tune", configuration=0, seed=0, optimizer="sgd",
            parameters={}, task="x", task_parameters={}, budget=1, evaluations=1, metric="m", goal="minimize",
            select="last", folder=place, stop_file="stop",
        )  # fmt: skip

    def on_report(self, report: Report) -> bool:
        self._open -= report.done
        return not report.done

    def on_lost(self, trial_id: str, why: str) -> None:
        self.given_up.append(trial_id)
        self._open -= 1


def line(tmp_path: Path, trials: int, workers: int, **more: Any) -> tuple[Line, Dispatcher]:
    conductor = Line(trials, tmp_path, workers)
    dispatcher = Dispatcher(conductor, tmp_path, **more)
    for number in range(workers):
        assert dispatcher.wanted() is not None
        dispatcher.ask(str(number))
        dispatcher.arrive(str(number))
        assert dispatcher.assign() is not None
    return conductor, dispatcher


def test_a_trial_that_no_worker_survives_to_take_is_given_up(tmp_path: Path) -> None:
    """Imports and data are loaded before a worker has a trial; a crash there must not start workers forever."""
    conductor = Line(2, tmp_path, workers=1)
    dispatcher = Dispatcher(conductor, tmp_path)
    started = 0
    while (job := dispatcher.wanted()) is not None:
        started += 1
        dispatcher.ask(str(started))
        dispatcher.lose(str(started), DIED)
    assert conductor.given_up == ["1", "0"]
    assert started == 2 * BYSTANDER_REPEATS
    assert job is None
    assert dispatcher.exhausted


def test_after_a_memory_kill_one_trial_fewer_runs_for_a_while(tmp_path: Path) -> None:
    _, dispatcher = line(tmp_path, trials=40, workers=3)
    for worker in "01":  # one event may take several workers
        dispatcher.lose(worker, WorkerLost("aa", MEMORY.format(number=2)))
    dispatcher.ask("4")
    dispatcher.arrive("4")
    assert dispatcher.wanted() is None
    dispatcher.ask("5")
    dispatcher.arrive("5")
    first = dispatcher.assign()
    assert first is not None
    assert dispatcher.assign() is None, "two of three at a time"
    for _ in range(CALM):
        assert not dispatcher.hear(first[0], [Report(trial_id=first[1][0].trial_id, grad_evals=1.0, done=True)])
        first = dispatcher.assign()
        assert first is not None
    assert dispatcher.assign() is not None, "three again"


def test_who_is_there_is_told_and_nobody_waits_for_workers_of_a_sweep_that_drains(tmp_path: Path) -> None:
    conductor, dispatcher = line(tmp_path, trials=4, workers=2)
    assert conductor.there == [1, 2]
    assert dispatcher.wanted() is None, "two at a time"
    dispatcher.lose("0", DIED)
    assert dispatcher.wanted() is not None
    dispatcher.ask("late")
    dispatcher.lose("1", DIED)
    assert conductor.there == [1, 2, 1, 0]
    assert not dispatcher.exhausted
    assert conductor.given_back == []
    conductor.draining = True
    assert dispatcher.exhausted
    assert sorted(conductor.given_back) == ["1", "2", "3"], "one was decided ahead, two had lost their workers"
    assert dispatcher.dismiss() == ["late"]


def test_a_machine_is_given_back_only_where_others_may_come(tmp_path: Path) -> None:
    for grows in (False, True):
        now = [0.0]
        _, dispatcher = line(tmp_path, trials=2, workers=2, grows=grows, clock=lambda now=now: now[0])
        assert not dispatcher.hear("1", [Report(trial_id="0", grad_evals=1.0, done=True)])
        assert dispatcher.assign() is None
        assert dispatcher.dismiss() == []
        now[0] = GIVEN_BACK_S + 1
        assert dispatcher.dismiss() == (["1"] if grows else [])
        assert not dispatcher.hear("0", [Report(trial_id="1", grad_evals=1.0, done=True)])
        assert dispatcher.assign() is None
        assert dispatcher.dismiss() == (["0"] if grows else ["1", "0"])
        assert dispatcher.exhausted
