"""Fixtures of the tests of verbs and sweeps."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.definition import opened
from tests.verbs import Called, called


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Called]:
    """`call("best", "@last")` is `geosweep best @last` in this process, with a root of its own."""

    def run(*words: str) -> Called:
        monkeypatch.setenv("GEOSWEEP_ROOT", str(tmp_path / "runs"))
        return called(monkeypatch, capfd, *words)

    return run


@pytest.fixture(autouse=True)
def nothing_read_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own: other tests' tasks have read files that are gone."""
    monkeypatch.setattr(opened, "_seen", {})
    monkeypatch.setattr(opened, "_away", [])
