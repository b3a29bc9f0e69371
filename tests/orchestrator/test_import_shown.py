"""What verbs say of imported runs where nobody knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.orchestrator.test_import import imported, rows


def test_what_is_not_known_of_imported_runs_is_said(call: Any, tmp_path: Path) -> None:
    made = imported(tmp_path, rows(), budget="steps")
    root = ("--root", str(made.folder.root))
    profile = call("profile", made.folder.sweep_id, *root)
    assert profile.code != 0
    assert "was imported" in profile.err
    verify = call("verify", made.folder.sweep_id, *root)
    assert verify.code == 0
    assert "sweep.yaml" not in verify.err
    assert "gradient evaluations" not in call("watch", made.folder.sweep_id, *root).out
