"""The closure: pieces add up to the batch, clipping spares the ascent, precision and averages do what they say."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.tasks import Masked
from trainables import Task
from trainables.gradient import Gradients
from trainables.loop import Training
from trainables.recipe import Recipe
from trainables.workers import Workers


class Looks:
    """Stands in for an optimizer that only asks for gradients."""

    def __init__(self, model: nn.Module, ascending: bool = False) -> None:
        self._model, self.ascending = model, ascending

    def zero_grad(self) -> None:
        self._model.zero_grad()


def gradient(task: Task, recipe: Recipe, ascending: bool = False) -> tuple[float, list[Tensor], nn.Module]:
    model = task.model(0)
    assert isinstance(model, nn.Module)
    closure = Gradients(task, model, recipe, Workers()).closure(task.batch(0, 0), Looks(model, ascending), noise=1)
    loss = float(closure().detach())
    return loss, [p.grad.clone() for p in model.parameters() if p.grad is not None], model


def norm(grads: list[Tensor]) -> float:
    return float(torch.cat([g.flatten() for g in grads]).norm())


@pytest.mark.parametrize("accumulate", [2, 3, 5, 12])
def test_pieces_add_up_to_the_batch_also_where_targets_are_masked(accumulate: int) -> None:
    loss, whole, _ = gradient(Masked(), Recipe())
    again, pieces, _ = gradient(Masked(), Recipe(accumulate=accumulate))
    assert again == pytest.approx(loss, rel=1e-14)
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-15) for a, b in zip(whole, pieces, strict=True))


def test_more_pieces_than_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="accumulate is 13 with 1 workers, but a batch has 12 rows only"):
        gradient(Masked(), Recipe(accumulate=13))


def test_only_the_gradient_that_moves_the_weights_is_clipped() -> None:
    _, free, _ = gradient(Masked(), Recipe())
    bound = norm(free) / 3
    _, clipped, _ = gradient(Masked(), Recipe(clip_norm=bound))
    assert norm(clipped) == pytest.approx(bound, rel=1e-5)
    assert all(torch.allclose(3 * c, f, rtol=1e-5) for c, f in zip(clipped, free, strict=True))
    _, ascent, _ = gradient(Masked(), Recipe(clip_norm=bound), ascending=True)
    assert all(torch.equal(a, f) for a, f in zip(ascent, free, strict=True))
    _, below, _ = gradient(Masked(), Recipe(clip_norm=10 * norm(free)))
    assert all(torch.allclose(b, f, rtol=1e-12) for b, f in zip(below, free, strict=True))


@pytest.mark.parametrize("name", ["sam", "asam", "friendly_sam"])
def test_two_pass_optimizers_say_which_pass_climbs(name: str) -> None:
    task, seen = Masked(), []
    model = task.model(0)
    optimizer = optim_core.build(name, model)
    inner = task.closure(model, task.batch(0, 0), optimizer.zero_grad)

    def closure() -> Any:
        seen.append(optimizer.ascending)
        return inner()

    optimizer.step(closure)
    assert seen == [True, False]
    assert not optimizer.ascending


def test_clipped_friendly_sam_climbs_along_unclipped_gradients() -> None:
    """Its mean of past gradients would be another one if the ascent were clipped: check against a dense reference."""
    bound, radius, lr = 0.05, 0.3, 0.5
    task = Masked()
    run = training("friendly_sam", budget=12, recipe=Recipe(schedule="constant", clip_norm=bound), task=task,
                   lr=lr, sam_radius=radius, momentum=0.0)  # fmt: skip
    run.advance()
    model = task.model(0)
    assert isinstance(model, nn.Module)
    params = list(model.parameters())
    mean = [torch.zeros_like(p) for p in params]

    def plain(index: int) -> list[Tensor]:
        inputs, targets = task.batch(0, index)
        return list(torch.autograd.grad(task.loss(model(inputs), targets), params))

    for step in range(6):
        g = plain(step)
        v = [a - m for a, m in zip(g, mean, strict=True)]
        mean = [0.9 * m + 0.1 * a for m, a in zip(mean, g, strict=True)] if step else g
        size, home = norm(v), [p.detach().clone() for p in params]
        with torch.no_grad():
            for p, d in zip(params, v, strict=True):
                p += radius / size * d
        g = plain(step)
        shrink = min(1.0, bound / (norm(g) + 1e-6))
        with torch.no_grad():
            for p, w, d in zip(params, home, g, strict=True):
                p.copy_(w - lr * shrink * d)
    for a, b in zip(run.model.parameters(), params, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def training(name: str = "sgd", *, budget: float, recipe: Recipe, task: Task | None = None, **values: Any) -> Training:
    return Training(
        task or Masked(),
        lambda model, loss, refresh: optim_core.build(name, model, **values),
        budget=budget,
        seed=0,
        evaluations=1,
        recipe=recipe,
    )


class Single(Masked):
    """The same in float32, watching the types that the loss sees."""

    def __init__(self) -> None:
        super().__init__()
        self.inner: list[torch.dtype] = []
        self.outer: list[torch.dtype] = []

    def model(self, seed: int) -> nn.Module:
        model = super().model(seed)
        assert isinstance(model, nn.Sequential)
        model[0].register_forward_hook(lambda module, inputs, output: self.inner.append(output.dtype))
        return model.float()

    def batch(self, seed: int, index: int) -> Any:
        x, y = super().batch(seed, index)
        return x.float(), y

    def loss(self, outputs: Tensor, targets: Any) -> Tensor:
        self.outer.append(outputs.dtype)
        return super().loss(outputs, targets)


def test_bf16_is_for_the_passes_alone() -> None:
    task = Single()
    _, low, model = gradient(task, Recipe(precision="bf16"))
    assert task.inner == [torch.bfloat16]
    assert task.outer == [torch.float32]
    assert all(p.dtype == torch.float32 for p in model.parameters())
    _, full, _ = gradient(Single(), Recipe())
    difference = norm([a - b for a, b in zip(low, full, strict=True)]) / norm(full)
    assert 0 < difference < 0.05


def test_the_average_is_the_normalised_exponential_mean_and_is_what_is_evaluated() -> None:
    decay, seen = 0.7, []

    class Watched(Masked):
        def evaluate(self, model: Any) -> dict[str, float]:
            seen.append([p.detach().clone() for p in model.parameters()])
            return super().evaluate(model)

    run = training(budget=6, recipe=Recipe(schedule="constant", weight_average=decay), task=Watched(), lr=0.3)
    iterates = []
    for _ in range(6):
        run._train_step()
        iterates.append([p.detach().clone() for p in run.model.parameters()])
    run.advance()
    weights = [decay ** (6 - s) for s in range(1, 7)]
    for i, found in enumerate(seen[0]):
        expected = sum(w * it[i] for w, it in zip(weights, iterates, strict=True)) / sum(weights)
        assert torch.allclose(found, expected, rtol=1e-12, atol=1e-14)
    for p, last in zip(run.model.parameters(), iterates[-1], strict=True):
        assert torch.equal(p, last)


@pytest.mark.slow
def test_compiled_training_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through dynamo and autograd's tracer, over two pieces; torch's own backend needs a C++ compiler."""
    compiled = []

    def lighter(model: Any) -> Any:
        compiled.append(model)
        return original(model, backend="aot_eager")

    original = torch.compile
    monkeypatch.setattr(torch, "compile", lighter)
    runs = [training("sam", budget=8, recipe=Recipe(schedule="cosine", compile=c, accumulate=2)) for c in (False, True)]
    for run in runs:
        run.advance()
    assert compiled == [runs[1].model]
    for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-12, atol=1e-14)


def test_running_statistics_are_averaged_too() -> None:
    from trainables.weight_average import WeightAverage

    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    average, means = WeightAverage(model, 0.5), []
    for i in range(3):
        model(torch.randn(8, 3, generator=torch.Generator().manual_seed(i)))
        average.update(model)
        means.append(model[1].running_mean.clone())
    expected = (0.25 * means[0] + 0.5 * means[1] + means[2]) / 1.75
    assert torch.allclose(average.model[1].running_mean, expected, rtol=1e-5)
    assert int(average.model[1].num_batches_tracked) == 3
