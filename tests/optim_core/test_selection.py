"""Steps that the device takes or skips by itself: those of the host, with nothing read back, in few operations."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import optim_core
from optim_core.sam import SAM
from optim_core.selection import not_finite
from tests.closures import closure_of
from tests.contracts.optimizer_contract import Run, begin, equal, length
from tests.optim_core.test_contract import maker
from tests.optim_core.test_hot_path import operations_of_a_step

SVD = {"rotation": "svd", "rotation_refresh": 4, "rotation_transport": "mv"}
SOAP = {"rotation": "soap_eig", "rotation_refresh": 3}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in ("sgd", "adamw", "sam", "asam", "friendly_sam", "fisher_sam", "gsam", "llqr")},
    "sgd without momentum": ("sgd", {"momentum": 0.0}),
    "sgd, nesterov and decay": ("sgd", {"nesterov": True, "weight_decay": 0.1}),
    "sam over adamw": ("sam", {"base": "adamw", "weight_decay": 0.1}),
    "sam with decay": ("sam", {"weight_decay": 0.1}),
    "friendly_sam from zero": ("friendly_sam", {"mean_start": "zero"}),
    "llqr over adamw": ("llqr", {"base": "adamw"}),
    "llqr on the update": ("llqr", {"base": "adamw", "apply_to": "update", "weight_decay": 0.1}),
    "llqr on the update of sgd": ("llqr", {"apply_to": "update", "weight_decay": 0.1}),
    "llqr_sam": ("llqr_sam", {}),
    "llqr_sam pm": ("llqr_sam", {"perturbation": "pm", "structure": "psd_diagonal"}),
    "llqr_sam by layer": ("llqr_sam", {"perturbation": "pel", "structure": "e_kronecker"}),
    "llqr_sam friendly": ("llqr_sam", {"direction": "friendly"}),
    "llqr_sam noise": ("llqr_sam", {"direction": "noise"}),
    "llqr_sam past": ("llqr_sam", {"direction": "past"}),
    "rotated sgd": ("rotated(sgd)", SVD),
    "rotated adamw": ("rotated(adamw)", SVD),
    "identity": ("rotated_adamw", {}),
    "layer": ("rotated_adamw", {"rotation": "layer"}),
    "global": ("rotated_adamw", {"rotation": "global"}),
    "svd": ("rotated_adamw", SVD),
    "svd after": ("rotated_adamw", {**SVD, "rotation_update": "after_step"}),
    "soap_eig": ("rotated_adamw", SOAP),
    "soap_eig before": ("rotated_adamw", {**SOAP, "rotation_update": "before_step"}),
}
BAD = (5, 6, 9)
NO_LAUNCH = {"detach", "alias", "view", "empty_like", "_to_copy"}
"""Operations that a device does not hear of (and norms of float32 to float32)."""


@pytest.fixture(scope="module")
def everywhere() -> Iterator[None]:
    """torch's fused SGD has no kernel for tensors without memory: one that does nothing."""
    library = torch.library.Library("aten", "IMPL", "Meta")
    library.impl("_fused_sgd_", lambda *_, **__: None)
    yield
    library._destroy()


def step(run: Run, index: int, bad: tuple[int, ...] = BAD, call: int = 0) -> None:
    """One step, whose `call`-th gradient of a bad batch is not finite; 0: all of them."""
    inner, first = run.closure(index), run.calls

    def closure() -> Tensor:
        loss = inner()
        if index in bad and call in (0, run.calls - first):
            list(run.model.parameters())[-1].grad.view(-1)[0] = math.inf
        return loss

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        run.optimizer.step(closure)


def tensors_of(state: dict[Any, Any]) -> list[Tensor]:
    return [v for own in state["state"].values() for _, v in sorted(own.items()) if isinstance(v, Tensor)]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_device_takes_the_steps_of_the_host_and_skips_those_that_it_skips(case: str) -> None:
    name, values = CASES[case]
    host, device = begin(maker(name, **values)), begin(maker(name, **values))
    device.optimizer.selects = True
    start = host.weights()
    for index in range(14):
        before = device.weights()
        step(host, index)
        step(device, index)
        assert equal(device.weights(), before) == (index in BAD) or index == 0
        assert length(device.weights(), host.weights()) <= 1e-10 * (1 + length(host.weights(), start))
    assert device.optimizer.skipped_steps == host.optimizer.skipped_steps == len(BAD)
    a, b = device.optimizer.state_dict(), host.optimizer.state_dict()
    for x, y in zip(tensors_of(a), tensors_of(b), strict=True):
        torch.testing.assert_close(x, y, rtol=1e-8, atol=1e-10)
    for mine, theirs in zip(a["param_groups"], b["param_groups"], strict=True):
        counters = mine.keys() & {"step", "steps", "refreshes", "refresh_step", "skipped_steps"}
        assert {k: mine[k] for k in counters} == {k: theirs[k] for k in counters}


@pytest.mark.parametrize("call", [1, 2])
@pytest.mark.parametrize("name", ["sam", "asam", "friendly_sam", "fisher_sam", "gsam"])
def test_either_gradient_of_two_skips_the_step_and_word_of_it_comes(name: str, call: int) -> None:
    run = begin(maker(name))
    run.optimizer.selects = True
    run.steps(0, 2)
    before = run.weights()
    step(run, 2, bad=(2,), call=call)
    assert equal(run.weights(), before)
    with pytest.warns(RuntimeWarning, match="not finite"):
        run.steps(3, 4)
    assert run.optimizer.skipped_steps == 1
    assert not equal(run.weights(), before)
    assert all(bool(w.isfinite().all()) for w in run.weights())


