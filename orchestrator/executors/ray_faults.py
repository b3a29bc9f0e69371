"""Why a trial lost its worker, derived from Ray's errors, and whether the trial is handed out again.

Faults are attributed to the machine, and a trial continues from its checkpoint after each. One that recurs in the same
way REPEATS times without a new checkpoint in between is attributed to the trial, which ends as FAILED with the last
message. A lost node, a process killed from outside (it leaves no crash report), and a memory kill that hit a bystander
(Ray kills the newest workers of a node, not the largest) count against the trial only after BYSTANDER_REPEATS times: a
trial is not to blame for an outage, but one that brings down whatever it touches must not run forever.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayActorError, RayTaskError

from orchestrator.storage.disk import DiskFull, described, is_full
from orchestrator.trial.job import Job
from orchestrator.trial.log_files import file_name
from orchestrator.trial.workspace import newest_checkpoint

REPEATS = 3
BYSTANDER_REPEATS = 10
TAIL = 4000
WORDS = {
    "memory": "the node ran out of memory and its worker was killed",
    "node": "its node was lost",
    "process": "its worker's process died",
    "exception": "its worker raised",
}
_MEMORY = "due to the node running low on memory"
_NODE = ("node has died", "node was terminated", "raylet died", "owner has died", "preempted")
_CRASH = re.compile(r"Fatal Python error|\*\*\* SIG\w+ received|terminate called|CUDA error")
_USED = re.compile(r"Actor\((\w+)\).*?pid=(\d+), actual memory used=([\d.]+)GB")


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One end of a worker that was not its trial's end."""

    kind: str
    """A key of WORDS."""
    says: str
    bystander: bool = False
    """Something else was the cause."""


class WorkerLost(RayActorError):  # type: ignore[misc]  # noqa: N818
    """A system error unknown to Tune, treated as the death of the affected actor."""


def fault_of(error: Exception | str | None, logs: Path, printed: str = "") -> Fault:
    """Classify the fault from the error that Tune keeps.

    `logs` is where local workers leave their last output outside trials; `printed` is the tail of what the trial wrote
    to standard error since its last fault.
    """
    text = str(error or "no message")
    if _MEMORY in text:
        return _memory(text, getattr(error, "actor_id", None))
    if any(words in text for words in _NODE):
        return Fault(kind="node", says=text, bystander=True)
    if isinstance(error, RayTaskError) and "WorkerLost" not in text:
        return Fault(kind="exception", says=text)
    pid = re.search(r"pid: (\d+)", text)
    words = _last_words(f"{_worker_log(logs, pid[1]) if pid else ''}\n{printed}")
    return Fault(kind="process", says=text + words, bystander=not _CRASH.search(words))


class Attempts:
    """How often each trial lost its worker, by kind of fault, since its newest checkpoint."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._read: Counter[str] = Counter()

    def give_up(self, job: Job, error: Exception | str | None) -> tuple[Fault, str]:
        """(the fault, why the trial is not handed out again or empty). Raises DiskFull."""
        if isinstance(error, RayTaskError) and is_full(error.cause):
            raise DiskFull(str(error.cause) if isinstance(error.cause, DiskFull) else described(Path(job.folder)))
        fault = fault_of(error, self._logs, self._printed(job))
        newest = newest_checkpoint(job.folder)
        self._counts[job.trial_id, fault.kind, newest] += 1
        times = self._counts[job.trial_id, fault.kind, newest]
        if times < (BYSTANDER_REPEATS if fault.bystander else REPEATS):
            return fault, ""
        return (
            fault,
            f"{times} times without a new checkpoint {WORDS[fault.kind]}; the last time:\n{fault.says[-TAIL:]}",
        )

    def _printed(self, job: Job) -> str:
        """The tail of what the trial wrote to standard error since its last fault, if its folder is accessible."""
        try:
            with (Path(job.folder) / file_name("stderr")).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                read = self._read[job.trial_id]
                file.seek(max(0, size - TAIL, read if read <= size else 0))
                self._read[job.trial_id] = size
                return file.read().decode(errors="replace")
        except OSError:
            return ""


def _memory(text: str, actor_id: str | None) -> Fault:
    """A memory kill, summarized; a worker that was killed next to a larger one is a bystander."""
    used = {actor: (float(gigabytes), pid) for actor, pid, gigabytes in _USED.findall(text)}
    mine = used.get(actor_id or "")
    says = text.partition("\nObject store memory usage")[0]
    says += "".join(f"\nworker {pid} used {gigabytes:.2f} GB" for gigabytes, pid in used.values())
    if mine is not None:
        says += (
            f"\nthis trial's worker was {mine[1]}; request more cpu for a trial that needs more memory than its share"
        )
    return Fault(kind="memory", says=says, bystander=mine is not None and mine[0] < max(used.values())[0])


def _worker_log(logs: Path, pid: str) -> str:
    """What a worker of a local cluster wrote to standard error."""
    files = logs.glob(f"session_2*/logs/worker-*-{pid}.err")
    return "\n".join(path.read_text(errors="replace") for path in files)


def _last_words(text: str) -> str:
    """The end of the text, without uninformative lines."""
    empty = ("Extension modules", ":job_id:", ":actor_name:")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(empty)]
    return "\n" + "\n".join(lines)[-TAIL // 2 :] if lines else ""
