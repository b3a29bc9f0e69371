"""`compiled_step`: one graph without a break, the numbers of the eager step, nothing read back."""

from __future__ import annotations

import copy
import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from tests.optim_core.test_hot_path import READS

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("adamw", {}),
    "sam": ("sam", {}),
    "sam without momentum": ("sam", {"momentum": 0.0}),
    "sam of adamw": ("sam", {"base": "adamw"}),
    "rotated in the identity": ("rotated_adamw", {}),
    "rotated layer": ("rotated_adamw", {"rotation": "layer"}),
    "rotated hadamard": ("rotated_adamw", {"rotation": "hadamard"}),
    "rotated svd": ("rotated_adamw", {"rotation": "svd", "rotation_refresh": 4}),
    "rotated svd after": ("rotated_adamw", {"rotation": "svd", "rotation_refresh": 4, "rotation_update": "after_step"}),
}
STEPS = 7


def seldom(*values: str) -> Any:
    """What `make faults` compiles: its neighbors take the same way through the code."""
    return pytest.param(*values, marks=pytest.mark.long)


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


class Graphs:
    """A backend that counts what it is given and runs it as `aot_eager` does."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, graph: Any, inputs: Any) -> Any:
        from torch._dynamo.backends.debugging import aot_eager

        self.count += 1
        return aot_eager(graph, inputs)


def setup(case: str, *, norm: bool = False) -> tuple[nn.Module, Any]:
    name, values = CASES[case]
    torch.manual_seed(0)
    hidden: list[nn.Module] = [nn.BatchNorm1d(6)] if norm else []
    model = nn.Sequential(nn.Linear(5, 6), *hidden, nn.Tanh(), nn.Linear(6, 3)).double()
    return model, optim_core.build(name, model, **{"lr": 0.02, "weight_decay": 0.01, **values})


def batch(index: int) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(index)
    return torch.randn(8, 5, generator=g, dtype=torch.float64), torch.randn(8, 3, generator=g, dtype=torch.float64)


def eagerly(model: nn.Module, optimizer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    def step(x: Tensor, y: Tensor) -> Tensor:
        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            return loss

        return optimizer.step(closure).detach()  # type: ignore[no-any-return]

    return step


def assert_same(a: nn.Module, b: nn.Module) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-10, atol=1e-12, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["adamw", seldom("sam"), "sam of adamw", seldom("rotated hadamard"), "rotated svd"])
def test_one_graph_takes_the_steps_of_the_eager_optimizer(case: str) -> None:
    """`fullgraph` raises at a graph break. Rates change on the way, and nothing is compiled for it again.

    The other cases below, where the closure computes the gradients.
    """
    (a, plain), (b, optimizer), backend = *(setup(case, norm=case == "adamw") for _ in "ab"), Graphs()
    compiled = optim_core.compiled_step(optimizer, b, nn.functional.mse_loss, backend=backend)
    eager = eagerly(a, plain)
    for i in range(STEPS):
        for o in (plain, optimizer):
            o.param_groups[0]["lr"] = 0.02 / (i + 1)
        torch.testing.assert_close(compiled(*batch(i)), eager(*batch(i)), rtol=1e-10, atol=1e-12)
    assert_same(a, b)
    assert optimizer.grad_evals == plain.grad_evals
    assert 1 <= backend.count <= 2  # a refresh may bring tensors that the first graph has not seen


@pytest.mark.slow
@pytest.mark.parametrize("case", [seldom("adamw"), "sam", "rotated svd"])
def test_a_gradient_that_is_not_finite_is_skipped_on_the_device(case: str) -> None:
    """The step after it is that of a run that never saw the batch; so are running statistics after two passes."""
    (a, plain), (b, optimizer) = (setup(case, norm=case == "sam") for _ in "ab")
    compiled = optim_core.compiled_step(optimizer, b, nn.functional.mse_loss, backend="aot_eager")
    eager = eagerly(a, plain)
    for i in range(2):
        compiled(*batch(i))
        eager(*batch(i))
    x, y = batch(2)
    compiled(x * float("nan"), y)
    assert_same(a, b)
    with pytest.warns(RuntimeWarning, match="not finite"):
        assert optimizer.skipped_steps == 1
    for i in range(3, 7):
        compiled(*batch(i))
        eager(*batch(i))
    assert_same(a, b)
    assert optimizer.skipped_steps == 1
    assert [g.get("step") for g in optimizer.param_groups] == [g.get("step") for g in plain.param_groups]


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [seldom("adamw"), seldom("sam"), "sam of adamw", seldom("rotated layer"), "rotated svd"]
)
def test_nothing_is_read_back(case: str) -> None:
    """Between refreshes, by the profiler."""
    model, optimizer = setup(case)
    compiled = optim_core.compiled_step(optimizer, model, nn.functional.mse_loss, backend="eager")
    for i in range(2):
        compiled(*batch(i))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as seen:
        compiled(*batch(2))
    names = {e.key.removeprefix("aten::") for e in seen.key_averages()}
    assert names & {"addmm", "linear"}
    assert not names & READS


@pytest.mark.slow
@pytest.mark.parametrize("case", [seldom("adamw"), "rotated svd"])
def test_a_state_saved_between_compiled_steps_resumes(case: str) -> None:
    (a, first), (b, second) = setup(case), setup(case)
    one = optim_core.compiled_step(first, a, nn.functional.mse_loss, backend="aot_eager")
    two = optim_core.compiled_step(second, b, nn.functional.mse_loss, backend="aot_eager")
    for i in range(3):
        one(*batch(i))
        two(*batch(i + 50))
    b.load_state_dict(a.state_dict())
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for i in range(3, 7):
        one(*batch(i))
        two(*batch(i))
    assert_same(a, b)


def test_what_has_no_compiled_step_says_so() -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="ASAM has no compiled step; AdamW, RotatedAdamW, SAM have one"):
        optim_core.compiled_step(optim_core.build("asam", model, lr=0.1), model, nn.functional.mse_loss)
    with pytest.raises(ValueError, match="use state_dtype auto"):
        narrow = optim_core.build("adamw", model, state_dtype="bfloat16")
        optim_core.compiled_step(narrow, model, nn.functional.mse_loss)
    with pytest.raises(ValueError, match="does not belong to the model"):
        optim_core.compiled_step(optim_core.build("adamw", model), nn.Linear(2, 2), nn.functional.mse_loss)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("torch._inductor") is None, reason="torch has no inductor here")
def test_inductor_takes_the_same_steps() -> None:
    (a, plain), (b, optimizer) = setup("sam"), setup("sam")
    compiled, eager = optim_core.compiled_step(optimizer, b, nn.functional.mse_loss), eagerly(a, plain)
    for i in range(3):
        compiled(*batch(i))
        eager(*batch(i))
    assert_same(a, b)


@pytest.mark.slow
def test_statistics_and_skips_of_a_closure_are_those_of_the_eager_step() -> None:
    (a, plain), (b, optimizer) = setup("sam", norm=True), setup("sam", norm=True)
    compiled, eager = optim_core.compiled_step(optimizer, b, backend="aot_eager"), eagerly(a, plain)

    def closure_of(x: Tensor, y: Tensor) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            b.zero_grad()
            loss = nn.functional.mse_loss(b(x), y)
            loss.backward()
            return loss

        return closure

    for i in range(4):
        if i == 2:
            before = copy.deepcopy(b.state_dict())
            compiled(closure_of(batch(9)[0] * float("nan"), batch(9)[1]))
            kept = {k: v for k, v in b.state_dict().items() if "num_batches" not in k}
            assert all(torch.equal(v, before[k]) for k, v in kept.items())
        compiled(closure_of(*batch(i)))
        eager(*batch(i))
    assert_same(a, b)
    with pytest.warns(RuntimeWarning, match="not finite"):
        assert optimizer.skipped_steps == 1


OFTEN = ("sam of adamw", "rotated svd after")


@pytest.mark.slow
@pytest.mark.parametrize(
    "case, clears",
    [
        *((case, "optimizer") if case in OFTEN else seldom(case, "optimizer") for case in CASES),
        ("adamw", "model"),
        seldom("sam of adamw", "model"),
    ],
)
def test_a_closure_is_one_graph_too(case: str, clears: str) -> None:
    """With `backward()` inside, and a new closure for every batch: one graph, the numbers of `optimizer.step`."""
    (a, plain), (b, optimizer), backend = setup(case), setup(case), Graphs()
    compiled = optim_core.compiled_step(optimizer, b, backend=backend)
    eager = eagerly(a, plain)

    def closure_of(x: Tensor, y: Tensor) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            (optimizer if clears == "optimizer" else b).zero_grad()
            loss = nn.functional.mse_loss(b(x), y)
            loss.backward()
            return loss

        return closure

    for i in range(STEPS):
        for o in (plain, optimizer):
            o.param_groups[0]["lr"] = 0.02 / (i + 1)
        torch.testing.assert_close(compiled(closure_of(*batch(i))), eager(*batch(i)), rtol=1e-10, atol=1e-12)
    assert_same(a, b)
    assert optimizer.grad_evals == plain.grad_evals
    assert 1 <= backend.count <= 2
