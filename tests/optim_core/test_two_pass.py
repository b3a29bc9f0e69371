"""The SAM family as people use it: groups, accumulation, autocast, clipping, unused and tied weights, memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import optim_core
from optim_core.sam import ASAM, SAM, FriendlySAM
from tests.closures import closure_of
from tests.contracts.optimizer_contract import Run, equal, problem

KIN = ["sam", "asam", "friendly_sam"]
CLASSES = {"sam": SAM, "asam": ASAM, "friendly_sam": FriendlySAM}


def by_hand(
    loss: Callable[[], Tensor],
    groups: list[dict[str, Any]],
    velocity: dict[Tensor, Tensor],
    means: dict[Tensor, Tensor],
    name: str = "sam",
) -> None:
    """One step by the formulas of `optim_core.sam`; groups hold params, lr, weight_decay and sam_radius."""
    params = [p for g in groups for p in g["params"]]
    home = {p: p.detach().clone() for p in params}
    first = dict(zip(params, torch.autograd.grad(loss(), params), strict=True))
    size = {p: home[p].abs() + 0.01 if name == "asam" and p.ndim > 1 else torch.ones_like(p) for p in params}
    way = {p: first[p] - means.get(p, torch.zeros_like(p)) if name == "friendly_sam" else first[p] for p in params}
    norm = torch.sqrt(sum(((size[p] * way[p]) ** 2).sum() for p in params))
    with torch.no_grad():
        for g in groups:
            for p in g["params"]:
                p.add_(g["sam_radius"] * size[p] ** 2 * way[p] / norm)
    second = dict(zip(params, torch.autograd.grad(loss(), params), strict=True))
    with torch.no_grad():
        for g in groups:
            for p in g["params"]:
                v = velocity.setdefault(p, torch.zeros_like(p))
                v.mul_(0.9).add_(second[p] + g["weight_decay"] * home[p])
                p.copy_(home[p] - g["lr"] * v)
                means[p] = 0.9 * means.get(p, first[p]) + 0.1 * first[p]


def close(a: nn.Module, b: nn.Module, rtol: float = 1e-12) -> None:
    for x, y in zip(a.parameters(), b.parameters(), strict=True):
        torch.testing.assert_close(x, y, rtol=rtol, atol=rtol)


@pytest.mark.parametrize("name", KIN)
def test_equals_the_formulas(name: str) -> None:
    run, (twin, batch) = Run(lambda m: optim_core.build(name, m, lr=0.05, sam_radius=0.3)), problem()
    groups = [{"params": list(twin.parameters()), "lr": 0.05, "weight_decay": 0.0, "sam_radius": 0.3}]
    velocity: dict[Tensor, Tensor] = {}
    means: dict[Tensor, Tensor] = {}
    run.steps(0, 10)
    for index in range(10):
        x, y = batch(index)
        by_hand(lambda x=x, y=y: nn.functional.cross_entropy(twin(x), y), groups, velocity, means, name)
    close(run.model, twin)


@pytest.mark.parametrize("name", KIN)
def test_groups_with_their_own_rate_decay_and_radius(name: str) -> None:
    """No decay on biases; one norm over all groups."""
    models = [problem()[0] for _ in range(2)]
    groups = []
    for model in models:
        weights = [p for p in model.parameters() if p.ndim > 1]
        biases = [p for p in model.parameters() if p.ndim == 1]
        groups.append(
            [
                {"params": weights, "lr": 0.05, "weight_decay": 0.1, "sam_radius": 0.3},
                {"params": biases, "lr": 0.02, "weight_decay": 0.0, "sam_radius": 0.1},
            ]
        )
    optimizer = CLASSES[name](groups[0], **({"adapted": "matrices"} if name == "asam" else {}))
    velocity: dict[Tensor, Tensor] = {}
    means: dict[Tensor, Tensor] = {}
    _, batch = problem()
    for index in range(5):
        x, y = batch(index)
        optimizer.step(closure_of(optimizer, lambda x=x, y=y: nn.functional.cross_entropy(models[0](x), y)))
        by_hand(lambda x=x, y=y: nn.functional.cross_entropy(models[1](x), y), groups[1], velocity, means, name)
    close(*models)


@pytest.mark.parametrize("name", KIN)
def test_accumulation_inside_the_closure_is_the_whole_batch(name: str) -> None:
    (whole, batch), (parts, _) = problem(), problem()
    one, many = (optim_core.build(name, m, lr=0.1, sam_radius=0.3) for m in (whole, parts))

    def pieces(x: Tensor, y: Tensor) -> Tensor:
        many.zero_grad()
        total = torch.zeros((), dtype=x.dtype)
        for part, label in zip(x.chunk(4), y.chunk(4), strict=True):
            loss = nn.functional.cross_entropy(parts(part), label) / 4
            loss.backward()
            total += loss.detach()
        return total

    for index in range(3):
        x, y = batch(index)
        a = one.step(closure_of(one, lambda x=x, y=y: nn.functional.cross_entropy(whole(x), y)))
        b = many.step(lambda x=x, y=y: pieces(x, y))
        assert a.item() == pytest.approx(b.item(), rel=1e-12)
    assert one.grad_evals == many.grad_evals == 6
    close(whole, parts)


class Branches(nn.Module):
    """A tied embedding, a frozen layer, one that is never used and one that only the second call uses."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.frozen, self.unused, self.late = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.frozen.requires_grad_(False)
        self.calls = 0

    def forward(self, tokens: Tensor) -> Tensor:
        self.calls += 1
        hidden = torch.tanh(self.frozen(self.embed(tokens)))
        if self.calls % 2 == 0:
            hidden = hidden + self.late(hidden)
        return self.head(hidden)


