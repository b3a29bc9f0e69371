"""A trial's log of its metrics: append-only lines with checksums in the trial's folder.

It is written before anything is reported, so trackers and tables can be rebuilt from it at any time. A line that was
truncated by a crash, or does not match its checksum, counts as not written.
"""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from orchestrator.storage.folder import write_atomic


class MetricLog:
    """Lines of {"step", "time", "metrics", "crc"}; step in gradient evaluations, time in ms since the epoch."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def points(self) -> list[dict[str, Any]]:
        """All points up to the first damaged line."""
        return self.read()[0]

    def damage(self) -> int:
        """Number of lines that are damaged or follow a damaged one."""
        return self.read()[1]

    def reaches(self, step: float) -> bool:
        """Whether the log holds the point covered by a checkpoint at this step; before the first step there is none."""
        return step < 0 or any(p["step"] == step for p in self.points())

    def append(self, step: float, metrics: Mapping[str, float]) -> None:
        """Append one point."""
        with self._path.open("a", encoding="utf-8") as out:
            out.write(_line({"step": step, "time": int(time.time() * 1000), "metrics": dict(metrics)}))

    def sync(self) -> None:
        """Return once all points would survive a power failure: called before a result or a checkpoint relies on
        them.
        """
        if self._path.exists():
            with self._path.open("rb") as written:
                os.fsync(written.fileno())

    def truncate(self, step: float) -> list[dict[str, Any]]:
        """Drop points after `step`, which will be trained and logged again. Returns the remaining points."""
        if not self._path.exists():
            return []
        kept = [p for p in self.points() if p["step"] <= step]
        self.replace(kept)
        return kept

    def replace(self, points: list[dict[str, Any]]) -> None:
        """Replace the content with these points."""
        write_atomic(self._path, "".join(_line(p) for p in points))

    def read(self) -> tuple[list[dict[str, Any]], int]:
        """(intact points, number of lines that are damaged or follow a damaged one)."""
        if not self._path.exists():
            return [], 0
        lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        found: list[dict[str, Any]] = []
        for line in lines:
            point = _point(line)
            if point is None:
                break
            found.append(point)
        return found, len(lines) - len(found)


def _line(point: Mapping[str, Any]) -> str:
    body = json.dumps({key: point[key] for key in ("step", "time", "metrics")})
    return f'{body[:-1]}, "crc": {zlib.crc32(body.encode())}}}\n'


def _point(line: str) -> dict[str, Any] | None:
    body, found, tail = line.rpartition(', "crc": ')
    if not found or tail != f"{zlib.crc32((body + '}').encode())}}}":
        return None
    point: dict[str, Any] = json.loads(body + "}")
    return point
