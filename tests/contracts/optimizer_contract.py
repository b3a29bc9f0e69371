"""What every registered optimizer promises (style: a contract suite, each implementation runs all of it)."""

from __future__ import annotations

import copy
import io
import math
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict

import optim_core

BY_SPECTRUM = {"gd", "nesterov", "polyak", "chebyshev", "generalized_chebyshev", "marchenko_pastur", "laguerre"}
SETTINGS: dict[str, dict[str, Any]] = {
    **{name: {"smoothness": 2.0} for name in BY_SPECTRUM},
    **{name: {"smoothness": 2.0, "strong_convexity": 0.1} for name in ("polyak", "chebyshev", "marchenko_pastur")},
    "laguerre": {"eigenvalue_scale": 1.0, "beta": 2.0},
    "conjugate_gradient": {"on_mismatch": "restart"},
    **{name: {"lr": 0.05, "refresh_interval": 3} for name in ("llqr", "llqr_sam")},
    "looksam": {"lr": 0.05, "look_interval": 2},
}
"""Constructor values of optimizers that have no `lr`, or that have to refresh within the few steps of this suite."""


def problem(dtype: torch.dtype = torch.float64) -> tuple[nn.Sequential, Callable[[int], tuple[Tensor, Tensor]]]:
    """A small tanh network and its batches by index."""
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 3)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=torch.float64) * 0.5)

    return model, partial(batch_of, dtype=dtype)


def batch_of(index: int, dtype: torch.dtype, stream: int = 100) -> tuple[Tensor, Tensor]:
    """Inputs and labels; `stream` tells those for refreshes from those for training."""
    g = torch.Generator().manual_seed(stream + index)
    x = torch.randn(16, 6, generator=g, dtype=torch.float64).to(dtype)
    return x, torch.randint(3, (16,), generator=g)


