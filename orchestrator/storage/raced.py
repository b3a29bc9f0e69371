"""race.json: which arms the race of the confirm stage stopped, and why (see `scheduling.race`)."""

from __future__ import annotations

import json

from orchestrator.definition.racing import Raced
from orchestrator.storage.documents import read_json, reading, write_atomic
from orchestrator.storage.folder import SweepFolder


def read(folder: SweepFolder) -> Raced | None:
    """What the race has decided so far; None without one, or before its first look. Raises Damaged."""
    found = read_json(folder.race)
    if not found:
        return None
    with reading(folder.race):
        return Raced.of(found)


def write(folder: SweepFolder, raced: Raced) -> None:
    """Write what it has decided."""
    write_atomic(folder.race, json.dumps(raced.document(), indent=1))
