"""amendments.jsonl: what was changed, accepted or added after the seal, one line each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.folder import SweepFolder

NAME = "amendments.jsonl"


def amendments(folder: SweepFolder) -> list[dict[str, Any]]:
    """All amendments of a sweep, oldest first."""
    return list(lines(folder.path / NAME))


def amend(folder: SweepFolder, parts: Mapping[str, Any]) -> None:
    """Add one, with its time."""
    with (folder.path / NAME).open("a", encoding="utf-8") as out:
        out.write(json.dumps({"at": now(), **parts}) + "\n")


def now() -> str:
    """The current time, as files record it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def lines(path: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; one cut short by a crash is left out."""
    if not path.exists():
        return
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:
            return
