"""The command line, called in this process."""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

import pytest

from orchestrator.cli import main


class Called(NamedTuple):
    """What a call printed and returned."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, as JSON."""
        return json.loads(self.out)


def called(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> Called:
    """`geosweep WORDS`."""
    monkeypatch.setattr(sys, "argv", ["geosweep", *words])
    code = 0
    capfd.readouterr()
    try:
        main()
    except SystemExit as end:
        code = int(end.code or 0)
    return Called(code, *capfd.readouterr())
