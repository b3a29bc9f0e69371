"""Batches read ahead: the same bits with any number of readers, errors with their place, and nobody left behind."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

import optim_core
from orchestrator import results
from orchestrator.definition import model as definitions
from orchestrator.definition import sweep_file
from orchestrator.definition.states import State
from orchestrator.storage.metric_log import MetricLog
from tests.orchestrator.test_training_section import resolved
from tests.swept import swept
from tests.trainables.data import canonical, sources
from trainables import Task
from trainables.data.convert import convert
from trainables.data.prefetch import Prefetch
from trainables.loop import Training
from trainables.recipe import Recipe
from trainables.tasks.images import Images
from trainables.tasks.tokens import Tokens

SWEEP: dict[str, Any] = {
    "schema_version": 1,
    "name": "read",
    "metric": {"name": "loss/val", "goal": "minimize"},
    "arms": {"sgd": {"parameters": {"lr": {"values": [0.01, 0.02]}}}},
    "method": {"name": "grid"},
    "budget": {"unit": "grad_evals", "per_trial": 4},
    "seeds": {"tune": 1, "confirm": 0},
    "evaluations": 2,
    "max_failed": 9,
    "resources": {"readers": 2},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("readers")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOSWEEP_CACHE", str(folder / "cache"))
        canonical.raw_images(folder / "raw", {"train": 60})
        convert("imagefolder", sources.image_folder(folder / "src", {"train": 12, "val": 2}), folder / "encoded")
        ids = np.arange(400) % 37
        canonical.tokens(folder / "text", {"train": ids, "val": ids[:80]}, vocabulary=37, block=20)
        (folder / "broken").mkdir()
        broken = ids.copy()
        broken[90:] = 99
        for split, values in {"train": broken, "val": ids}.items():
            values.astype(np.uint16).tofile(folder / f"broken/{split}.bin")
        yield folder


def task(place: Path, name: str) -> Task:
    if name == "text":
        return Tokens(data=str(place / "text"), model="gpt_nano", context=8, batch_size=4)
    extra: dict[str, Any] = {"size": 8, "crop": "resized"} if name == "encoded" else {"cutout": 4, "crop": "padded"}
    return Images(data=str(place / name), model="resnet18", batch_size=8, flip=True, noise=0.2, held_out=0.2, **extra)


def batches(task: Task, order: list[int]) -> list[Tensor]:
    """Training batches and, in between, those of refreshes."""
    found = []
    for index in order:
        found += [*task.batch(3, index), *task.refresh_batch(3, index // 2)]
    return found


OTHERS: set[int | None] = set()


@pytest.fixture(autouse=True)
def others() -> None:
    """Readers of tasks that an earlier test still holds."""
    OTHERS.update(thread.ident for thread in threading.enumerate())


def readers() -> list[str]:
    """Names of the readers that this test began."""
    return [t.name for t in threading.enumerate() if t.name.startswith("geosweep-reader") and t.ident not in OTHERS]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["raw", "encoded", "text"])
def test_batches_have_the_same_bits_with_any_number_of_readers(place: Path, name: str) -> None:
    """Over the ends of epochs, out of order, and from the middle on as after a resume."""
    order = [*range(12), 5, 6, 30, 31, 2]
    expected = batches(task(place, name), order)
    for count in (1, 4):
        ahead = task(place, name)
        ahead.read_ahead(count)
        assert ahead.readers == count
        assert all(torch.equal(a, b) for a, b in zip(batches(ahead, order), expected, strict=True))
        assert readers()
        ahead.read_ahead(0)
        assert not readers()
        assert all(torch.equal(a, b) for a, b in zip(batches(ahead, order[:2]), expected, strict=False))


@pytest.mark.slow
def test_training_stopped_and_gone_on_with_other_readers_has_the_same_bits(place: Path) -> None:
    def training(count: int) -> Training:
        data = task(place, "text")
        data.read_ahead(count)
        return Training(
            data,
            lambda model, loss, refresh: optim_core.build("adamw", model, lr=0.01),
            budget=12,
            seed=1,
            evaluations=2,
            recipe=Recipe(schedule="cosine"),
        )

    whole, first, second = training(0), training(4), training(1)
    while not whole.finished:
        whole.advance()
    first.advance(lambda: first.step == 5)
    second.load(first.state())
    while not second.finished:
        second.advance()
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):  # type: ignore[union-attr]
        assert torch.equal(a, b)
    for run in (first, second):
        run.task.read_ahead(0)
    assert not readers()


@pytest.mark.parametrize("count", [1, 4])
def test_so_many_batches_are_held_and_no_more(count: int) -> None:
    """Even by a consumer that never asks again; what nobody asks for may fail in silence."""
    made, lock, full = [], threading.Lock(), threading.Event()

    def make(seed: int, index: int) -> int:
        with lock:
            made.append(index)
            if len(made) == 2 * count:
                full.set()
        if index:
            raise RuntimeError("row 7 is bad")
        return index

    ahead = Prefetch(make, count)
    assert ahead.get(0, 0) == 0
    assert full.wait(10)
    with pytest.raises(RuntimeError, match="row 7 is bad") as caught:
        ahead.get(0, 1)
    assert caught.value.__notes__ == ["while batch 1 of seed 0 was read ahead"]
    ahead.close()
    assert not readers()
    assert sorted(made) == list(range(len(made)))
    assert len(made) <= 2 * count + 1


def trained(file: dict[str, Any], root: Path) -> Any:
    text = yaml.safe_dump(file)
    folder = swept(text, root)
    return folder, {t.trial_id: t.result for t in results.ended_trials(folder)}


@pytest.mark.slow
def test_a_sweeps_readers_end_with_its_trials_and_leave_no_trace_in_results(place: Path, tmp_path: Path) -> None:
    text = {"name": "tokens", "data": str(place / "text"), "model": "gpt_nano", "context": 8, "batch_size": 4}
    folder, ahead = trained({**SWEEP, "task": text}, tmp_path / "ahead")
    assert not readers()
    plain_folder, plain = trained({**SWEEP, "task": text, "resources": {}}, tmp_path / "plain")
    assert folder.sweep_id == plain_folder.sweep_id
    assert ahead.keys() == plain.keys()
    for name, result in ahead.items():
        assert result.state is State.COMPLETE
        assert (result.value, result.data_digest) == (plain[name].value, plain[name].data_digest)
        for where, there in ((folder, True), (plain_folder, False)):
            points = MetricLog(where.trial(name) / "metrics.jsonl").points()
            assert all(("time/data_s" in p.metrics) is there for p in points)


def test_an_error_of_a_reader_is_the_trials_with_its_place(place: Path, tmp_path: Path) -> None:
    text = {"name": "tokens", "data": str(place / "broken"), "model": "gpt_nano", "context": 8, "batch_size": 4}
    _, found = trained({**SWEEP, "task": {**text, "vocabulary": 37}}, tmp_path)
    assert [result.state for result in found.values()] == [State.FAILED] * 2
    for result in found.values():
        assert "train.bin" in result.error
        assert "is 99; the vocabulary has 37" in result.error
        assert "was read ahead" in result.error
    assert not readers()


@pytest.mark.parametrize(
    "given, count",
    [({}, 0), ({"cpu": 8}, 0), ({"gpu": 1}, 1), ({"gpu": 0.5, "cpu": 3}, 3), ({"gpu": 1, "cpu": 16}, 4),
     ({"readers": 7}, 7), ({"readers": 0, "gpu": 1}, 0)],
    ids=str,
)  # fmt: skip
def test_auto_reads_ahead_where_a_gpu_computes(place: Path, given: dict[str, Any], count: int) -> None:
    text = {"name": "tokens", "data": str(place / "text"), "model": "gpt_nano", "context": 8, "batch_size": 4}
    spec = sweep_file.loads(yaml.safe_dump({**SWEEP, "task": text, "resources": given}))
    assert spec.resources.readers == count
    plain = sweep_file.loads(yaml.safe_dump({**SWEEP, "task": text, "resources": {}}))
    assert definitions.sweep_id(spec) == definitions.sweep_id(plain)
    assert resolved(resources={"gpu": 1, "cpu": 4}).resources.readers == 0  # a task that makes its batches in the step


def test_a_tasks_own_word_comes_first(place: Path) -> None:
    with_own = Tokens(data=str(place / "text"), model="gpt_nano", context=8, batch_size=4, workers=3)
    assert with_own.readers == 3
    with_own.read_ahead(1)
    assert with_own.readers == 3
    with_own.read_ahead(0)
    assert with_own.readers == 0
