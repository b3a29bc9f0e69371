"""What a section found: JSON for programs, a table for people, and whether it has to be run again."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import platform
import re
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from tests.bench.gpu_check.setting import Row, Setting

ROOT = Path(__file__).parents[3]
CODE = ("optim_core", "trainables", "orchestrator", "tests/bench")
SAME = ("device", "torch", "code")
"""What has to be the same for a result to count still."""


def environment(device: str) -> dict[str, str]:
    """Where and with what: part of every result."""
    return {
        "device": torch.cuda.get_device_name() if device == "cuda" else f"cpu {platform.machine()}",
        "date": datetime.date.today().isoformat(),
        "torch": torch.__version__,
        "driver": _first_line(["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]) or "none",
        "python": platform.python_version(),
        "cores": str(len(os.sched_getaffinity(0))),
        "load": f"{os.getloadavg()[0]:.1f}",
        "commit": _first_line(["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]) or "unknown",
        "code": code(),
    }


def code() -> str:
    """A hash of the sources that a result depends on."""
    found = hashlib.sha256()
    for part in CODE:
        for path in sorted((ROOT / part).rglob("*.py")):
            found.update(str(path.relative_to(ROOT)).encode() + path.read_bytes())
    return found.hexdigest()[:12]


def slug(words: str) -> str:
    """For a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", words.lower()).strip("-")


def _first_line(command: list[str]) -> str:
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    return found.strip().partition("\n")[0]


@dataclass(frozen=True, kw_only=True)
class Record:
    """A section's result."""

    section: str
    says: str
    environment: dict[str, str]
    seconds: float
    rows: list[Row]
    failures: list[str]

    @classmethod
    def of(
        cls, section: str, run: Callable[[Setting], Iterable[Row]], setting: Setting, environment: dict[str, str]
    ) -> Record:
        """Run a section; whatever it raises is its result."""
        began, rows, failures = time.perf_counter(), [], []
        try:
            for row in run(setting):
                rows.append(row)
        except Exception as error:
            traceback.print_exc(file=sys.stderr)
            failures.append(f"{type(error).__name__}: {error}")
        failures += [f"{row['what']}: {row['failed']}" for row in rows if row.get("failed")]
        says = " ".join((run.__doc__ or "").split())
        seconds = round(time.perf_counter() - began, 1)
        return cls(section=section, says=says, environment=environment, seconds=seconds, rows=rows, failures=failures)

    @classmethod
    def whole(cls, file: Path, environment: dict[str, str]) -> Record | None:
        """The result in the file, if it is of the same code, torch and device, and nothing is missing in it."""
        if not file.exists():
            return None
        found = cls(**json.loads(file.read_text()))
        same = all(found.environment[key] == environment[key] for key in SAME)
        return found if same and not found.failures and not any(row.get("left out") for row in found.rows) else None

    def write(self, file: Path) -> None:
        """As JSON, whole or not at all."""
        part = file.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1) + "\n")
        part.replace(file)

    def text(self) -> str:
        """A heading and a table for each set of columns."""
        return "\n".join([f"\n== {self.section} ({self.seconds:g} s): {self.says}", *_tables(self.rows)])


def text(stem: Path, sections: Iterable[str]) -> str:
    """All results of a device that are there."""
    found = [Path(f"{stem}_{section}.json") for section in sections]
    records = [Record(**json.loads(file.read_text())) for file in found if file.exists()]
    blocks = []
    for record in records:
        e = record.environment
        where = f"{e['date']}, {e['device']}, torch {e['torch']}, driver {e['driver']}, commit {e['commit']}"
        blocks += [record.text(), f"({where}, load {e['load']}, {e['cores']} cores)"]
    return "\n".join(blocks).lstrip() + "\n"


def _tables(rows: list[Row]) -> Iterator[str]:
    columns: list[str] = []
    for row in rows:
        columns += [key for key in row if key not in columns]
    if not columns:
        return
    cells = [columns, *([_shown(row.get(key, "")) for key in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    for line in cells:
        yield "  ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return str(value).replace("\n", " ")[:100]
