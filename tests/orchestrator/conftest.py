"""Fixtures of the tests of verbs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import main


@dataclass(frozen=True)
class Called:
    """What a call printed and returned."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Called]:
    """`call("best", "@last")` is `geosweep best @last` in this process, with a root of its own."""

    def run(*words: str) -> Called:
        monkeypatch.setattr(sys, "argv", ["geosweep", *words])
        monkeypatch.setenv("GEOSWEEP_ROOT", str(tmp_path / "runs"))
        code = 0
        capfd.readouterr()
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Called(code, *capfd.readouterr())

    return run