def batches_for(name: str, dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    """What an optimizer that draws batches of its own is built with: the problem's, from a stream of their own."""
    if not optim_core.needs_batches(name):
        return {}
    return {"loss": nn.functional.cross_entropy, "refresh_batches": partial(batch_of, dtype=dtype, stream=10_100)}


class Run:
    """An optimizer on the problem; counts the closure's calls."""

    def __init__(self, make: Callable[[nn.Module], Any], dtype: torch.dtype = torch.float64) -> None:
        self.model, self.batch = problem(dtype)
        self.optimizer = make(self.model)
        self.calls = 0

    def closure(self, index: int) -> Callable[[], Tensor]:
        x, y = self.batch(index)

        def evaluate() -> Tensor:
            self.calls += 1
            self.optimizer.zero_grad()
            loss = nn.functional.cross_entropy(self.model(x).float() if x.dtype == torch.bfloat16 else self.model(x), y)
            loss.backward()
            return loss

        return evaluate

    def steps(self, first: int, last: int) -> list[float]:
        return [float(self.optimizer.step(self.closure(i)).detach()) for i in range(first, last)]

    def weights(self) -> list[Tensor]:
        return [p.detach().clone() for p in self.model.parameters()]


class GameRun(Run):
    """A game on the same problem: a classifier against one who shifts its inputs. Losses come in a list."""

    def __init__(self, make: Callable[[Any], Any], dtype: torch.dtype = torch.float64) -> None:
        classifier, self.batch = problem(dtype)
        torch.manual_seed(2)
        self.model = nn.ModuleList([classifier, nn.Linear(6, 6, dtype=dtype)])
        self.optimizer = make(list(self.model))
        self.calls = 0

    def closure(self, index: int) -> Callable[[], Any]:
        x, y = self.batch(index)
        classifier, shifter = self.model

        def evaluate() -> list[Tensor]:
            self.calls += 1
            shift = 0.3 * shifter(x)
            loss = nn.functional.cross_entropy(classifier(x + shift).to(torch.promote_types(x.dtype, torch.float32)), y)
            return [loss, 2 * (shift**2).mean() - loss]

        return evaluate

    def steps(self, first: int, last: int) -> list[Any]:
        return [[float(x) for x in self.optimizer.step(self.closure(i))] for i in range(first, last)]


def begin(make: Callable[[Any], Any], dtype: torch.dtype = torch.float64) -> Run:
    """A run of what `make` makes, which says by `plays_games` that it wants players."""
    return (GameRun if getattr(make, "plays_games", False) else Run)(make, dtype)


def equal(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def check_counts(make: Callable[[nn.Module], Any], share: float = 1.0) -> None:
    """What is announced is spent; `share` of GRAD_EVALS where not every step takes all of its gradients."""
    run = begin(make)
    announced = 0.0
    for i in range(3):
        announced += run.optimizer.next_cost()
        run.steps(i, i + 1)
    assert run.optimizer.grad_evals == announced >= run.calls
    if type(run.optimizer).PLAYS_GAMES:  # some passes are dearer than one evaluation: measured in tests/bench
        return
    assert run.calls == 3 * share * type(run.optimizer).GRAD_EVALS


def check_needs_a_closure_with_backward(make: Callable[[nn.Module], Any]) -> None:
    run = begin(make)
    before = run.weights()

    games = type(run.optimizer).PLAYS_GAMES  # their closure calls no backward
    x, y = run.batch(0)

    def forgets() -> Tensor:
        return nn.functional.cross_entropy(run.model(x), y)

    for closure, kind in (
        *(() if games else ((forgets, RuntimeError),)),
        (None, TypeError),
        (lambda: None, RuntimeError),
        (lambda: torch.ones(()), RuntimeError),
    ):
        try:
            run.optimizer.step(closure)
        except kind as error:
            assert "closure" in str(error)
        else:
            raise AssertionError(f"step({closure}) was accepted")
    if games:
        assert equal(run.weights(), before)
        return
    forgets().backward()  # a gradient from outside does not make up for it
    try:
        run.optimizer.step(forgets)
    except RuntimeError as error:
        assert "backward" in str(error)
    else:
        raise AssertionError("a stale gradient was accepted")
    assert equal(run.weights(), before)


def check_learning_rate_zero_moves_nothing(make: Callable[[nn.Module], Any], key: str = "lr") -> None:
    run = begin(make)
    before, storage = run.weights(), [p.data_ptr() for p in run.model.parameters()]
    for group in run.optimizer.param_groups:
        group[key] = 0.0
    run.steps(0, 3)
    assert equal(run.weights(), before)
    assert [p.data_ptr() for p in run.model.parameters()] == storage


def check_resumes_bit_for_bit(make: Callable[[nn.Module], Any], dtype: torch.dtype, at: int) -> None:
    whole = begin(make, dtype)
    whole.steps(0, at)
    buffer = io.BytesIO()
    torch.save({"model": whole.model.state_dict(), "optimizer": whole.optimizer.state_dict()}, buffer)
    losses = whole.steps(at, 9)
    again = begin(make, dtype)
    saved = torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)
    again.model.load_state_dict(saved["model"])
    again.optimizer.load_state_dict(saved["optimizer"])
    assert again.steps(at, 9) == losses
    assert equal(again.weights(), whole.weights())
    assert again.optimizer.grad_evals == whole.optimizer.grad_evals


def check_refuses_unknown_hyperparameters(name: str) -> None:
    first = next(iter(optim_core.hyperparameters(name)))
    try:
        optim_core.build(name, problem()[0], **{first + "x": 1})
    except TypeError as error:
        assert f"did you mean {first}?" in str(error)
    else:
        raise AssertionError("an unknown hyperparameter was accepted")


def check_limit(make: Callable[..., Any], twin: Callable[..., Any], deviation: float, steps: int = 8) -> None:
    """Step by step in float64: weights within `deviation` of how far the other one has moved; 0: bit for bit."""
    run, other = begin(make), begin(twin)
    start = other.weights()
    for index in range(steps):
        run.steps(index, index + 1)
        other.steps(index, index + 1)
        if deviation == 0:
            assert equal(run.weights(), other.weights()), index
        else:
            assert length(run.weights(), other.weights()) <= deviation * length(other.weights(), start), index
    assert not equal(other.weights(), start)


def length(a: list[Tensor], b: list[Tensor]) -> float:
    """|a - b| over all tensors together."""
    return math.sqrt(sum(float((x - y).square().sum()) for x, y in zip(a, b, strict=True)))


def check_follows_a_scheduler(make: Callable[[nn.Module], Any]) -> None:
    """torch's schedulers attach to the optimizer: the same steps as with each rate set by hand."""
    run, twin, constant, steps = begin(make), begin(make), begin(make), 5
    peak = run.optimizer.param_groups[0]["lr"]
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(run.optimizer, steps)
    for index in range(steps):
        rate = run.optimizer.param_groups[0]["lr"]
        assert abs(rate - peak * (1 + math.cos(math.pi * index / steps)) / 2) < 1e-12 * peak
        for group in twin.optimizer.param_groups:
            group["lr"] = rate
        assert run.steps(index, index + 1) == twin.steps(index, index + 1)
        constant.steps(index, index + 1)
        scheduler.step()
    assert equal(run.weights(), twin.weights())
    assert not equal(run.weights(), constant.weights())


def check_hyperparameters_change_while_training(
    make: Callable[..., Any], name: str, telling: Collection[str] = ()
) -> None:
    """All, changed before the first step, are as if they had been given; each, changed later, as a run resumed with it.

    For the `telling` ones the later steps are others than without the change. One that cannot change is refused.
    """
    probe = begin(make).optimizer
    betas = zip(("beta1", "beta2"), probe.param_groups[0].get("betas", ()), strict=False)
    current = {**probe.param_groups[0], **dict(betas)}  # without those of a base that it is not built over
    old = {
        key: current[key] for key in sorted(optim_core.changeable(name)) if isinstance(current.get(key), int | float)
    }
    values = {key: value + 2 if isinstance(value, int) else 0.7 * value + 0.01 for key, value in old.items()}
    given, changed = begin(make.with_values(**values)), begin(make)  # type: ignore[attr-defined]
    changed.optimizer.change(**values)
    given.steps(0, 5)
    changed.steps(0, 5)
    assert equal(given.weights(), changed.weights()), values
    end = 7 if telling else 5
    begun, kept = begin(make), begin(make)
    begun.steps(0, 3)
    kept.steps(0, end if telling else 0)
    for key, new in values.items():
        late, resumed = copy.copy(begun), begin(make.with_values(**{key: new}))  # type: ignore[attr-defined]
        late.model, late.optimizer = copy.deepcopy((begun.model, begun.optimizer))
        resumed.model.load_state_dict(copy.deepcopy(late.model.state_dict()))
        resumed.optimizer.load_state_dict(with_value(late.optimizer.state_dict(), key, new))
        late.optimizer.change(**{key: new})
        assert late.steps(3, end) == resumed.steps(3, end), key
        assert equal(late.weights(), resumed.weights()), key
        if key in telling:
            assert not equal(late.weights(), kept.weights()), key
    with pytest.raises(ValueError, match="cannot change while it trains"):
        probe.change(no_such_hyperparameter=1.0)


def check_never_reuses_a_gradient(make: Callable[[nn.Module], Any]) -> None:
    """A closure that forgets to clear is as one that clears; gradients from outside are refused or cleared by it."""
    run, clears = begin(make), begin(make)

    def forgets(index: int, clear: Callable[[], None] = lambda: None) -> Callable[[], Tensor]:
        x, y = run.batch(index)

        def closure() -> Tensor:
            clear()
            loss = nn.functional.cross_entropy(run.model(x), y)
            loss.backward()
            return loss

        return closure

    for index in range(3):
        run.optimizer.step(forgets(index))
        clears.steps(index, index + 1)
    assert equal(run.weights(), clears.weights())
    nn.functional.cross_entropy(run.model(run.batch(8)[0]), run.batch(8)[1]).backward()  # a micro-batch before the step
    with pytest.raises(RuntimeError, match="did not clear"):
        run.optimizer.step(forgets(3))
    assert equal(run.weights(), clears.weights())
    run.optimizer.step(forgets(3, lambda: run.optimizer.zero_grad(set_to_none=False)))
    clears.steps(3, 4)
    assert equal(run.weights(), clears.weights())


def check_skips_what_is_not_finite(make: Callable[[nn.Module], Any], call: int) -> None:
    """The `call`-th gradient of a step is not finite: weights as they were, counted, said, and training goes on."""
    run = begin(make)
    run.steps(0, 2)
    before, inner, first = run.weights(), run.closure(2), run.calls

    def closure() -> Tensor:
        loss = inner()
        if run.calls - first == call:
            next(run.model.parameters()).grad.view(-1)[-1] = math.nan
        return loss

    with pytest.warns(RuntimeWarning, match="not finite"):
        run.optimizer.step(closure)
    assert run.calls - first == call
    assert equal(run.weights(), before)
    assert run.optimizer.skipped_steps == 1
    run.steps(3, 6)
    assert all(bool(w.isfinite().all()) for w in run.weights())
    assert not equal(run.weights(), before)
    assert run.optimizer.skipped_steps == 1


def check_a_fresh_optimizer_takes_a_distributed_checkpoint(make: Callable[[nn.Module], Any]) -> None:
    """torch makes the state by a step without closure along zero gradients before it loads."""
    run, fresh = begin(make), begin(make)
    run.steps(0, 4)
    saved = copy.deepcopy(get_optimizer_state_dict(run.model, run.optimizer))
    fresh.model.load_state_dict(run.model.state_dict())
    set_optimizer_state_dict(fresh.model, fresh.optimizer, saved)
    assert fresh.steps(4, 7) == run.steps(4, 7)
    assert equal(fresh.weights(), run.weights())
    assert fresh.optimizer.grad_evals == run.optimizer.grad_evals


def with_value(state: dict[str, Any], key: str, value: float) -> dict[str, Any]:
    """A copy of the state of an optimizer, with another value of a hyperparameter in every group that has it."""
    found = copy.deepcopy(state)
    for group in found["param_groups"]:
        if key in group:
            group[key] = value
        elif key in ("beta1", "beta2"):
            first, second = group["betas"]
            group["betas"] = (value, second) if key == "beta1" else (first, value)
    return found
