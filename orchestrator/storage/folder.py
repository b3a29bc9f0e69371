"""The layout of a sweep on disk (one folder per sweep under a root), and who may write there.

ROOT/mlflow.db, mlartifacts/
ROOT/<sweep id>/sweep.yaml, resolved.json, study.journal, lock, stop, seconds
ROOT/<sweep id>/trials/<trial id>/trial.json, metrics.jsonl, result.json, checkpoint files
ROOT/<sweep id>/results/, report/

For a root in an object store, `root` is its local mirror (see `object_store.py`).
"""

from __future__ import annotations

import errno
import fcntl
import json
import math
import os
import shlex
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from orchestrator.definition import places, resolved
from orchestrator.definition.resolved import Resolved
from orchestrator.storage import object_store, whole
from orchestrator.storage.documents import read_json, reading, write_atomic
from orchestrator.storage.errors import Damaged, Held, NotFound
from orchestrator.storage.lease import FRESH_S, LOCK, Taken, driving
from orchestrator.storage.object_store import Far

PLACE, TRACKING = "place.json", "tracking.json"
"""In a sweep's folder: the location of its sweep file; whether it is logged to a tracker."""

PATIENCE_S, NAMED_S, POLL_S = 60.0, 0.2, 0.02
"""How long to wait for the lock of a sweep: a holder without a name has it only for a moment."""

