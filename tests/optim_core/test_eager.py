"""torch's own methods are called without their wrappers for torch.compile, and everything else as it is."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

import optim_core
from optim_core import Baseline
from tests.closures import closure_of

BUILT_IN = ("sgd", "adamw")


def train(optimizer: Any, model: nn.Module, steps: int = 2) -> None:
    closure = closure_of(optimizer, lambda: (model(torch.ones(4, 3)) ** 2).mean())
    for _ in range(steps):
        optimizer.step(closure)


@pytest.mark.slow
def test_training_does_not_import_the_compiler() -> None:
    code = f"""
import sys, torch, optim_core
from tests.optim_core.test_eager import train
for name in {(*BUILT_IN, "sam", "rotated_adamw")}:
    model = torch.nn.Linear(3, 2)
    optimizer = optim_core.build(name, model)
    train(optimizer, model)
    optimizer.load_state_dict(optimizer.state_dict())
print("torch._dynamo" in sys.modules)
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


@pytest.mark.parametrize("name", BUILT_IN)
def test_hooks_run_once_and_no_graph_is_kept(name: str) -> None:
    model = nn.Linear(3, 2)
    torch.optim.SGD(model.parameters())  # torch puts its hooks around a class when the first of it is made
    torch.optim.AdamW(model.parameters())
    optimizer = optim_core.build(name, model)
    seen: list[str] = []
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    train(optimizer, model, steps=1)
    assert seen == ["before", "after"]
    assert all(p.is_leaf and p.grad is not None and not p.grad.requires_grad for p in model.parameters())


def test_profilers_and_hooks_of_all_optimizers_see_the_step() -> None:
    model = nn.Linear(3, 2)
    optimizer = optim_core.build("sgd", model)
    train(optimizer, model, steps=1)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        train(optimizer, model, steps=2)
    counts = {event.key: event.count for event in profile.key_averages()}
    assert counts["Optimizer.step#SGD.step"] == 2
    seen: list[Any] = []
    before = register_optimizer_step_pre_hook(lambda found, *_: seen.append(found))
    after = register_optimizer_step_post_hook(lambda found, *_: seen.append(found))
    train(optimizer, model, steps=1)
    assert seen == [optimizer, optimizer]
    before.remove()
    after.remove()


def test_methods_of_other_optimizers_are_called() -> None:
    called: list[str] = []

    class Theirs(torch.optim.SGD):
        def add_param_group(self, param_group: dict[str, Any]) -> None:
            called.append("add_param_group")
            super().add_param_group(param_group)

        def zero_grad(self, set_to_none: bool = True) -> None:
            called.append("zero_grad")
            super().zero_grad(set_to_none)

        def state_dict(self) -> dict[str, Any]:
            called.append("state_dict")
            return super().state_dict()

        def step(self, closure: Any = None) -> Any:
            called.append("step")
            return super().step(closure)

    class ArmStudy(Baseline, Theirs):
        pass

    model = nn.Linear(3, 2)
    optimizer = ArmStudy(list(model.parameters()), lr=0.1)  # type: ignore[call-arg]
    train(optimizer, model, steps=1)
    optimizer.state_dict()
    assert called == ["add_param_group", "zero_grad", "step", "state_dict"]
