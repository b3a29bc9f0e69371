"""What a step costs beside its gradients: numbers read back from the device, and operations, counted where torch
dispatches them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import optim_core
from tests.closures import closure_of
from tests.contracts.optimizer_contract import begin, equal
from tests.optim_core.test_contract import OF_ONE_MODEL, maker

READS = {"_local_scalar_dense", "is_nonzero", "nonzero", "equal"}
READING = {"conjugate_gradient", *(n for n in OF_ONE_MODEL if optim_core.lookup(n).LEARNING_RATE != "lr")}
"""Those that decide something by a number of every step."""


class Operations(TorchDispatchMode):
    """Counts operations; those of the closure are left out."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.inside = False

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self.inside:
            self.counts[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def operations_of_a_step(optimizer: Any, closure: Callable[[], Tensor]) -> Counter[str]:
    with Operations() as seen:

        def unseen() -> Tensor:
            seen.inside = True
            try:
                return closure()
            finally:
                seen.inside = False

        optimizer.step(unseen)
    return seen.counts


def reads(counts: Counter[str]) -> int:
    return sum(counts[name] for name in READS)


CASES = [
    *((name, {}) for name in OF_ONE_MODEL if name not in READING),
    ("sam", {"base": "adamw"}),
    ("llqr", {"base": "adamw"}),
    ("rotated_adamw", {"rotation": "layer"}),
    ("rotated_adamw", {"rotation": "svd"}),
    ("rotated_adamw", {"rotation": "soap_eig", "rotation_refresh": 10}),
    ("rotated(sgd)", {"rotation": "svd"}),
]


@pytest.mark.parametrize("name, values", CASES)
def test_no_number_is_read_by_those_that_select_and_one_for_each_gradient_by_others(
    name: str, values: dict[str, Any]
) -> None:
    """Between refreshes, and none where gradients are trusted. The weights are the same: what is read only decides
    whether the step is taken. That nothing at all is read where the device decides: `test_selection`.
    """
    run, trusting = begin(maker(name, **values)), begin(maker(name, **values))
    trusting.optimizer.checks_gradients = False
    for r in (run, trusting):
        r.steps(0, 4)
    gradients = 0 if type(run.optimizer).SELECTS else optim_core.lookup(name).GRAD_EVALS
    assert reads(operations_of_a_step(run.optimizer, run.closure(4))) <= gradients
    assert reads(operations_of_a_step(trusting.optimizer, trusting.closure(4))) == 0
    for a, b in zip(run.weights(), trusting.weights(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-13)


def test_those_of_the_hot_path_select() -> None:
    names = {name for name in OF_ONE_MODEL if optim_core.lookup(name).SELECTS}
    kin = {"sam", "asam", "friendly_sam", "fisher_sam", "gsam"}
    assert names >= {"sgd", "adamw", "llqr", "llqr_sam", "rotated_adamw", "rotated(sgd)", *kin}


def test_a_gradient_that_is_trusted_reaches_the_weights() -> None:
    run = begin(maker("sgd"))
    run.optimizer.checks_gradients = False

    def closure() -> Tensor:
        loss = run.closure(0)()
        run.model[0].weight.grad.fill_(float("nan"))
        return loss

    run.optimizer.step(closure)
    assert run.optimizer.skipped_steps == 0
    assert bool(run.weights()[0].isnan().all())


@pytest.mark.parametrize("name", ["sgd", "adamw", "sam", "schedule_free", "rotated_adamw"])
def test_the_number_of_operations_does_not_grow_with_the_number_of_tensors(name: str) -> None:
    """Foreach throughout; reading and stacking one norm for each tensor are views, not counted."""
    found = []
    for depth in (2, 6):
        torch.manual_seed(0)
        model = nn.Sequential(*(nn.Linear(4, 4) for _ in range(depth)))
        optimizer: Any = optim_core.build(name, model, lr=0.01)
        x = torch.randn(8, 4)
        closure = closure_of(optimizer, lambda model=model, x=x: model(x).square().mean())
        optimizer.step(closure)
        counts = operations_of_a_step(optimizer, closure)
        found.append({k: v for k, v in counts.items() if k not in ("detach", "_to_copy", "alias")})
    assert found[0] == found[1]


def test_trusting_is_kept_by_a_copy() -> None:
    import copy

    run = begin(maker("sam"))
    run.optimizer.checks_gradients = False
    model, optimizer = copy.deepcopy((run.model, run.optimizer))
    assert optimizer.checks_gradients is False
    assert equal([p.detach() for p in model.parameters()], run.weights())