USUAL_ROOT = "runs"


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
    def far(self) -> Far | None:
        """The sweep's remote side, for a root in an object store."""
        uri = object_store.far(self.path)
        return object_store.side(uri, self.path) if uri else None

    @property
    def place(self) -> str:
        """The sweep's folder as the user knows it: a path or a URI."""
        return object_store.far(self.path) or str(self.path)

    def command(self, *words: str) -> str:
        """`geosweep WORDS` as typed for this sweep, with the root if it is not the default."""
        root = object_store.far(self.root) or str(self.root)
        return shlex.join(["geosweep", *words, *(["--root", root] if root != USUAL_ROOT else [])])

    @property
    def journal(self) -> Path:
        """Optuna's journal: the record of what was asked and told."""
        return self.path / "study.journal"

    @property
    def stop_file(self) -> Path:
        """Exists while the sweep is asked to drain; trials check it between steps."""
        return self.path / "stop"

    @property
    def results(self) -> Path:
        """Parquet tables."""
        return self.path / "results"

    @property
    def waiting(self) -> Path:
        """Arm -> trials still to be started, and why they wait, as of the driver's last update."""
        return self.path / "waiting.json"

    @property
    def race(self) -> Path:
        """Which arms the race of the confirm stage stopped, and why (see `race.py`)."""
        return self.path / "race.json"

    @property
    def cache(self) -> Path:
        """Addresses of all ended trials under the root (see `cache.py`)."""
        return self.root / "cache"

    def trial(self, trial_id: str) -> Path:
        """The folder of one trial."""
        return self.path / "trials" / trial_id

    def address(self, trial_id: str) -> str:
        """Where the trial's worker, on any machine, finds the trial: an absolute path or a URI."""
        return f"{self.place}/trials/{trial_id}" if self.far else str(self.trial(trial_id).resolve())

    def create(self, text: str, what: Resolved) -> None:
        """Create the folder and write the sweep file and its resolved form (kept if already there). Raises
        UsageError.
        """
        whole.make(self.path / "trials")
        if not (self.path / resolved.NAME).exists():
            write_atomic(self.path / "sweep.yaml", text)
            self.resolve(what)
        os.utime(self.path)

    def text(self) -> str:
        """Its sweep file, as it was run. Raises Damaged."""
        path = self.path / "sweep.yaml"
        if not path.exists():
            raise Damaged(path, "it is missing")
        with reading(path):
            return path.read_text(encoding="utf-8")

    def resolved(self) -> Resolved:
        """What the sweep is; empty where nothing was written. Raises Damaged."""
        path = self.path / resolved.NAME
        found = read_json(path)
        if found is None:
            if path.exists():
                raise Damaged(path, "it is empty")
            return Resolved()
        with reading(path):
            return Resolved.of(found)

    def resolve(self, what: Resolved) -> None:
        """Write what the sweep is."""
        write_atomic(self.path / resolved.NAME, json.dumps(what.document(), indent=1, sort_keys=True))

    @property
    def tracked(self) -> bool:
        """Whether its latest driver logged to a tracker; true where that was never recorded. Raises Damaged."""
        known = read_json(self.path / TRACKING) or {"tracked": True}
        with reading(self.path / TRACKING):
            return bool(known["tracked"])

    def note_tracked(self, tracked: bool) -> None:
        """Record whether its trials are logged to a tracker."""
        if tracked != self.tracked:
            write_atomic(self.path / TRACKING, json.dumps({"tracked": tracked}))

    def note_place(self, file: Path) -> None:
        """Record the location of the sweep file, for the modules and files that it names: absolute, and relative to the
        root.
        """
        if not (self.path / PLACE).exists() and file.exists():
            place = file.resolve().parent
            seen = os.path.relpath(place, self.root.resolve())
            write_atomic(self.path / PLACE, json.dumps({"folder": str(place), "from_root": seen}, indent=1))

    def recall_place(self) -> None:
        """Find modules and files of the sweep where it was started; also after they were moved together with the
        root.
        """
        known = read_json(self.path / PLACE)
        if not known:
            return
        with reading(self.path / PLACE):
            candidates = (self.root.resolve() / known["from_root"], Path(known["folder"]))
        for place in candidates:
            if place.is_dir():
                places.remember(Path(os.path.normpath(place)))
                return

    def seconds(self) -> float:
        """Wall clock that drivers have spent on this sweep; downtime does not count."""
        return float(read_json(self.path / "seconds", (int, float)) or 0.0)

    def add_seconds(self, total: float) -> None:
        """Store the wall clock spent, in seconds."""
        write_atomic(self.path / "seconds", json.dumps(round(total, 3)))

    def level(self) -> None:
        """Synchronize a local mirror from its remote side, unless a driver on this machine works in it."""
        if self.far is not None:
            self.path.mkdir(parents=True, exist_ok=True)
            with suppress(Held), self._own(""):
                self.far.pull(_shared)

    def hear(self, trial_id: str, durable: float, *, new: bool) -> None:
        """Called when a trial's worker, perhaps on another machine, has reported; see `Far.hear`."""
        if self.far is not None:
            self.far.hear(trial_id, durable, new=new)

    def publish(self, trial_id: str) -> None:
        """Called when the driver has written the trial's end: its checkpoints are no longer needed."""
        for old in self.trial(trial_id).glob("checkpoint*"):
            old.unlink()
        if self.far is not None:
            place = f"trials/{trial_id}"
            self.far.push([f"{place}/trial.json", f"{place}/result.json"])
            worker = Far(self.address(trial_id), self.trial(trial_id))
            worker.remove(n for n in worker.names() if n.startswith("checkpoint"))

    def inherit(self, parent: str, child: str) -> None:
        """Start a trial with the log and the newest checkpoint of another one, which is not running.

        If that trial has no checkpoint, or this one already has one, nothing is done: the trial trains its whole
        lineage.
        """
        mine, theirs = self.trial(child), self.trial(parent)
        if self.far is not None:
            Far(self.address(child), mine).begin_as(Far(self.address(parent), theirs))
            return
        kept = sorted(theirs.glob("checkpoint-*.pt"))
        if not kept or any(mine.glob("checkpoint-*.pt")):
            return
        mine.mkdir(parents=True, exist_ok=True)
        write_atomic(mine / "metrics.jsonl", (theirs / "metrics.jsonl").read_text(encoding="utf-8"))
        os.link(kept[-1], mine / kept[-1].name)  # checkpoints are never modified

    def upload(self, part: str) -> None:
        """Upload what is new in one of the sweep's folders."""
        if self.far is not None:
            self.far.push([n for n in self.far.changed(deep=True) if n.startswith(f"{part}/")])

    def ask_to_stop(self) -> None:
        """Ask the driver, wherever it runs, to drain the sweep."""
        self.stop_file.touch()
        if self.far is not None:
            self.far.push([self.stop_file.name])

    @contextmanager
    def hold(self, storage: str = "") -> Iterator[None]:
        """Own the sweep while the context lasts. Raises Held, naming the holder, if somebody else does.

        For a root in an object store the lock is one in the database at `storage`.
        """
        owner = f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%Y-%m-%d %H:%M:%S')}"
        with self._own(owner):
            self.stop_file.unlink(missing_ok=True)  # meant for an earlier driver
            if self.far is None:
                yield
                return
            try:
                with driving(self.far, storage, owner, _shared, self.stop_file.touch):
                    yield
            except Taken as taken:
                raise Held(f"sweep {self.sweep_id} is being run by {str(taken) or 'another process'}") from None

    @contextmanager
    def _own(self, owner: str) -> Iterator[None]:
        """Own the folder on this machine: wait briefly for a holder without a name; a named one holds it until it
        ends.
        """
        path = self.path / "lock"
        lock = FileLock(path, thread_local=False, fallback_to_soft=False)
        holder, began = "", time.monotonic()

        def hopeless() -> bool:
            nonlocal holder
            holder = path.read_text(encoding="utf-8").strip()
            return bool(holder) and time.monotonic() - began > NAMED_S  # `is_held` takes the lock for a moment

        try:
            owned = lock.acquire(timeout=PATIENCE_S, poll_interval=POLL_S, cancel_check=hopeless)
        except Timeout:
            raise Held(f"sweep {self.sweep_id} is being run by {holder or 'another process'}") from None
        with owned:
            path.write_text(owner, encoding="utf-8")
            try:
                yield
            finally:
                with suppress(FileNotFoundError):
                    os.truncate(path, 0)

    def remove(self) -> None:
        """Delete the sweep; if the process is killed, the remainder is still a sweep that can be deleted."""
        if self.far is not None:
            self.far.clear()
        for path in sorted(self.path.iterdir(), key=lambda p: p.name == "resolved.json"):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        self.path.rmdir()

    def is_held(self) -> bool:
        """Whether a living driver holds the sweep; on another machine, one with a recent heartbeat."""
        if self.far is not None and (self.far.age(LOCK) or math.inf) < FRESH_S:
            return True
        if not self.path.is_dir():
            return False
        try:
            with self._own(""):
                return False
        except Held:
            return True
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise
            return self._is_locked()

    def _is_locked(self) -> bool:
        """Whether somebody has the lock, for a user with read access only."""
        try:
            with (self.path / "lock").open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return False
        except BlockingIOError:
            return True
        except OSError:
            return False


