"""The registry: what is listed is what there is, it is imported when it is asked for, and no name is taken twice."""

from __future__ import annotations

import importlib
import pkgutil
import subprocess
import sys

import pytest
import torch

import optim_core
import trainables.tasks
from optim_core import registry
from optim_core.named import Named
from trainables import registry as of_tasks


@pytest.mark.parametrize(
    "package, found, homes",
    [
        (optim_core, registry._REGISTRY, registry.HOMES),
        (optim_core, registry._WRAPPERS, registry.WRAPPER_HOMES),
        (trainables.tasks, of_tasks._REGISTRY, of_tasks.HOMES),
    ],
    ids=["optimizers", "wrappers", "tasks"],
)
def test_what_is_listed_is_what_importing_everything_registers(package, found: Named, homes: dict) -> None:  # type: ignore[no-untyped-def, type-arg]
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        importlib.import_module(module.name)
    ours = {name: thing for name, thing in found.loaded().items() if thing.__module__.startswith(package.__name__)}
    listed = {name: f"{package.__name__}.{module}" for module, names in homes.items() for name in names}
    assert ours.keys() == listed.keys()
    assert all(f"{ours[name].__module__}.".startswith(f"{home}.") for name, home in listed.items())


@pytest.fixture(scope="module")
def alone() -> list[str]:
    """What a process of its own says, in lines."""
    code = (
        "import sys, torch, optim_core\n"
        "optim_core.names(); optim_core.lookup('sgd'); print(*sys.modules)\n"
        "class Own(torch.optim.SGD): pass\n"
        "try: optim_core.adopt('soap', Own)\n"
        "except ValueError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@pytest.mark.slow
def test_an_optimizer_is_imported_when_it_is_asked_for(alone: list[str]) -> None:
    loaded = {name for name in alone[0].split() if name.startswith("optim_core.")}
    assert "optim_core.baselines" in loaded
    assert not loaded & {f"optim_core.{module}" for module in registry.HOMES if module != "baselines"}


@pytest.mark.slow
def test_nobody_takes_a_name_that_is_not_loaded_yet(alone: list[str]) -> None:
    assert alone[1] == "optimizer 'soap' is registered twice"


def test_the_name_of_a_class_is_the_one_it_was_registered_by() -> None:
    assert optim_core.name_of(optim_core.lookup("asam")) == "asam"
    assert optim_core.name_of(torch.optim.SGD) == "torch.optim.sgd.SGD"


def test_costs_that_depend_on_hyperparameters_are_known() -> None:
    assert all(map(optim_core.costs_alike, ("sgd", "adamw", "sam", "muon", "torch.optim.RMSprop")))
    assert not any(map(optim_core.costs_alike, ("llqr", "llqr_sam", "looksam", "rotated_adamw", "nesterov")))
