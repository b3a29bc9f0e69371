"""A trial is a function of configuration and seed, whatever global state its neighbors in the process change."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from orchestrator.trial.ambient import SETTINGS, Ambient


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