def sweeps(root: Path) -> list[SweepFolder]:
    """All sweeps under the root, the most recently used last."""
    if uri := object_store.far(root):
        there = _pull_definitions(uri, root)
        found = [root / name for name in there]
    else:
        found = [p.parent for p in root.glob("*/resolved.json")]
    return [SweepFolder(root, p.name) for p in sorted(found, key=lambda p: (p.stat().st_mtime, p.name))]


def find(root: Path, name: str) -> SweepFolder:
    """The sweep named by id, unique prefix, `@last`, or the path of its folder. Raises NotFound with the available
    ones.
    """
    path = Path(name)
    if path.name and (path / "resolved.json").is_file():
        path = path.absolute()
        root, name = path.parent if path.parent != root.absolute() else root, path.name
    known = sweeps(root)
    if not known:
        raise NotFound(
            f"no sweep under {object_store.far(root) or root}/; name another --root, or start one with: "
            "geosweep run FILE"
        )
    if path.parent.absolute() == root.absolute():  # runs/ID, with part of ID typed
        name = path.name
    matches = [s for s in known if s.sweep_id == name] or [s for s in known if name and s.sweep_id.startswith(name)]
    matches = known[-1:] if name == "@last" else matches
    if len(matches) == 1:
        matches[0].level()
        matches[0].recall_place()
        return matches[0]
    stem = name.rpartition("-")[0]
    alike = [s for s in known if stem and s.sweep_id.rpartition("-")[0] == stem]
    if alike and not matches:
        others = ", ".join(s.sweep_id for s in alike)
        raise NotFound(f"{name!r} names no sweep; sweeps of the same name with another definition: {others}")
    listing = ", ".join(s.sweep_id for s in matches or known)
    raise NotFound(f"{name!r} names {f'{len(matches)} sweeps' if matches else 'no sweep'}; available: {listing}")


def _pull_definitions(uri: str, root: Path) -> list[str]:
    """Download what is needed to list the sweeps of a remote root; returns their ids, least recently used first."""
    there = []
    for sweep_id in object_store.side(uri, root).folders():
        folder = SweepFolder(root, sweep_id)
        if folder.far is None or (begun := folder.far.age("resolved.json")) is None:
            continue
        if not (folder.path / "resolved.json").exists():
            folder.far.fetch(["resolved.json"])
        worked = time.time() - (folder.far.age("seconds") or begun)
        os.utime(folder.path, (worked, worked))
        there.append(sweep_id)
    return there


def _shared(name: str) -> bool:
    """Whether a file is mirrored from the remote side: checkpoints are exchanged between workers, the lock is local to
    a machine, and trial output is read remotely.
    """
    return not (name.rpartition("/")[2].startswith(("checkpoint", "lock")) or name.endswith(".log"))