@pytest.mark.parametrize("name", KIN)
@pytest.mark.parametrize("base", ["sgd", "adamw"])
def test_tied_frozen_and_unused_weights(name: str, base: str) -> None:
    torch.manual_seed(0)
    model = Branches().double()
    before = {k: p.detach().clone() for k, p in model.named_parameters()}
    optimizer = optim_core.build(name, model, lr=0.05, base=base, weight_decay=0.01)
    tokens = torch.arange(7)
    for _ in range(2):
        optimizer.step(closure_of(optimizer, lambda: nn.functional.cross_entropy(model(tokens), tokens.flip(0))))
    moved = {k for k, p in model.named_parameters() if not torch.equal(p, before[k])}
    assert moved == {"embed.weight", "late.weight", "late.bias"}
    assert not any(p in optimizer.state for p in (*model.frozen.parameters(), *model.unused.parameters()))
    assert model.head.weight is model.embed.weight


def test_tied_weights_by_hand() -> None:
    def network() -> nn.Sequential:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(7, 4), nn.Tanh(), nn.Linear(4, 7, bias=False)).double()
        model[2].weight = model[0].weight
        return model

    first, second = network(), network()
    tokens = torch.arange(7)
    optimizer = optim_core.build("sam", first, lr=0.05, sam_radius=0.3)
    groups = [{"params": list(second.parameters()), "lr": 0.05, "weight_decay": 0.0, "sam_radius": 0.3}]
    velocity: dict[Tensor, Tensor] = {}
    for _ in range(3):
        optimizer.step(closure_of(optimizer, lambda: nn.functional.cross_entropy(first(tokens), tokens.flip(0))))
        by_hand(lambda: nn.functional.cross_entropy(second(tokens), tokens.flip(0)), groups, velocity, {})
    close(first, second)


