"""A trial is a function of configuration and seed, whatever global state its neighbors in the process change."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

import optim_core
from orchestrator import results, runner
from orchestrator.definition import sweep_file
from orchestrator.definition.ambient import SETTINGS, Ambient
from orchestrator.definition.isolated import imported
from orchestrator.executors.debug import DebugExecutor
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.sweep_files import sweep_text

SETTING = """
import os
import torch

os.environ["GEOSWEEP_TEST_IMPORTED"] = "1"

class Setting(torch.optim.SGD):
    def __init__(self, params, lr=0.1):
        os.environ["GEOSWEEP_TEST_BUILT"] = "1"
        super().__init__(params, lr=lr)
"""


def changed_everything(folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    torch.set_default_device("meta")
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.set_float32_matmul_precision("medium")
    np.seterr(all="raise")
    os.chdir(folder)
    os.environ["GEOSWEEP_TEST_AMBIENT"] = "1"


def state() -> list[object]:
    return [setting.get() for setting in SETTINGS]


@pytest.mark.slow
def test_every_setting_is_the_trials_within_and_as_it_was_outside(tmp_path: Path) -> None:
    before, trial, neighbor = state(), Ambient(), Ambient()
    with trial:
        changed_everything(tmp_path)
        own = state()
        assert not [s.name for s, a, b in zip(SETTINGS, own, before, strict=True) if a == b], "a setting goes untested"
    assert state() == before
    with neighbor:
        assert state() == before
        assert neighbor.found() == ()
    with trial:
        assert state() == own
        assert trial.found() == tuple(s.name for s in SETTINGS)
    assert state() == before


def test_an_error_within_brings_back_what_was(tmp_path: Path) -> None:
    before = state()
    with pytest.raises(RuntimeError), Ambient():
        changed_everything(tmp_path)
        raise RuntimeError
    assert state() == before


def test_the_environment_that_imports_set_is_everybodys() -> None:
    ambient = Ambient()
    try:
        with ambient:
            os.environ["GEOSWEEP_TEST_IMPORTED"] = "1"
            ambient.settle()
            assert ambient.found() == ()
        assert os.environ["GEOSWEEP_TEST_IMPORTED"] == "1"
    finally:
        del os.environ["GEOSWEEP_TEST_IMPORTED"]


def drawn() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_random_numbers_go_on_as_without_a_neighbor() -> None:
    def seeded(ambient: Ambient, seed: int) -> None:
        with ambient:
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)

    alone = Ambient()
    seeded(alone, 1)
    with alone:
        expected = [drawn(), drawn()]
    trial, neighbor = Ambient(), Ambient()
    seeded(trial, 1)
    with trial:
        first = drawn()
    seeded(neighbor, 2)
    with neighbor:
        drawn()
    with trial:
        assert [first, drawn()] == expected


def test_what_an_arms_constructor_sets_in_the_environment_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What its module sets on import does: it is not imported again."""
    (tmp_path / "setting_arm.py").write_text(SETTING)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("GEOSWEEP_TEST_BUILT", "GEOSWEEP_TEST_IMPORTED"):
        monkeypatch.setenv(name, "")  # to be undone after the test
    changed = imported("setting_arm.Setting", lambda: optim_core.lookup("setting_arm.Setting"))
    assert os.environ["GEOSWEEP_TEST_BUILT"] == ""
    assert os.environ["GEOSWEEP_TEST_IMPORTED"] == "1"
    assert changed == ("environment variables",)


def test_what_an_arms_module_sets_on_import_is_undone_and_named() -> None:
    """Else a trial that comes first in its process would differ from the same trial in another's."""
    before = state()
    for _ in range(2):
        assert imported("tests.sets_on_import", lambda: torch.set_default_dtype(torch.float64)) == (
            "torch's default dtype",
        )
        assert state() == before
    assert imported("tests.sets_nothing", lambda: None) == ()


class Loud(torch.optim.SGD):
    """Changes what it can when it is built."""

    def __init__(self, params: object, *, lr: float = 0.1) -> None:
        super().__init__(params, lr=lr)  # type: ignore[arg-type]
        torch.set_default_dtype(torch.float64)
        os.chdir("/")


def test_an_arm_changes_nothing_while_it_is_tried_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a sweep file builds optimizers; so does counting operations. Trials of others see none of it."""
    monkeypatch.chdir(tmp_path)
    before = state()
    text = sweep_text(trials=1, confirm=1, per_trial=8)
    text = text.replace("sgd: {optimizer: sgd", "loud: {optimizer: tests.orchestrator.test_ambient.Loud")
    spec = sweep_file.loads(text)
    assert state() == before
    folder = runner.open_folder(spec, text, Path("runs"), {})
    with folder.hold():
        runner.run(spec, folder, DebugExecutor(), NoTracker())
    assert state() == before
    assert results.status(folder).changed["loud"] == ["torch's default dtype", "the current folder"]
