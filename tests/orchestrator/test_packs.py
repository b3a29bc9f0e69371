"""Packed trials: each is the trial that it is alone, up to rounding, with its own log, checkpoint, stop and end."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.definition.model import sweep_id
from orchestrator.executors.debug import DebugExecutor
from orchestrator.executors.dispatcher import Dispatcher
from orchestrator.scheduling import abort
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.metric_log import LoggedPoint, MetricLog
from orchestrator.tracking.base import NoTracker
from orchestrator.trial.job import Job, Report
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept
from tests.tasks import Fit

TOLERANCE = 1e-4
"""Of a metric, relative; what is seen is below 1e-6."""


class Crowded(Fit):
    """A model that finds room for two trials at a time."""

    ROOM: ClassVar = 2

    def __init__(self) -> None:
        super().__init__(dropout=0.0)

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        batched = torch._C._functorch.is_batchedtensor(outputs)
        if (len(torch._C._functorch.get_unwrapped(outputs)) if batched else 1) > self.ROOM:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().loss(outputs, targets)


def text_of(pack: int, task: str = '"tests.tasks:Fit", dropout: 0.0', **changes: Any) -> str:
    given = {"method": "random", "trials": 6, "confirm": 2, "max_lr": 3e4, "extra": "", **changes}
    extra = f"{given.pop('extra')}\nresources: {{pack: {pack}}}\n"
    plain = sweep_text(**given, extra=extra)
    return plain.replace('"tests.tasks:Fit"', task, 1)


def points(folder: SweepFolder, trial_id: str) -> list[LoggedPoint]:
    return MetricLog(folder.trial(trial_id) / "metrics.jsonl").points()


def assert_alike(packed: SweepFolder, alone: SweepFolder, *, states: bool = True) -> None:
    mine = {t.trial_id: t for t in results.ended_trials(packed)}
    theirs = {t.trial_id: t for t in results.ended_trials(alone)}
    if states:
        assert mine.keys() == theirs.keys()
    for trial_id in mine.keys() & theirs.keys():
        a, b = mine[trial_id].result, theirs[trial_id].result
        assert (a.init_digest, a.data_digest, a.facts) == (b.init_digest, b.data_digest, b.facts)
        if states:
            assert (a.state, a.grad_evals) == (b.state, b.grad_evals)
        for p, q in zip(points(packed, trial_id), points(alone, trial_id), strict=states):
            assert p.step == q.step
            for name, value in q.metrics.items():
                if not name.startswith("time/"):
                    assert p.metrics[name] == pytest.approx(value, rel=TOLERANCE)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return swept(text_of(1), tmp_path_factory.mktemp("alone"))


def sizes(folder: SweepFolder) -> set[float]:
    return {t.result.metrics.get("cost/pack", 1.0) for t in results.ended_trials(folder)}


@pytest.mark.slow
def test_packed_trials_are_the_trials_alone(tmp_path: Path, alone: SweepFolder) -> None:
    """Two arms, learning rates far apart, some of which diverge; tune and confirm stage."""
    packed = swept(text_of(4), tmp_path)
    assert packed.sweep_id == alone.sweep_id, "a pack is a resource: results may be told apart by rounding alone"
    assert_alike(packed, alone)
    ended = results.ended_trials(packed)
    assert "DIVERGED" in {t.result.state for t in ended}
    assert max(sizes(packed)) == 4
    assert all(t.job.pack == 4 for t in ended)
    wall = max(p.stat().st_mtime for p in packed.path.glob("trials/*/result.json")) - min(
        p.stat().st_mtime for p in packed.path.glob("trials/*/trial.json")
    )
    assert 0 < sum(t.result.seconds for t in ended) <= wall + 0.1, "each has its share of the time, not all of it"


class Stop:
    """Asks for a stop while the first pack trains."""

    def __init__(self, folder: SweepFolder) -> None:
        self._timer = threading.Timer(0.3, folder.ask_to_stop)

    def on_start(self, job: Any) -> None:
        if not self._timer.is_alive() and not self._timer.finished.is_set():
            self._timer.start()

    def on_report(self, job: Any, report: Any) -> None: ...

    def on_end(self, job: Any, result: Any) -> None: ...


@pytest.mark.slow
def test_a_pack_that_is_stopped_goes_on_in_others(tmp_path: Path, alone: SweepFolder) -> None:
    """Checkpoints of a pack of four are taken up by packs of three: the same sweep, since its id is the same."""
    slow = text_of(4, pause_s=0.012)
    first = swept(slow, tmp_path, None, [Stop(SweepFolder(tmp_path, sweep_id(sweep_file.loads(slow))))])
    assert any(first.path.glob("trials/*/checkpoint-*.pt")), "trials that were under way have their checkpoints"
    first.stop_file.unlink()
    again = swept(slow.replace("pack: 4", "pack: 3"), tmp_path)
    assert again.path == first.path
    assert_alike(again, alone)


@pytest.mark.slow
def test_trials_are_stopped_early_one_by_one(tmp_path: Path, alone: SweepFolder) -> None:
    asha = "early_terminate: {type: asha, eta: 2, min_budget: 25%}"
    packed = swept(text_of(6, extra=asha), tmp_path)
    states = [t.result.state for t in results.ended_trials(packed)]
    assert {"PRUNED", "COMPLETE"} <= set(states)
    pruned = [t for t in results.ended_trials(packed) if t.result.state == "PRUNED"]
    for trial in pruned:
        assert trial.result.stopped is not None
        assert len(points(packed, trial.trial_id)) == trial.result.stopped.rung
    tune = {t.trial_id for t in results.ended_trials(alone) if t.job.stage == "tune"}
    for trial_id in tune & {t.trial_id for t in results.ended_trials(packed)}:
        for p, q in zip(points(packed, trial_id), points(alone, trial_id), strict=False):
            assert p.step == q.step
            if "loss/val" in q.metrics:
                assert p.metrics["loss/val"] == pytest.approx(q.metrics["loss/val"], rel=TOLERANCE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*trials could not be stepped together")
def test_what_goes_wrong_in_a_pack_is_sorted_out_alone(tmp_path: Path) -> None:
    """A batch that cannot be read stops all at once; the trial whose batch it is fails, the others do not."""
    changes = {"fail_at": 3, "fail_seed": 1000, "max_failed": 2}
    alone, packed = swept(text_of(1, **changes), tmp_path / "a"), swept(text_of(4, **changes), tmp_path / "b")
    assert_alike(packed, alone)
    failed = {t.trial_id for t in results.ended_trials(packed) if t.result.state == "FAILED"}
    assert failed == {t.trial_id for t in results.ended_trials(packed) if t.job.seed == 1000}


@pytest.mark.slow
def test_a_pack_that_runs_out_of_memory_is_halved(tmp_path: Path) -> None:
    task = '"tests.orchestrator.test_packs:Crowded"'
    text = text_of(4, task, trials=4, confirm=0).replace(", pause_s: 0.0, fail_at: -1, fail_seed: -1", "")
    with pytest.warns(UserWarning, match="continue in packs of 2: CUDA out of memory"):
        packed = swept(text, tmp_path)
    assert {t.result.state for t in results.ended_trials(packed)} <= {"COMPLETE", "DIVERGED"}
    assert max(sizes(packed)) == 2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*trials could not be stepped together")
def test_trials_of_a_pack_that_do_not_fit_alone_do_not_all_die(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task = '"tests.orchestrator.test_packs:Crowded"'
    text = text_of(8, task, trials=8, confirm=0).replace(", pause_s: 0.0, fail_at: -1, fail_seed: -1", "")
    spec = sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(spec, text, tmp_path, {})
    monkeypatch.setattr(Crowded, "ROOM", 0)
    given_up = abort.Alike(spec, folder)
    with folder.hold():
        runner.run(spec, folder, DebugExecutor(), NoTracker(), [given_up])
    assert "ran out of memory on its GPU" in given_up.refusal
    assert [t.result.state for t in results.ended_trials(folder)] == ["FAILED"] * abort.UNFIT


class Line:
    """A conductor of trials of one arm that wait for nothing."""

    def __init__(self, trials: int, folder: Path, workers: int, pack: int) -> None:
        self.workers, self.remaining, self._folder, self._pack = workers, trials, folder, pack
        self.draining, self.stop = False, set[str]()

    exhausted = property(lambda self: not self.remaining)

    def on_workers(self, count: int) -> None: ...

    def next_job(self, like: Job | None = None) -> Job | None:
        if not self.remaining:
            return None
        self.remaining -= 1
        return Job(
            trial_id=str(self.remaining), arm="a", stage="tune", configuration=0, seed=0, optimizer="sgd",
            parameters={}, task="x", task_parameters={}, budget=1, evaluations=1, metric="m", goal="minimize",
            select="last", folder=str(self._folder), stop_file="stop", pack=self._pack,
        )  # fmt: skip

    def on_report(self, report: Report) -> bool:
        return report.trial_id not in self.stop

    def on_lost(self, trial_id: str, why: str) -> None: ...


def told(*trials: Job, done: bool = False) -> list[Report]:
    return [Report(trial_id=job.trial_id, grad_evals=1.0, done=done) for job in trials]


def arrived(dispatcher: Dispatcher, name: str) -> list[Job]:
    assert dispatcher.wanted() is not None
    dispatcher.ask(name)
    dispatcher.arrive(name)
    found = dispatcher.assign()
    assert found is not None
    assert found[0] == name
    return found[1]


def test_workers_have_a_fair_share_each_and_take_in_others_as_trials_end(tmp_path: Path) -> None:
    conductor = Line(12, tmp_path, workers=2, pack=4)
    dispatcher = Dispatcher(conductor, tmp_path)  # type: ignore[arg-type]
    one, two = arrived(dispatcher, "1"), arrived(dispatcher, "2")
    assert (len(one), len(two)) == (4, 4)
    assert dispatcher.hear("1", told(*one)), "all go on"
    conductor.stop = {one[0].trial_id}
    assert not dispatcher.hear("1", told(*one)), "it is to be turned"
    assert dispatcher.assign() == ("1", one[1:])
    assert not dispatcher.hear("1", told(one[1], done=True)), "half of the pack is free"
    found = dispatcher.assign()
    assert found is not None
    assert found[1][:2] == one[2:]
    assert len(found[1]) == 4
    few = Dispatcher(Line(5, tmp_path, workers=2, pack=4), tmp_path)  # type: ignore[arg-type]
    assert [len(arrived(few, name)) for name in "12"] == [3, 2]


def test_trials_of_a_lost_pack_are_handed_out_alone(tmp_path: Path) -> None:
    """Which of them took the worker down is not known; it will take down none of the others again."""
    dispatcher = Dispatcher(Line(3, tmp_path, workers=1, pack=4), tmp_path)  # type: ignore[arg-type]
    assert len(arrived(dispatcher, "1")) == 3
    dispatcher.lose("1", "its worker died")
    for name in "234":
        jobs = arrived(dispatcher, name)
        assert [job.alone for job in jobs] == [True]
        dispatcher.hear(name, told(*jobs, done=True))
        dispatcher.lose(name, None)
