"""A trial's log of its metrics: append-only lines with checksums in the trial's folder.

It is written before anything is reported, so trackers and tables can be rebuilt from it at any time. A line that was
truncated by a crash, or does not match its checksum, counts as not written.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.storage.documents import write_atomic


@dataclass(frozen=True, slots=True)
class LoggedPoint:
    """What a trial measured at one step."""

    step: float
    """In gradient evaluations; of a script, in the unit of its budget."""
    metrics: Mapping[str, float]
    time: int = 0
    """Milliseconds since the epoch; 0 where it is not known."""

    def document(self) -> dict[str, Any]:
        """As in the log."""
        return {"step": self.step, "time": self.time, "metrics": dict(self.metrics)}


class MetricLog:
    """One line for each point, as JSON with a checksum."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def points(self) -> list[LoggedPoint]:
        """All points up to the first damaged line."""
        return self.read()[0]

    def damage(self) -> int:
        """Number of lines that are damaged or follow a damaged one."""
        return self.read()[1]

    def reaches(self, step: float) -> bool:
        """Whether the log holds the point covered by a checkpoint at this step; before the first step there is none."""
        return step < 0 or any(p.step == step for p in self.points())

    def append(self, step: float, metrics: Mapping[str, float]) -> LoggedPoint:
        """Append what was measured now; returns it as a point."""
        point = LoggedPoint(step, metrics, int(time.time() * 1000))
        with self._path.open("a", encoding="utf-8") as out:
            out.write(_line(point))
        return point

    def sync(self) -> None:
        """Return once all points would survive a power failure: called before a result or a checkpoint relies on
        them.
        """
        if self._path.exists():
            with self._path.open("rb") as written:
                os.fsync(written.fileno())

    def truncate(self, step: float) -> list[LoggedPoint]:
        """Drop points after `step`, which will be trained and logged again. Returns the remaining points."""
        if not self._path.exists():
            return []
        kept = [p for p in self.points() if p.step <= step]
        self.replace(kept)
        return kept

    def replace(self, points: Sequence[LoggedPoint]) -> None:
        """Replace the content with these points."""
        write_atomic(self._path, "".join(_line(p) for p in points))

    def read(self) -> tuple[list[LoggedPoint], int]:
        """(intact points, number of lines that are damaged or follow a damaged one)."""
        if not self._path.exists():
            return [], 0
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        found: list[LoggedPoint] = []
        for line in lines:
            point = _point(line)
            if point is None:
                break
            found.append(point)
        return found, len(lines) - len(found)


def _line(point: LoggedPoint) -> str:
    body = json.dumps(point.document())
    return f'{body[:-1]}, "crc": {zlib.crc32(body.encode())}}}\n'


def _point(line: str) -> LoggedPoint | None:
    body, found, tail = line.rpartition(', "crc": ')
    if not found or tail != f"{zlib.crc32((body + '}').encode())}}}":
        return None
    return LoggedPoint(**json.loads(body + "}"))
