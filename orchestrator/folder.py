"""Where a sweep keeps things on disk (design: one folder for each sweep under a root), and who may write there.

ROOT/mlflow.db, mlartifacts/
ROOT/<sweep id>/sweep.yaml, resolved.json, study.journal, lock, stop, seconds
ROOT/<sweep id>/trials/<trial id>/trial.json, metrics.jsonl, result.json, checkpoint files
ROOT/<sweep id>/results/, report/
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class NotFound(Exception):  # noqa: N818
    """No sweep (or trial) of that name under the root."""


class Held(Exception):  # noqa: N818
    """Another driver works on this sweep."""


def write_atomic(path: Path, text: str, *, durable: bool = True) -> None:
    """Write `text` so that `path` holds the old or the whole new content; `durable`: also after a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with temporary.open("w", encoding="utf-8") as out:
            out.write(text)
            if durable:
                out.flush()
                os.fsync(out.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)  # half of it only fills the disk that is full
        raise


def read_json(path: Path) -> Any | None:
    """The JSON document at `path`, or None when there is none (or an empty one, after a power cut)."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    return json.loads(text) if text else None


@dataclass(frozen=True)
class SweepFolder:
    """The folder of one sweep."""

    root: Path
    sweep_id: str

    @property
    def path(self) -> Path:
        """The sweep's own folder."""
        return self.root / self.sweep_id

    @property
    def journal(self) -> Path:
        """Optuna's journal: the truth of what was asked and told."""
        return self.path / "study.journal"

    @property
    def stop_file(self) -> Path:
        """Present while the sweep is asked to drain; trials look at it between steps."""
        return self.path / "stop"

    @property
    def results(self) -> Path:
        """Parquet tables."""
        return self.path / "results"

    @property
    def waiting(self) -> Path:
        """Arm -> trials still to be started, and why they wait, as the driver last saw it."""
        return self.path / "waiting.json"

    @property
    def cache(self) -> Path:
        """Addresses of all trials that ended under the root (see `cache.py`)."""
        return self.root / "cache"

    def trial(self, trial_id: str) -> Path:
        """The folder of one trial."""
        return self.path / "trials" / trial_id

    def create(self, text: str, resolved: dict[str, Any]) -> None:
        """Make the folder and write what was asked and what it resolved to (kept when already there)."""
        (self.path / "trials").mkdir(parents=True, exist_ok=True)
        if not (self.path / "resolved.json").exists():
            write_atomic(self.path / "sweep.yaml", text)
            write_atomic(self.path / "resolved.json", json.dumps(resolved, indent=1, sort_keys=True))
        os.utime(self.path)

    def result(self, trial_id: str) -> dict[str, Any] | None:
        """How the trial ended, or None while it has not."""
        found: dict[str, Any] | None = read_json(self.trial(trial_id) / "result.json")
        return found

    def seconds(self) -> float:
        """Wall clock that drivers spent on this sweep so far; time down does not count."""
        return float(read_json(self.path / "seconds") or 0.0)

    def add_seconds(self, total: float) -> None:
        """Store the wall clock spent, in seconds."""
        write_atomic(self.path / "seconds", json.dumps(round(total, 3)))

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Own the sweep while the context lasts. Raises Held, naming the holder, when somebody else does."""
        path = self.path / "lock"
        with path.open("a+", encoding="utf-8") as handle:
            for patience in range(10, -1, -1):  # `is_held` owns it for a moment
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except OSError:
                    if patience:
                        time.sleep(0.02)
                        continue
                    handle.seek(0)
                    holder = handle.read().strip() or "another process"
                    raise Held(f"sweep {self.sweep_id} is being run by {holder}") from None
            handle.truncate(0)
            handle.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}")
            handle.flush()
            try:
                yield
            finally:
                handle.truncate(0)

    def is_held(self) -> bool:
        """Whether a living driver holds the sweep."""
        try:
            with self.hold():
                return False
        except Held:
            return True
        except FileNotFoundError:
            return False


def sweeps(root: Path) -> list[SweepFolder]:
    """All sweeps under the root, the one worked on last at the end."""
    found = [p.parent for p in root.glob("*/resolved.json")]
    return [SweepFolder(root, p.name) for p in sorted(found, key=lambda p: (p.stat().st_mtime, p.name))]


def find(root: Path, name: str) -> SweepFolder:
    """The sweep named by id, unique prefix or `@last`. Raises NotFound with what there is."""
    known = sweeps(root)
    if not known:
        raise NotFound(f"no sweep under {root}/; start one with `geosweep run FILE`, or name another --root")
    if name == "@last":
        return known[-1]
    matches = [s for s in known if s.sweep_id == name] or [s for s in known if s.sweep_id.startswith(name)]
    if len(matches) == 1:
        return matches[0]
    listing = ", ".join(s.sweep_id for s in matches or known)
    raise NotFound(f"{name!r} names {f'{len(matches)} sweeps' if matches else 'no sweep'}; there is: {listing}")
