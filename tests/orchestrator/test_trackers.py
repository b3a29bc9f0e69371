"""Every tracker runs its contract; listing one here is all that it takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker, Tracker
from orchestrator.tracking.mlflow import MlflowTracker
from tests.contracts import tracker_contract as contract
from tests.contracts.executor_contract import open_sweep


def mlflow(folder: SweepFolder) -> Tracker:
    return MlflowTracker(
        uri=None, root=folder.root, sweep_id=folder.sweep_id, name="fit", description="", facts={}, studies=1
    )


TRACKERS = [pytest.param(lambda folder: NoTracker(), id="none"), pytest.param(mlflow, id="mlflow")]


@pytest.mark.slow
@pytest.mark.parametrize("make", TRACKERS)
def test_the_contract(make: contract.Make, tmp_path: Path) -> None:
    """One sweep for all of it."""
    _, folder = open_sweep(tmp_path)
    contract.check_a_sweep_is_followed_to_its_end(make, folder)
    contract.check_it_takes_what_comes_late_or_twice(make, folder)
    contract.check_it_recalls_points_or_nothing(make, folder)
