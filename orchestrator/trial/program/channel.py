"""What a script that uses our API, or the runner around it, tells its worker, through files in the trial's folder.

`script/given.json` holds the trial's inputs. The script appends to `script/said.jsonl`: metrics, digests of weights and
batches, checkpoints. `script/counts` holds the counts so far (backward passes and optimizer steps, two unsigned 64-bit
integers, and the charge of one of our optimizers, a double) in shared memory, so that they are known however the script
ended. `script/stop` asks it to checkpoint and exit.
"""

from __future__ import annotations

import contextlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.documents import write_atomic

COUNTS = struct.Struct("<QQd")
VARIABLE = "GEOSWEEP_TRIAL"


class Channel:
    """The worker's side."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)

    def open(self, given: Mapping[str, Any]) -> None:
        """A run is about to begin. `counts` in `given`: backward passes and steps of the runs that it continues."""
        self._base = given.get("counts", (0, 0))
        for name in ("said.jsonl", "stop"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / "counts").write_bytes(COUNTS.pack(0, 0, 0.0))
        write_atomic(self.folder / "given.json", json.dumps(given), durable=False)
        self._offset = 0
        self.cut = ""

    def heard(self) -> Iterator[dict[str, Any]]:
        """Complete lines since the last call; a line that is not a JSON object is skipped."""
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
        return float(charged or backwards + self._base[0]), int(steps + self._base[1])

    def ask_to_stop(self) -> None:
        """Ask a cooperating script to checkpoint and exit."""
        (self.folder / "stop").touch()


def environment(folder: Path, *, threads: int, given: Mapping[str, str]) -> dict[str, str]:
    """The environment of a script: this worker's, with the trial's own variables."""
    own = {"OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **own, VARIABLE: str(folder), "GEOSWEEP_TRIAL_DIR": str(folder.parent), **given}
