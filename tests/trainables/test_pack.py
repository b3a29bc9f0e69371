"""Runs in a pack take the steps that they take alone, up to rounding, whoever is beside them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import optim_core
from optim_core.packed import PackedStep
from tests.tasks import Fit
from trainables.disproof import disproved
from trainables.loop import Diverged, Point, Training
from trainables.pack import Pack
from trainables.packable import unpackable
from trainables.packed_loss import IGNORED, Together
from trainables.ramp import Ramp
from trainables.task_class import Model

TOLERANCE = 1e-4
"""Of a weight after 40 steps in float32, relative to 1; what is seen is below 1e-5."""
Run = dict[str, Any]


class Normed(Fit):
    """With BatchNorm, whose running statistics are each run's own."""

    def __init__(self, *, width: int = 4) -> None:
        super().__init__(width=width, dropout=0.0)

    def model(self, seed: int) -> Model:
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


class Deciding(Fit):
    """With a forward pass that looks at its numbers."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        loss = super().loss(outputs, targets)
        return loss if loss > 0 else -loss


class Looking(Normed):
    """With an evaluation that looks at its numbers."""

    def scores(self, model: Model) -> dict[str, Tensor]:
        found = super().scores(model)
        return found if found["loss/val"] > 0 else {}


class Extending(Normed):
    """With metrics of its own, as numbers."""

    def evaluate(self, model: Model) -> dict[str, float]:
        return {**super().evaluate(model), "loss/twice": 2.0}


class Mixing(Fit):
    """With a model that mixes what is beside it, as a careless one may: it works alone and not in a pack."""

    def __init__(self) -> None:
        super().__init__(dropout=0.0)
        self.seen: list[int] = []

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        self.seen.append(0)
        return super().loss(outputs, targets) * float(
            len(self.seen) if torch._C._functorch.is_batchedtensor(outputs) else 1
        )


def run(optimizer: str = "sgd", *, task: Any = None, seed: int = 0, recipe: Run | None = None, ramps: Any = None,
        budget: float = 40, **hyperparameters: Any) -> Training:  # fmt: skip
    task = task or Fit(dropout=0.0)

    def build(model: Any, loss: Any, refresh: Any) -> Any:
        return optim_core.build(optimizer, model, **hyperparameters)

    found = task.recipe(**(recipe or {}))
    return Training(task, build, budget=budget, seed=seed, evaluations=4, recipe=found, ramps=ramps)


def to_the_end(training: Training) -> list[Point]:
    points: list[Point] = []
    while not training.finished:
        point = training.advance()
        assert point is not None
        points.append(point)
    return points


def together(runs: Sequence[Training]) -> list[list[Point]]:
    """Until the first has ended, then in a pack of those that are left; the last one alone."""
    points: list[list[Point]] = [[] for _ in runs]
    while len(left := [k for k, one in enumerate(runs) if not one.finished]) > 1:
        pack = Pack([runs[k] for k in left], PackedStep)
        while not any(runs[k].finished for k in left):
            for k, end in pack.advance().items():
                assert end is None
                points[left[k]].append(pack.point(k))
        pack.release()
    for k in left:
        points[k] += to_the_end(runs[k])
    return points


def weights(training: Training) -> list[Tensor]:
    assert isinstance(training.model, nn.Module)
    return [x.double() for x in training.model.state_dict().values()]


def assert_alike(training: Training, other: Training) -> None:
    for mine, theirs in zip(weights(training), weights(other), strict=True):
        assert torch.allclose(mine, theirs, rtol=TOLERANCE, atol=TOLERANCE)


CASES: dict[str, list[Run]] = {
    "sgd": [{"lr": 0.1}, {"lr": 0.03, "momentum": 0.0, "weight_decay": 0.01}, {"lr": 0.01, "momentum": 0.5}],
    "seeds": [{"lr": 0.1, "seed": 1}, {"lr": 0.1, "seed": 2}],
    "recipes": [
        {"lr": 0.1, "recipe": {"warmup": 0.3}},
        {"lr": 0.1, "recipe": {"schedule": "constant", "clip_norm": 0.1}},
    ],
    "ramps": [
        {"lr": 0.1, "momentum": 0.5, "ramps": {"momentum": Ramp(schedule="linear", start=0.5, end=0.9)}},
        {"lr": 0.05},
    ],
    "adamw": [{"optimizer": "adamw", "lr": 0.1}, {"optimizer": "adamw", "lr": 0.01, "beta1": 0.5, "beta2": 0.9}],
    "sam": [{"optimizer": "sam", "lr": 0.05, "sam_radius": r} for r in (0.0, 0.05, 0.5)],
    "batch norm": [{"task": Normed(), "lr": lr} for lr in (0.1, 0.01)],
    "batch norm, two passes": [{"optimizer": "sam", "task": Normed(), "lr": lr} for lr in (0.1, 0.01)],
    "batch norm, the second pass": [
        {"optimizer": "sam", "task": Normed(), "lr": lr, "norm_statistics": "perturbed"} for lr in (0.1, 0.01)
    ],
    "lengths": [{"lr": 0.1, "budget": 40}, {"lr": 0.1, "budget": 23}],
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_packed_run_is_the_run_alone(case: list[Run]) -> None:
    alone, packed = [run(**one) for one in case], [run(**one) for one in case]
    expected, points = [to_the_end(one) for one in alone], together(packed)
    for one, other, mine, theirs in zip(alone, packed, expected, points, strict=True):
        assert_alike(one, other)
        assert [p.grad_evals for p in mine] == [p.grad_evals for p in theirs]
        assert (one.step, one.init_digest, one.data_digest) == (other.step, other.init_digest, other.data_digest)
        for a, b in zip(mine, theirs, strict=True):
            assert b.metrics.get("cost/pack", 1) in (1, len(case))
            assert all(
                b.metrics[key] == pytest.approx(value, rel=1e-3)
                for key, value in a.metrics.items()
                if not key.startswith("time/")
            )


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "sam"])
def test_checkpoints_of_a_pack_go_on_alone_and_beside_others(optimizer: str) -> None:
    """Three runs pause in the middle between two evaluations; each goes on from its state somewhere else."""
    lrs = (0.1, 0.03, 0.01)
    never = [run(optimizer, lr=lr) for lr in lrs]
    for one in never:
        to_the_end(one)
    left = [run(optimizer, lr=lr) for lr in lrs]
    pack, calls = Pack(left, PackedStep), iter(range(100))
    assert pack.advance(lambda: next(calls) == 4) == {}
    assert {one.step for one in left} == {4}
    states = [pack.state(k) for k in range(3)]
    again = [run(optimizer, lr=lr) for lr in lrs]
    for one, state in zip(again, states, strict=True):
        one.load(state)
    stranger = run(optimizer, lr=0.02, seed=3)
    together([again[2], stranger, again[0]])
    to_the_end(again[1])
    for one, other in zip(never, again, strict=True):
        assert_alike(one, other)


def test_a_state_holds_one_run_alone() -> None:
    """Rows of a pack are one tensor; a checkpoint of one run does not hold the others."""
    runs = [run("adamw", lr=0.1) for _ in range(8)]
    pack = Pack(runs, PackedStep)
    pack.advance()
    state = pack.state(3)
    tensors = [*state["models"][0].values(), *(x for s in state["optimizer"]["state"].values() for x in s.values())]
    assert all(x.untyped_storage().nbytes() == x.numel() * x.element_size() for x in tensors)
    assert len({x.untyped_storage().data_ptr() for x in tensors}) == len(tensors)


def test_one_that_diverges_leaves_the_others_as_they_were() -> None:
    lrs = (0.1, 1e6, 0.03)
    alone, packed = [run(lr=lr) for lr in lrs], [run(lr=lr) for lr in lrs]
    with pytest.raises(Diverged) as caught:
        to_the_end(alone[1])
    pack = Pack(packed, PackedStep)
    outcome = pack.advance()
    pack.release()
    assert outcome.keys() == {1}
    end = outcome[1]
    assert end is not None
    assert (end.grad_evals, end.loss) == (caught.value.grad_evals, pytest.approx(caught.value.loss, rel=1e-3))
    rest = [packed[0], packed[2]]
    for one in (alone[0], alone[2]):
        to_the_end(one)
    together(rest)
    assert_alike(alone[0], rest[0])
    assert_alike(alone[2], rest[1])


def test_what_cannot_be_packed_says_why() -> None:
    task, recipe = Fit(), Fit().recipe()
    assert "draws at random in training (Dropout)" in unpackable(task, task.model(0), recipe)
    for key, value in (("precision", "fp16"), ("accumulate", 2), ("weight_average", 0.9), ("compile", True)):
        plain = Fit(dropout=0.0)
        assert key in unpackable(plain, plain.model(0), plain.recipe(**{key: value}))
    with pytest.raises(ValueError, match="settings that differ"):
        Pack([run("sam", lr=0.1, base=base) for base in ("sgd", "adamw")], PackedStep)


def test_a_model_is_tried_out() -> None:
    def two(task: type[Fit], **given: Any) -> str:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return disproved(lambda: [run(task=task(**given), lr=0.1, seed=seed) for seed in (0, 1)], PackedStep)

    assert not two(Fit, dropout=0.0)
    assert not two(Normed)
    assert "data-dependent" in two(Deciding)
    assert "differs by" in two(Mixing)


def test_runs_of_one_seed_are_evaluated_together() -> None:
    """Each has the metrics that it has alone; BatchNorm uses its averages, and goes on collecting them afterwards."""
    runs = [run(task=Normed(), lr=lr, seed=seed) for lr, seed in ((0.1, 0), (0.03, 0), (0.01, 0), (0.1, 1))]
    pack = Pack(runs, PackedStep)
    assert list(pack.advance()) == [0, 1, 2, 3]
    found = pack.scores([0, 1, 2, 3])
    assert found.keys() == {0, 1, 2}, "a seed of its own has an evaluation of its own"
    assert pack.scores([0, 2]) == {k: pytest.approx(found[k], rel=1e-5) for k in (0, 2)}
    for k, scores in found.items():
        assert scores == pytest.approx(runs[k].measure(), rel=1e-5)
        assert pack.point(k, scores).metrics["loss/val"] == scores["loss/val"]
    pack.point(3)
    before = pack.state(0)["models"][0]["1.running_mean"]
    pack.advance()
    assert not torch.equal(before, pack.state(0)["models"][0]["1.running_mean"])


@pytest.mark.parametrize("task", [Looking, Extending])
def test_an_evaluation_that_cannot_be_shared_is_each_runs_own(task: type[Fit]) -> None:
    runs = [run(task=task(), lr=lr) for lr in (0.1, 0.03)]
    pack = Pack(runs, PackedStep)
    pack.advance()
    assert not pack.scores([0, 1])
    assert pack.point(1).metrics["loss/val"] == pytest.approx(runs[1].measure()["loss/val"])


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_cross_entropy_of_several_runs_is_that_of_each(shared: bool, masked: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    outputs = torch.randn(3, 5, 4, dtype=torch.float64, generator=generator, requires_grad=True)
    targets = torch.randint(4, (5,) if shared else (3, 5), generator=generator)
    if masked:
        targets[..., 1] = IGNORED
    with Together():
        losses = torch.vmap(F.cross_entropy, in_dims=(0, None if shared else 0))(outputs, targets)
    each = torch.stack([F.cross_entropy(outputs[k], targets if shared else targets[k]) for k in range(3)])
    weights = torch.arange(1.0, 4.0, dtype=torch.float64)
    assert torch.allclose(losses, each, rtol=1e-12)
    for mine, theirs in zip(
        torch.autograd.grad(losses @ weights, outputs), torch.autograd.grad(each @ weights, outputs), strict=True
    ):
        assert torch.allclose(mine, theirs, rtol=1e-12)


def test_weight_gradients_have_the_order_of_the_weights() -> None:
    """Layers with and without bias, inputs with several rows each, a weight that two layers share."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4, bias=False), nn.Linear(4, 4)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            found: Tensor = self.two(self.one(x.unflatten(0, (2, -1))).relu()).flatten(0, 1)
            return found

    class Shared(Normed):
        def model(self, seed: int) -> Model:
            torch.manual_seed(seed)
            return Tied()

    alone, packed = ([run("sam", task=Shared(), lr=lr, seed=s) for lr, s in ((0.1, 0), (0.03, 1))] for _ in range(2))
    for one in alone:
        to_the_end(one)
    together(packed)
    for one, other in zip(alone, packed, strict=True):
        assert_alike(one, other)
