"""Sweeps run to their end in this process, for tests of what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator import runner
from orchestrator.definition import sweep_file
from orchestrator.definition.model import Spec
from orchestrator.executors.base import Executor
from orchestrator.executors.debug import DebugExecutor
from orchestrator.storage.folder import SweepFolder
from orchestrator.tracking.base import NoTracker


def swept(text: str, root: Path, executor: Executor | None = None, *more: Any) -> SweepFolder:
    """The folder of the sweep in `text`, untracked; `more` goes to `runner.run`."""
    return ran(text, root, executor, *more)[0]


def ran(
    text: str, root: Path, executor: Executor | None = None, *more: Any, spec: Spec | None = None
) -> tuple[SweepFolder, runner.Outcome]:
    """The same, and how it ended; `spec`: what to run where it differs from what `text` says."""
    asked = spec or sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(asked, text, root, {})
    with folder.hold():
        return folder, runner.run(asked, folder, executor or DebugExecutor(), NoTracker(), *more)