def test_running_statistics_of_a_skipped_step_are_those_of_before() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2))
    optimizer: Any = optim_core.build("sam", model, lr=0.1)
    optimizer.selects = True
    x = torch.randn(8, 4)

    def closure(scale: float) -> Callable[[], Tensor]:
        return closure_of(optimizer, lambda: (model(x) * scale).square().mean())

    for _ in range(2):
        optimizer.step(closure(1.0))
    before = copy.deepcopy(model.state_dict())
    optimizer.step(closure(math.nan))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.warns(RuntimeWarning, match="not finite"):
        optimizer.step(closure(1.0))
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])


def test_halves_leave_the_choice_to_the_device() -> None:
    run, whole = begin(maker("sam")), begin(maker("sam"))
    run.optimizer.selects = True
    for index in range(6):
        for half in (run.optimizer.first_step, run.optimizer.second_step):
            run.closure(index)()
            if index == 3:
                next(run.model.parameters()).grad.fill_(math.nan)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                assert half() in (True, None)
        if index != 3:
            whole.steps(index, index + 1)
        assert length(run.weights(), whole.weights()) < 1e-12
    assert run.optimizer.skipped_steps == 1


@pytest.mark.parametrize("case", ["adamw", "svd", "llqr"])
def test_what_is_saved_after_a_skipped_step_resumes(case: str) -> None:
    name, values = CASES[case]
    run, again = begin(maker(name, **values)), begin(maker(name, **values))
    run.optimizer.selects = again.optimizer.selects = True
    for index in range(8):
        step(run, index)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        saved = copy.deepcopy((run.model.state_dict(), run.optimizer.state_dict()))
    again.model.load_state_dict(saved[0])
    again.optimizer.load_state_dict(saved[1])
    for index in range(8, 13):
        step(run, index)
        step(again, index)
    assert equal(run.weights(), again.weights())
    assert run.optimizer.skipped_steps == again.optimizer.skipped_steps == len(BAD)


def test_entries_whose_squares_overflow_are_finite() -> None:
    assert float(not_finite([torch.full((4,), 3e38), torch.full((4,), 1e300, dtype=torch.float64)])) == 0
    for bad in (math.nan, math.inf, -math.inf):
        assert float(not_finite([torch.ones(3), torch.tensor([1.0, bad])])) == 1


def test_a_subclass_with_a_move_of_its_own_reads_unless_it_says_so() -> None:
    class Mine(SAM):
        def combine(self, params: Any, grads: Any) -> Any:
            return grads

    class Plain(SAM):
        pass

    assert (SAM.SELECTS, Plain.SELECTS, Mine.SELECTS) == (True, True, False)


def network(device: str, depth: int) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Linear(6, 6) for _ in range(depth)), nn.Linear(6, 3))
    x, y = torch.randn(16, 6), torch.randint(3, (16,))
    return model.to(device), x.to(device), y.to(device)


def without_memory(case: str, depth: int) -> tuple[Any, Callable[[], Tensor]]:
    """An optimizer in the middle of a run, on tensors that have shapes and no numbers: nobody can read one."""
    name, values = CASES[case]

    def made(device: str) -> tuple[Any, Callable[[], Tensor]]:
        model, x, y = network(device, depth)
        batches = {"loss": nn.functional.cross_entropy, "refresh_batches": lambda index: (x, y), "inner_steps": 2}
        own = {**batches, "refresh_interval": 100} if optim_core.needs_batches(name) else {}
        rare = {"rotation_refresh": 100} if "rotation_refresh" in values else {}
        optimizer: Any = optim_core.build(name, model, **{"lr": 0.05, **values, **own, **rare})
        closure = closure_of(optimizer, lambda: nn.functional.cross_entropy(model(x), y))
        return optimizer, closure

    first, closure = made("cpu")
    for _ in range(3):
        first.step(closure)
    found, closure = made("meta")
    found.load_state_dict(first.state_dict())
    found.step(closure)
    return found, closure


@pytest.mark.slow
@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize("case", sorted(CASES.keys() - {"llqr_sam noise", "llqr_sam past"}))
def test_between_refreshes_no_number_is_read_where_there_is_none(case: str) -> None:
    optimizer, closure = without_memory(case, 2)
    optimizer.step(closure)


@pytest.mark.usefixtures("everywhere")
@pytest.mark.parametrize(
    "case", ["sgd", "adamw", "sam", "sam over adamw", "asam", "friendly_sam", "fisher_sam", "identity"]
)
def test_operations_on_a_device_do_not_grow_with_the_number_of_tensors(case: str) -> None:
    counts = []
    for depth in (2, 6):
        seen = operations_of_a_step(*without_memory(case, depth))
        counts.append({k: v for k, v in seen.items() if k not in NO_LAUNCH})
    assert counts[0] == counts[1]


@pytest.mark.parametrize("name", ["gd", "nesterov", "chebyshev", "laguerre"])
def test_methods_that_look_at_the_loss_judge_the_gradient_in_the_same_look(name: str) -> None:
    host, device = begin(maker(name)), begin(maker(name))
    device.optimizer.selects = True
    for index in range(8):
        before = device.weights()
        step(host, index)
        step(device, index)
        assert equal(device.weights(), host.weights())
        assert equal(device.weights(), before) == (index in BAD)
    assert device.optimizer.skipped_steps == host.optimizer.skipped_steps == 2
