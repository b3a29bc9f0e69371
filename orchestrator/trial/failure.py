"""The text of an error that ended a trial, safe for any terminal, tracker and file."""

from __future__ import annotations

import re
import traceback
from collections.abc import Mapping

from orchestrator.trial.job import Job
from orchestrator.trial.termination import OsExit

LONGEST = 20_000
"""Characters that are kept, from the end."""
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class MetricMissing(KeyError):  # noqa: N818
    """The task does not return the metric that the sweep tunes."""

    def __init__(self, job: Job, metrics: Mapping[str, float]) -> None:
        super().__init__(
            f"evaluate of task {job.task} returned {', '.join(sorted(metrics))}, but not {job.metric}, which the "
            "sweep tunes: return it, or name another metric in metric.name"
        )


def described(broken: BaseException) -> str:
    """The traceback of an error, with control and unencodable characters escaped, truncated to its last part."""
    text = "".join(traceback.format_exception(broken))
    if isinstance(broken, SystemExit | GeneratorExit):
        call = str(broken) if isinstance(broken, OsExit) else f"sys.exit({getattr(broken, 'code', None)!r})"
        said = f"called {call}" if isinstance(broken, SystemExit) else "raised it"
        places, _, _ = text.rstrip().rpartition("\n")
        text = (
            f"{places}\n{type(broken).__name__}: the trial {said} before its budget was spent; raise an error instead\n"
        )
    return printable(text)[-LONGEST:]


def printable(text: str) -> str:
    """The text with escapes for characters that a terminal would interpret or could not show."""
    escaped = CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return escaped.encode("utf-8", "backslashreplace").decode("utf-8")
