"""How the last command on a sweep ended: ending.json in the sweep's folder, and the last line of a job's log.

`outcome.json` is for the next driver; this is for whoever waits for the command from outside, such as a pipeline or a
Kubernetes operator, which see at most an exit code.
"""

from __future__ import annotations

import json
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from orchestrator.definition.passwords import without_passwords
from orchestrator.storage import disk
from orchestrator.storage.documents import read_json, write_atomic
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.object_store import StoreError

NAME = "ending.json"
SCHEMA = "geosweep/ending/1"
MARK = "geosweep ended: "
DONE, BUDGET, STOPPED = "done", "budget", "stopped"
FAILED, NO_WORKERS, FAULT = "failed", "no workers", "fault"
MEANT = (DONE, BUDGET, STOPPED)
"""Endings requested by the sweep file or by a stop; nothing went wrong."""
ENDINGS = (*MEANT, FAILED, NO_WORKERS, FAULT)


@dataclass(frozen=True, kw_only=True)
class Ending:
    """The end of one command."""

    ending: str
    """done, budget, stopped; failed: another attempt would end the same way; no workers; fault: of a machine or a
    service.
    """
    exit_code: int
    """The exit code of `geosweep run` on a terminal."""
    reason: str = ""
    when: str = ""
    """UTC, ISO 8601."""

    @property
    def is_meant(self) -> bool:
        """Whether nothing went wrong."""
        return self.ending in MEANT

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"schema": SCHEMA, **asdict(self), "reason": without_passwords(self.reason)}

    def line(self) -> str:
        """The line that a job prints last."""
        return MARK + json.dumps(self.document())

    def write(self, folder: SweepFolder) -> bool:
        """Write ending.json, also to the remote side, if disk and store allow it.

        Returns False, and writes nothing, if there is no such sweep or an earlier ending is still there: a driver
        clears it first.
        """
        if not (folder.path / "resolved.json").exists() or (folder.path / NAME).exists():
            return False
        with disk.tolerated():
            write_atomic(folder.path / NAME, json.dumps(self.document()))
        publish(folder, NAME)
        return True


def now() -> str:
    """The time for `Ending.when`."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def read(folder: SweepFolder) -> Ending | None:
    """How the last command ended; None while one is running, and for a sweep without an ended command."""
    return of(read_json(folder.path / NAME, object))


def clear(folder: SweepFolder) -> None:
    """A command is running."""
    (folder.path / NAME).unlink(missing_ok=True)
    if folder.far is not None:
        with suppress(StoreError):
            folder.far.remove([NAME])


def publish(folder: SweepFolder, *names: str) -> None:
    """Upload files of the sweep's folder if it has a reachable remote side."""
    if folder.far is not None:
        with suppress(StoreError, OSError):
            folder.far.push(names)


def in_log(text: str) -> Ending | None:
    """The ending in the last line of a job's log."""
    for line in reversed(text.splitlines()):
        if line.startswith(MARK):
            with suppress(ValueError, TypeError):
                return of(json.loads(line.removeprefix(MARK)))
    return None


def of(document: Any) -> Ending | None:
    """The ending in a JSON document; None for any other document."""
    if not isinstance(document, dict) or document.get("ending") not in ENDINGS:
        return None
    code, told = document.get("exit_code"), {key: document.get(key, "") for key in ("ending", "reason", "when")}
    if not isinstance(code, int) or isinstance(code, bool) or not all(isinstance(v, str) for v in told.values()):
        return None
    return Ending(exit_code=code, **told)
