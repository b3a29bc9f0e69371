"""Carry a script's resume state to the machine that continues it, for trials in an object store.

One archive holds the newest of `checkpoints` (or, if `resume_arg` needs none, everything the script wrote into its
trial's folder), what `trial.checkpoint` saved, and the count of runs. An upload appears completely or not at all, and
so does this. Files that change while being read are left for the next time. Nothing is done for a local root.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from orchestrator.trial.log_files import is_log
from orchestrator.trial.program.sources import matching
from orchestrator.trial.workspace import LOG, RESULT, TrialPlace

SETTLED_S = 1.0
"""A file written less than this many seconds ago may be incomplete."""
PATIENCE_S = 10.0
"""Files that are written continuously are read anyway after this many seconds, if they do not change meanwhile."""
SHARE = 0.1
"""Maximum share of the time spent on archives."""
OURS = {LOG, RESULT, "trial.json", "lock", "script"}
STATE = ("checkpoint.pt", "checkpoint.json", "runs.json")
KNOWN = "kept.txt"
"""The archives that this machine made or unpacked, one per line."""


class Kept:
    """The archives of one trial. `talk`: the folder, below the trial's, for communication between worker and script."""

    def __init__(self, place: TrialPlace, talk: Path, task: Mapping[str, Any]) -> None:
        self._place, self._folder, self._talk, self._task = place, place.folder, talk, task
        self._due = self._changed = 0.0
        self._stamps: list[Any] = []

    def unpack(self) -> None:
        """Fetch what another machine uploaded, unless it came from this one."""
        newest = max((path.name for path in self._folder.glob("checkpoint-*.tar")), default="")
        if newest and newest not in self._known():
            with tarfile.open(self._folder / newest) as archive:
                archive.extractall(self._folder, filter="data")
            self._know(newest)

    def save(self, every_s: float, covers: float, *, last: bool = False) -> None:
        """Upload what is new, at most once in `every_s` seconds; `last`: the script has ended, so wait for the
        upload.
        """
        began = time.monotonic()
        if not self._place.is_far or (not last and (began < self._due or self._place.busy())):
            return
        self._place.settle()
        try:
            paths = sorted(self._paths())
            stamps = _stamps(p for p in paths if p.name != STATE[-1])
        except FileNotFoundError:  # the script removed it meanwhile
            return
        self._changed = self._changed or began
        hurried = time.time() - max((s[1] for s in stamps), default=0.0) < SETTLED_S and not last
        if not stamps or stamps == self._stamps or (hurried and began - self._changed < PATIENCE_S):
            return
        old = sorted(self._folder.glob("checkpoint-*.tar"))
        number = int(old[-1].name.split("-")[1]) + 1 if old else 1
        if not self._archive(paths, number, stamps):
            return
        for path in old:
            path.unlink()
        self._stamps, self._changed = stamps, 0.0
        self._due = time.monotonic() + max(every_s, (time.monotonic() - began) / SHARE)
        self._place.saved(covers)
        if last:
            self._place.settle()

    def _archive(self, paths: list[Path], number: int, stamps: list[Any]) -> bool:
        """Whether the archive holds the files in their current state."""
        temporary = self._folder / ".checkpoint.tar"
        try:
            with tarfile.open(temporary, "w") as archive:
                for path in paths:
                    archive.add(path, path.relative_to(self._folder).as_posix(), recursive=False)
            if _stamps(p for p in paths if p.name != STATE[-1]) != stamps:
                raise FileNotFoundError
        except OSError as error:
            temporary.unlink(missing_ok=True)
            if isinstance(error, FileNotFoundError) or error.errno is None:  # tarfile's: it became shorter meanwhile
                return False
            raise
        with temporary.open("rb") as read:
            digest = hashlib.file_digest(read, "sha256").hexdigest()[:16]
        name = f"checkpoint-{number:06d}-{digest}.tar"
        self._know(name)
        temporary.replace(self._folder / name)
        return True

    def _paths(self) -> Iterator[Path]:
        yield from (path for name in STATE if (path := self._talk / name).exists())
        if not self._task["resume_arg"]:
            return
        if self._task["checkpoints"]:
            found = matching(self._task["checkpoints"].replace("${trial_dir}", str(self._folder)), self._folder)
            inside = [path for path in found if path.is_relative_to(self._folder)]
            tops = [max(inside, key=lambda path: path.stat().st_mtime)] if inside else []
        else:
            named = (path for path in self._folder.iterdir() if not path.name.startswith("."))
            tops = [p for p in named if p.name not in OURS and not is_log(p.name) and p.suffix != ".tar"]
        for top in tops:
            for path in (top, *top.rglob("*")) if top.is_dir() and not top.is_symlink() else (top,):
                if path.is_symlink() and os.path.isabs(os.readlink(path)):
                    continue  # it would point nowhere on another machine
                if path.is_symlink() or path.is_file():
                    yield path

    def _known(self) -> list[str]:
        path = self._talk / KNOWN
        return path.read_text(encoding="utf-8").split() if path.exists() else []

    def _know(self, name: str) -> None:
        with (self._talk / KNOWN).open("a", encoding="utf-8") as out:
            out.write(f"{name}\n")


def _stamps(paths: Iterator[Path]) -> list[Any]:
    """(path, modification time, bytes) of each. Raises FileNotFoundError."""
    found = [(path, path.lstat()) for path in paths]
    return [(str(path), status.st_mtime, status.st_size) for path, status in found]
