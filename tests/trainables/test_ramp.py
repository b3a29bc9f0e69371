"""Hyperparameters that change within a trial."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

import optim_core
from tests.tasks import Fit
from trainables.loop import Training
from trainables.ramp import Ramp, split


def test_values_along_the_budget() -> None:
    linear = Ramp(schedule="linear", start=0.0, end=0.1)
    assert [linear.at(x) for x in (0.0, 0.25, 1.0, 1.2)] == pytest.approx([0.0, 0.025, 0.1, 0.1])
    late = Ramp(schedule="cosine", start=1.0, end=0.0, begin=0.5, until=0.9)
    assert [late.at(x) for x in (0.2, 0.5, 0.7, 0.9, 1.0)] == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.0])
    step = Ramp(schedule="step", start=0.0, end=0.05, until=0.3)
    assert [step.at(x) for x in (0.0, 0.29, 0.3, 1.0)] == [0.0, 0.0, 0.05, 0.05]
    whole = Ramp(schedule="linear", start=10, end=20)
    assert [whole.at(x) for x in (0.0, 0.33, 1.0)] == [10, 13, 20]
    assert all(isinstance(whole.at(x / 7), int) for x in range(8))


@pytest.mark.parametrize(
    "given, message",
    [
        ({"sam_radius": {"schedule": "linear", "start": 0}}, "sam_radius.end"),
        ({"sam_radius": {"schedule": "linear", "start": 0, "end": 1, "stop": 2}}, "sam_radius.stop"),
        ({"sam_radius": {"schedule": "up", "start": 0, "end": 1}}, "sam_radius: schedule is 'up'"),
        ({"sam_radius": {"schedule": "linear", "start": 0, "end": "x"}}, "sam_radius: end is 'x'"),
        ({"ema_rate": {"schedule": "step", "start": 0, "end": 1, "until": 0.2, "begin": 0.4}}, "begin is 0.4"),
        ({"lr": {"schedule": "linear", "start": 0, "end": 1}}, "recipe"),
    ],
)
def test_what_is_no_ramp_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split(given)


def training(name: str, budget: float, **hyperparameters: Any) -> Training:
    values, ramps = split(hyperparameters)

    def build(model: Any, loss: Any, refresh: Any) -> Any:
        extra = {"loss": loss, "refresh_batches": refresh} if optim_core.needs_batches(name) else {}
        return optim_core.build(name, model, lr=0.05, **values, **extra)

    return Training(Fit(), build, budget=budget, seed=0, evaluations=4, ramps=ramps)


def finish(run: Training) -> Training:
    while not run.finished:
        run.advance()
    return run


def weights(run: Training) -> list[torch.Tensor]:
    assert isinstance(run.model, torch.nn.Module)
    return [p.detach().clone() for p in run.model.parameters()]


def same(a: Training, b: Training) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


@pytest.mark.parametrize("name", ["sam_radius", "weight_decay"])
def test_a_ramp_between_equal_values_is_that_value(name: str) -> None:
    flat = finish(training("sam", 24, **{name: {"schedule": "cosine", "start": 0.1, "end": 0.1}}))
    assert same(flat, finish(training("sam", 24, **{name: 0.1})))
    assert not same(flat, finish(training("sam", 24, **{name: {"schedule": "linear", "start": 0.0, "end": 0.1}})))


def test_sam_may_begin_after_a_share_of_the_budget() -> None:
    late = training("sam", 24, sam_radius={"schedule": "step", "start": 0.0, "end": 0.3, "until": 0.5})
    plain, sam = training("sam", 24, sam_radius=0.0), training("sam", 24, sam_radius=0.3)
    for run in (late, plain, sam):
        run.advance()
        run.advance()
    assert same(late, plain)
    assert not same(late, sam)
    late.advance()
    plain.advance()
    assert not same(late, plain)


@pytest.mark.slow
def test_a_refresh_interval_that_grows_and_a_resumed_run() -> None:
    ramp = {"schedule": "linear", "start": 2, "end": 40}
    run = training("llqr", 150, refresh_interval=ramp, inner_steps=2)
    run.advance()
    saved = copy.deepcopy(run.state())
    finish(run)
    again = training("llqr", 150, refresh_interval=ramp, inner_steps=2)
    again.load(saved)
    assert same(run, finish(again))
    often = finish(training("llqr", 150, refresh_interval=2, inner_steps=2))
    assert 2 < run.optimizer.refreshes < often.optimizer.refreshes  # type: ignore[attr-defined]
    assert run.optimizer.grad_evals <= 150


def test_what_cannot_change_is_said_at_once() -> None:
    with pytest.raises(ValueError, match="inner_steps of LLQR cannot change"):
        training("llqr", 24, inner_steps={"schedule": "step", "start": 1, "end": 2})
