"""How a script ended, as text: exit code, exception, out of memory, a signal, or without reporting anything."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.trial.program.output import tail
from orchestrator.trial.program.process import Ended

OUT_OF_MEMORY = re.compile(
    r"OutOfMemoryError|CUDA out of memory|DefaultCPUAllocator: (?:can't|not enough)|CUBLAS_STATUS_ALLOC_FAILED"
)
LAST_LINE = re.compile(r"^([A-Za-z_][\w.]*)(?::\s*(.*))?$")
CGROUP = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))


@dataclass(frozen=True, kw_only=True)
class Words:
    """The description of an unsuccessful end."""

    sentence: str
    detail: str
    """The traceback, or the end of its output."""

    def __str__(self) -> str:
        return f"{self.sentence}\n\n{self.detail}".strip()


def memory_kills() -> int:
    """How many processes of this machine or container the kernel has killed for lack of memory."""
    for path in CGROUP:
        try:
            found = re.search(r"^oom_kill (\d+)", path.read_text(), re.MULTILINE)
        except OSError:
            continue
        if found:
            return int(found[1])
    return 0


def unusual(ended: Ended, rest: Sequence[Any], values: Sequence[float]) -> dict[str, str]:
    """Facts about how a script ended; `rest`: rows in the last line of its output, if that has no line end.

    Such a line is read as it is, since many scripts end so; but a script that was cut off there looks the same.
    """
    found = {}
    if ended.left and not ended.told:
        were = "process was" if ended.left == 1 else "processes were"
        found["left"] = f"{ended.left} {were} left behind when it ended, and killed"
    if rest and len(values) > len(rest):
        found["rest"] = ended.rest[-80:]
    return found


def words(name: str, ended: Ended, logs: Path, *, memory_killed: bool) -> Words:
    """For a script that did not end by itself with exit code 0."""
    errors = tail(logs, "stderr")
    trace = _traceback(errors)
    detail = trace or _shown(errors) or _shown(tail(logs, "stdout"))
    if ended.failed:
        return Words(sentence=f"{name} could not be started: {ended.failed}", detail="")
    if ended.code is None:
        return Words(sentence=f"{name} was killed together with its supervising process", detail=detail)
    if ended.code < 0:
        return Words(sentence=_of_signal(name, -ended.code, memory_killed), detail=detail)
    raised = LAST_LINE.match(trace.strip().splitlines()[-1]) if trace else None
    if OUT_OF_MEMORY.search(errors) or (raised and raised[1] == "MemoryError"):
        where = "on the GPU" if re.search("CUDA|HIP|GPU", errors) else "on the host"
        return Words(sentence=f"{name} ran out of memory {where} (exit code {ended.code})", detail=detail)
    if raised:
        kind, says = raised[1].rpartition(".")[2], raised[2] or ""
        return Words(
            sentence=f"{name} raised {kind}{': ' if says else ''}{says} (exit code {ended.code})", detail=detail
        )
    return Words(sentence=f"{name} ended with exit code {ended.code}", detail=detail)


def _of_signal(name: str, number: int, memory_killed: bool) -> str:
    known = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    if number == signal.SIGKILL and memory_killed:
        return f"{name} was killed by the kernel because memory ran out ({known})"
    if number == signal.SIGKILL:
        return f"{name} was killed ({known}), but not by this sweep"
    return f"{name} was terminated by {known}"


def _traceback(text: str) -> str:
    """The last traceback in a text, up to the line that names the exception."""
    at = text.rfind("Traceback (most recent call last):")
    if at < 0:
        return ""
    lines = text[at:].splitlines()
    last = next((i for i, line in enumerate(lines) if i and line and not line.startswith(" ")), None)
    return "" if last is None else "\n".join(lines[: last + 1])


def _shown(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-20:])
