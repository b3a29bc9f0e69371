"""What a script that knows of us, or the runner around it, tells its worker, through files in the trial's folder.

`script/given.json` says what the trial is given. `script/said.jsonl` is appended to by the script: metrics, digests of
weights and batches, checkpoints. `script/counts` holds what was counted so far (backward passes and optimizer steps,
two unsigned 64-bit integers, and what an optimizer of ours charged, a double) in shared memory, so that it is known
however the script ended. `script/stop` asks it to checkpoint and leave.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.folder import write_atomic

COUNTS = struct.Struct("<QQd")
VARIABLE = "GEOSWEEP_TRIAL"


class Channel:
    """The worker's side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def open(self, given: Mapping[str, Any]) -> None:
        """A run is about to begin."""
        for name in ("said.jsonl", "stop"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "counts").write_bytes(COUNTS.pack(0, 0, 0.0))
        write_atomic(self.folder / "given.json", json.dumps(given), durable=False)
        self._offset = 0
        self.cut = ""

    def heard(self) -> Iterator[dict[str, Any]]:
        """Whole lines that came since the last call; one that is no JSON object is left out."""
        path = self.folder / "said.jsonl"
        if not path.exists():
            return
        with path.open("rb") as read:
            read.seek(self._offset)
            data = read.read()
        whole, newline, rest = data.rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        self.cut = rest.decode("utf-8", "replace")
        for line in whole.splitlines():
            with contextlib.suppress(ValueError):
                document = json.loads(line)
                if isinstance(document, dict):
                    yield document

    def counts(self) -> tuple[float, int]:
        """(gradient evaluations, optimizer steps) counted so far."""
        try:
            data = (self.folder / "counts").read_bytes()
        except OSError:
            return 0.0, 0
        backwards, steps, charged = COUNTS.unpack(data[: COUNTS.size]) if len(data) >= COUNTS.size else (0, 0, 0.0)
        return float(charged or backwards), int(steps)

    def ask_to_stop(self) -> None:
        """Have a script that listens checkpoint and leave."""
        (self.folder / "stop").touch()


def environment(folder: Path, *, threads: int, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a script: this worker's, with what is its own."""
    own = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **own, VARIABLE: str(folder), "GEOSWEEP_TRIAL_DIR": str(folder.parent), **given}
