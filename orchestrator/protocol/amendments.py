"""amendments.jsonl: what was changed, accepted or added after the seal, one line each."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.documents import reading
from orchestrator.storage.errors import Damaged
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


def lines(path: Path, *keys: str) -> Iterator[dict[str, Any]]:
    """Whole lines, each with these keys; one cut short by a crash is left out. Raises Damaged."""
    if not path.exists():
        return
    with reading(path):
        text = path.read_text(encoding="utf-8")
    for number, line in enumerate(text.splitlines(), 1):
        try:
            found = json.loads(line)
        except json.JSONDecodeError:
            return
        except RecursionError:
            raise Damaged(path, f"line {number} is nested too deeply") from None
        if not isinstance(found, dict) or not found.keys() >= set(keys):
            raise Damaged(path, f"line {number} is {line:.80}")
        yield found