def test_bfloat16_autocast() -> None:
    """Weights and ascent in float32, the passes in bfloat16; equal to the formulas to bfloat16's rounding."""
    (first, batch), (second, _) = problem(torch.float32), problem(torch.float32)
    optimizer = optim_core.build("sam", first, lr=0.05, sam_radius=0.3)
    groups = [{"params": list(second.parameters()), "lr": 0.05, "weight_decay": 0.0, "sam_radius": 0.3}]
    x, y = batch(0)

    def loss(model: nn.Module) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            outputs = model(x)
            assert outputs.dtype == torch.bfloat16
            return nn.functional.cross_entropy(outputs, y)

    optimizer.step(closure_of(optimizer, lambda: loss(first)))
    by_hand(lambda: loss(second), groups, {}, {})
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in first.parameters())
    close(first, second, rtol=2**-9 * 0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("name", KIN)
def test_weights_are_restored_bitwise(name: str, base: str, dtype: torch.dtype) -> None:
    run = Run(lambda m: optim_core.build(name, m, lr=0.0, base=base, sam_radius=3.0), dtype)
    home = run.weights()
    run.steps(0, 3)
    assert equal(run.weights(), home)


@pytest.mark.parametrize("name", ["sam", "asam"])
def test_the_ascent_is_not_clipped_and_clipping_in_the_closure_does_not_turn_it(name: str) -> None:
    """The second gradient is taken at the same point however long the first is, down to one clipped to 1e-3."""
    seen: list[list[Tensor]] = []
    for scale, limit in ((1.0, None), (1e8, None), (1.0, 1e-3)):
        run = Run(lambda m: optim_core.build(name, m, lr=0.05, sam_radius=0.7))
        x, y = run.batch(0)

        def closure(
            run: Run = run, scale: float = scale, limit: float | None = limit, x: Tensor = x, y: Tensor = y
        ) -> Tensor:
            seen.append(run.weights())
            run.optimizer.zero_grad()
            loss = scale * nn.functional.cross_entropy(run.model(x), y)
            loss.backward()
            if limit:
                nn.utils.clip_grad_norm_(run.model.parameters(), limit)
            return loss

        run.optimizer.step(closure)
    for there in (seen[3], seen[5]):
        for a, b in zip(there, seen[1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)


def norm_network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


@pytest.mark.parametrize("keep, number", [("clean", 0), ("perturbed", 1)])
def test_running_statistics_are_those_of_one_pass(keep: str, number: int) -> None:
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(3))
    model, twin = norm_network(), norm_network()
    optimizer = optim_core.build("sam", model, lr=0.1, sam_radius=0.5, norm_statistics=keep)
    there: list[list[Tensor]] = []

    def loss() -> Tensor:
        there.append([p.detach().clone() for p in model.parameters()])
        return (model(x) ** 2).mean()

    optimizer.step(closure_of(optimizer, loss))
    with torch.no_grad():
        for p, value in zip(twin.parameters(), there[number], strict=True):
            p.copy_(value)
    twin(x)
    assert equal(list(model[1].buffers()), list(twin[1].buffers()))


@pytest.mark.parametrize("keep", ["clean", "perturbed"])
def test_a_skipped_step_leaves_weights_state_and_statistics(keep: str) -> None:
    model = norm_network()
    optimizer = optim_core.build("friendly_sam", model, lr=0.1, norm_statistics=keep)
    x = torch.randn(32, 4, generator=torch.Generator().manual_seed(3))
    optimizer.step(closure_of(optimizer, lambda: (model(x) ** 2).mean()))
    before = [t.clone() for t in model.state_dict().values()]
    state = [t.clone() for s in optimizer.state.values() for t in s.values()]
    with pytest.warns(RuntimeWarning, match="not finite"):
        optimizer.step(closure_of(optimizer, lambda: (model(x * float("inf")) ** 2).mean()))
    assert optimizer.skipped_steps == 1
    assert equal(before, list(model.state_dict().values()))
    assert equal(state, [t for s in optimizer.state.values() for t in s.values()])


@pytest.mark.parametrize("base", ["sgd", "adamw"])
@pytest.mark.parametrize("name", KIN)
def test_one_kept_copy_is_all_the_memory(name: str, base: str) -> None:
    """Over two steps the allocations beyond the optimizer's state peak at 1.05 x the parameters, weight decay on."""
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(6)))
    optimizer = optim_core.build(name, model, lr=0.05, base=base, weight_decay=0.01)
    given = [(p, torch.randn_like(p)) for p in model.parameters()]
    loss = torch.zeros(())

    def closure() -> Tensor:
        for p, gradient in given:
            p.grad = gradient
        return loss

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        optimizer.step(closure)
        optimizer.step(closure)
    held = peak = 0
    for event in seen.profiler.kineto_results.events():
        if event.name() == "[memory]":
            held += event.nbytes()
            peak = max(peak, held)
    state = sum(t.nbytes for s in optimizer.state.values() for t in s.values())
    parameters = sum(p.nbytes for p, _ in given)
    assert 1.0 <= (peak - state) / parameters <= 1.05
