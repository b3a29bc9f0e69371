"""Every executor runs its contract; listing one here is all that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.executors.base import Executor
from orchestrator.executors.debug import DebugExecutor
from tests.contracts import executor_contract as contract
from tests.orchestrator.command import values
from tests.orchestrator.interleaved import Interleaved


def ray() -> Executor:
    from orchestrator.executors.ray import RayExecutor

    return RayExecutor(max_concurrent=1)


EXECUTORS = [
    pytest.param(DebugExecutor, id="debug"),
    pytest.param(lambda: Interleaved(3, seed=1), id="interleaved"),
    pytest.param(ray, id="ray", marks=pytest.mark.slow),
]
every_executor = pytest.mark.parametrize("make", EXECUTORS)


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The points of every trial, trained one after another in this process."""
    folder, _ = contract.run(tmp_path_factory.mktemp("reference"), DebugExecutor(), fail_at=3, fail_seed=1000)
    return values(folder)


@pytest.mark.slow
@every_executor
def test_every_trial_ends_once_with_the_same_values(
    make: Callable[[], Executor], tmp_path: Path, reference: dict[str, list[Any]]
) -> None:
    contract.check_every_trial_ends_once_with_the_same_values(make, tmp_path, reference)


@pytest.mark.slow
@pytest.mark.parametrize("make", [*EXECUTORS[:2], pytest.param(ray, id="ray", marks=pytest.mark.long)])
@pytest.mark.filterwarnings("ignore:.*trials could not be stepped together")
def test_packed_trials_are_those_alone(make: Callable[[], Executor], tmp_path: Path) -> None:
    contract.check_packed_trials_are_those_alone(make, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("make", [*EXECUTORS[:2], pytest.param(ray, id="ray", marks=pytest.mark.long)])
def test_an_asked_stop_drains(make: Callable[[], Executor], tmp_path: Path) -> None:
    contract.check_an_asked_stop_drains(make, tmp_path)


@pytest.mark.parametrize("make", [*EXECUTORS[:2], pytest.param(ray, id="ray", marks=pytest.mark.long)])
def test_closing_twice_does_no_harm(make: Callable[[], Executor]) -> None:
    contract.check_closing_twice_does_no_harm(make)
