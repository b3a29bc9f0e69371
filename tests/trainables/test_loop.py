"""Training to a budget: what is spent, when the schedule ends, resuming bit for bit, divergence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._pytree import tree_leaves

import optim_core
import trainables
from tests.contracts.optimizer_contract import SETTINGS
from tests.pair import finish
from tests.tasks import Fit
from trainables import checkpoint
from trainables.loop import Diverged, Training
from trainables.schedule import factor

NEED_DATA = ("images", "tokens")  # their own tests run the contract


def training(name: str = "sgd", budget: float = 40, seed: int = 0, task: Any = None, **values: Any) -> Training:
    values = {**SETTINGS.get(name, {"lr": 0.05}), **values}
    if task is None and optim_core.lookup(name).PLAYS_GAMES:
        task = trainables.build("bilinear", rows=3, columns=3)

    def build(model: Any, loss: Any, refresh: Any) -> Any:
        extra = {"loss": loss, "refresh_batches": refresh} if optim_core.needs_batches(name) else {}
        return optim_core.build(name, model, **values, **extra)

    return Training(
        task or Fit(),
        build,
        budget=budget,
        seed=seed,
        evaluations=4,
    )


def tensors(model: Any) -> list[torch.Tensor]:
    """Parameters and buffers of a model, or of all players."""
    return [t for m in (model if isinstance(model, list) else [model]) for t in m.state_dict().values()]


def comparable(points: list[Any]) -> list[Any]:
    return [(p.grad_evals, {k: v for k, v in p.metrics.items() if not k.startswith("time/")}) for p in points if p]


@pytest.mark.parametrize("name, steps", [("sgd", 40), ("sam", 20)])
def test_two_passes_take_half_the_steps(name: str, steps: int) -> None:
    run = training(name)
    points = finish(run)
    assert run.step == steps
    assert run.optimizer.grad_evals == 40
    assert [p.grad_evals for p in points] == [10, 20, 30, 40]


@pytest.mark.parametrize("name, last", [("sgd", 39 / 40), ("sam", 38 / 40)])
def test_the_schedule_ends_with_the_budget(name: str, last: float) -> None:
    run = training(name)
    finish(run)
    assert run.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 * factor("cosine", last, 0.0))


@pytest.mark.parametrize("shape", ["cosine", "linear", "constant", "step", "inverse_sqrt"])
def test_schedules_warm_up_and_fall(shape: str) -> None:
    rates = [factor(shape, i / 100, 0.1) for i in range(101)]
    assert rates[5] == pytest.approx(0.5)
    assert max(rates) == pytest.approx(1.0)
    falling = rates[10:]
    assert all(a >= b - 1e-12 for a, b in itertools.pairwise(falling))


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, pauses",
    [
        *((name, 7) for name in ("sgd", "sam", "llqr", "rotated_adamw", "conjugate_gradient", "extragradient")),
        *((name, 1) for name in ("sgd", "llqr_sam", "gda")),
    ],
)
def test_paused_and_resumed_equals_uninterrupted(name: str, pauses: int, tmp_path: Path) -> None:
    """Pause every few steps, go through a file and a new process's worth of objects, end at the same bits.

    One for each way of stepping; every optimizer pauses at any step in `test_resume`.
    """
    whole = training(name)
    expected = finish(whole)
    run, found = training(name), []
    while not run.finished:
        left = pauses

        def pause() -> bool:
            nonlocal left
            left -= 1
            return left < 0

        point = run.advance(pause)
        if point is not None:
            found.append(point)
            continue
        checkpoint.save(run.state(), tmp_path)
        run = training(name)
        run.load(checkpoint.newest(tmp_path) or {})
    assert comparable(found) == comparable(expected)
    for a, b in zip(tensors(run.model), tensors(whole.model), strict=True):
        assert torch.equal(a, b)


def test_digests_tell_seeds_apart_and_arms_together() -> None:
    a, b, other = training("sgd"), training("sam"), training("sgd", seed=1)
    assert (a.init_digest, a.data_digest) == (b.init_digest, b.data_digest)
    assert a.init_digest != other.init_digest
    assert a.data_digest != other.data_digest


def test_divergence_is_raised_with_its_cost() -> None:
    run = training(lr=1e6)
    with pytest.raises(Diverged) as caught:
        finish(run)
    assert 1 < caught.value.grad_evals <= 40


def same(one: Any, other: Any) -> bool:
    return all(torch.equal(x, y) if isinstance(x, torch.Tensor) else x == y
               for x, y in zip(tree_leaves(one), tree_leaves(other), strict=True))  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in trainables.names() if n not in NEED_DATA])
def test_task_contract(name: str) -> None:
    """Batches and models are functions of seed and index; metrics are those declared."""
    a, b = trainables.build(name), trainables.build(name)
    assert a.batch_identity(3, 5) == b.batch_identity(3, 5)
    assert same(a.batch(3, 5), b.batch(3, 5))
    for seed, index in ((3, 6), (4, 5)):  # what is another batch has another name
        if not same(a.batch(3, 5), a.batch(seed, index)):
            assert a.batch_identity(3, 5) != a.batch_identity(seed, index)
    model = a.model(3)
    for module in model if isinstance(model, list) else [model]:
        module.eval()
    assert set(a.evaluate(model)) == set(a.METRICS)
    for x, y in zip(tensors(model), tensors(b.model(3)), strict=True):
        assert torch.equal(x, y)
    assert isinstance(model, list) == a.GAME
    if a.GAME:
        losses = a.closure(model, a.refresh_batch(3, 0), lambda: None)()
        assert len(losses) == len(model)
        assert all(torch.isfinite(loss) for loss in losses)
        return
    inputs, targets = a.refresh_batch(3, 0)
    assert torch.isfinite(a.loss(model(inputs), targets))


class Averaging(torch.optim.SGD):
    """Steps at one point and is judged at another, as schedule-free optimizers are: the mean of all points so far."""

    def __init__(self, params: Any, lr: float = 0.05) -> None:
        super().__init__(params, lr=lr)
        self.defaults["training"] = self.param_groups[0]["training"] = False
        self.seen: list[torch.Tensor] = []

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        assert self.param_groups[0]["training"], "not in train mode"
        loss = super().step(closure)
        for p in self.param_groups[0]["params"]:
            state = self.state[p]
            state["count"] = state.get("count", 0) + 1
            state["mean"] = state.get("mean", torch.zeros_like(p)).lerp(p, 1 / state["count"])
        return loss

    @torch.no_grad()
    def eval(self) -> None:
        self.param_groups[0]["training"] = False
        for p in self.param_groups[0]["params"]:
            self.state[p]["point"] = p.clone()
            p.copy_(self.state[p].get("mean", p))
        self.seen = [p.clone() for p in self.param_groups[0]["params"]]

    @torch.no_grad()
    def train(self) -> None:
        self.param_groups[0]["training"] = True
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p].get("point", p))


def test_schedule_free_optimizers_are_judged_where_they_want_to_be() -> None:
    judged: list[list[torch.Tensor]] = []

    class Looking(Fit):
        def evaluate(self, model: Any) -> dict[str, float]:
            judged.append([p.detach().clone() for p in model.parameters()])
            return super().evaluate(model)

    plain, run = training("sgd", momentum=0.0), training(f"{__name__}.Averaging", task=Looking(), lr=0.05)
    finish(plain)
    finish(run)
    assert all(torch.equal(a, b) for a, b in zip(tensors(run.model), tensors(plain.model), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(judged[-1], run.optimizer.seen, strict=True))
    assert not torch.equal(judged[-1][0], next(iter(run.model.parameters())))


def test_skipped_steps_are_a_metric() -> None:
    class Breaks(Fit):
        def loss(self, outputs: torch.Tensor, targets: Any) -> torch.Tensor:
            found = super().loss(outputs, targets)
            if self.calls == 3:
                outputs.register_hook(lambda g: g * float("nan"))
            self.calls += 1
            return found

        calls = 0

    run = training("sgd", task=Breaks())
    with pytest.warns(RuntimeWarning, match="not finite"):
        points = finish(run)
    assert points[-1].metrics["cost/skipped_steps"] == 1
    assert "cost/skipped_steps" not in finish(training("sgd"))[-1].metrics
    assert all(bool(t.isfinite().all()) for t in tensors(run.model))
