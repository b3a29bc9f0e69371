"""Give up a sweep in which every trial fails for the same reason, and let a retry end at once with the same message.

A cluster retries whatever ended with a nonzero exit code, and pays for machines each time. An invalid file, a module
that cannot be imported and a failed control (its result is stored) end every attempt within seconds. Failing trials do
not, hence this marker next to the sweep. It is valid only while nothing has changed: the resolved sweep, the installed
packages, the code that it names.
"""

from __future__ import annotations

import builtins
import hashlib
import importlib.metadata
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

from orchestrator.definition.model import Spec
from orchestrator.definition.program_keys import filled
from orchestrator.definition.states import State
from orchestrator.storage.documents import read_json, write_atomic
from orchestrator.storage.folder import SweepFolder
from orchestrator.storage.provenance import provenance
from orchestrator.trial import source
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.program import source as scripts

FEWEST = 5
"""Trials that must fail in the same way before a sweep is given up."""
UNFIT = 2
"""Trials of an arm that must run out of GPU memory, with none having fitted, before the sweep is given up."""
OUT_OF_MEMORY = "torch.OutOfMemoryError"
MENDABLE = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
"""Errors of the operating system that a user can fix; others (network, disk) may be transient."""


def refuse(spec: Spec, folder: SweepFolder, why: str) -> str:
    """Record that another attempt would end the same way. Returns the message for this attempt and the next."""
    path = _file(folder)
    message = (
        f"{why}. Another attempt would end the same way; to try anyway, remove {folder.place}/{path.name}; "
        f"output of the driver: {folder.command('logs', folder.sweep_id)}"
    )
    write_atomic(path, json.dumps({"message": message, "circumstances": circumstances(spec)}, indent=1))
    return message


def standing(spec: Spec, folder: SweepFolder) -> str:
    """The message of an earlier attempt; empty if there is none or if something has changed since."""
    noted = read_json(_file(folder))
    return str(noted["message"]) if noted is not None and noted["circumstances"] == circumstances(spec) else ""


def forget(folder: SweepFolder) -> None:
    """Allow another attempt."""
    _file(folder).unlink(missing_ok=True)


def _file(folder: SweepFolder) -> Path:
    return folder.path / "refused.json"


def circumstances(spec: Spec) -> str:
    """A hash of everything the outcome of a sweep may depend on, apart from chance and machines."""
    facts = provenance()
    found = {
        "sweep": {**asdict(spec), "notify": None, "overrides": None},
        "installed": sorted({f"{d.name}=={d.version}" for d in importlib.metadata.distributions()}),
        "code": {name: facts.get(name, "") for name in ("commit", "diff")},
        "source": source.digests([spec.task.name, *(arm.optimizer for arm in spec.arms.values())], fresh=True),
        "script": scripts.digests(Path(spec.task.folder), filled(spec.task.parameters)) if spec.task.is_program else {},
    }
    return hashlib.sha256(json.dumps(found, sort_keys=True, default=str).encode()).hexdigest()


class Alike:
    """Ends a sweep whose trials all fail for the same reason (a `callbacks.Callback`), or an arm of it for lack of
    memory.

    The condition: at least FEWEST trials, more than `max_failed` and in every arm, failed with the same exception
    raised at the same place, and no trial of this or an earlier driver has ended otherwise. Or: UNFIT trials of an arm
    ran out of memory of their GPU, or of their share of one, and no trial of that arm has ended otherwise.
    """

    def __init__(self, spec: Spec, folder: SweepFolder) -> None:
        self._spec, self._folder = spec, folder
        self._enough = max(FEWEST, spec.max_failed + 1)
        self._failed: dict[str, str] = {}
        self._seen: set[str] = set()
        self._unfit: Counter[str] = Counter()
        self._fit: set[str] = set()
        self._differs = False
        self.refusal = ""
        """Why the sweep is given up."""

    def on_start(self, job: Job) -> None:
        """Nothing."""

    def on_report(self, job: Job, report: Report) -> None:
        """Nothing."""

    def on_recover(self, job: Job, result: Result) -> None:
        """An earlier success counts as one; the cause of an earlier failure may have been fixed since."""
        self._differs |= result.state is not State.FAILED
        if result.state is not State.FAILED:
            self._fit.add(job.arm)

    def on_end(self, job: Job, result: Result | Report) -> None:
        """Compare the failure with earlier ones; drain the sweep if it is hopeless."""
        if isinstance(result, Report) or self.refusal:
            return
        place, says = exception(result.error)
        self._failed[job.trial_id] = place
        self._seen.add(job.arm)
        if says.startswith(OUT_OF_MEMORY):
            self._unfit[job.arm] += 1
        else:
            self._fit.add(job.arm)
        if self._unfit[job.arm] >= UNFIT and job.arm not in self._fit:
            self._give_up(self._too_large(job.arm, says))
            return
        self._differs |= not place or len(set(self._failed.values())) > 1
        if self._differs or len(self._failed) < self._enough or self._seen < set(self._spec.arms):
            return
        why = (
            f"the first {len(self._failed)} trials all failed in the same way and the sweep was given up: {says}. Fix "
            "the cause and give the sweep another name"
        )
        self._give_up(why)

    def _give_up(self, why: str) -> None:
        self.refusal = refuse(self._spec, self._folder, why)
        self._folder.stop_file.touch()

    def _too_large(self, arm: str, says: str) -> str:
        gpu = self._spec.resources.gpu
        share = f"a larger share (resources: {{gpu: {min(1.0, 2 * gpu):g}}}), " if 0 < gpu < 1 else ""
        shared = f" in its share, {gpu:g}, of a GPU" if share else " on its GPU"
        return (
            f"{UNFIT} trials of arm {arm} ran out of memory{shared}, none has fitted, and the sweep was given up: "
            f"{says.splitlines()[0][:200]} Give each trial {share}smaller micro-batches (training: {{accumulate: "
            f"auto}}) "
            "or bf16 (training: {precision: bf16}); geosweep plan FILE --probe measures what each arm takes"
        )


def exception(error: str) -> tuple[str, str]:
    """(type and place, type and message) of a traceback; empty for anything else and for errors that may be
    transient.
    """
    if " (exit code " in error.partition("\n")[0]:  # an exception raised by a script
        error = error[error.find("Traceback") :] if "Traceback" in error else error
    elif " ended with exit code " in error.partition("\n")[0]:
        return error, error.partition("\n")[0]
    lines = error.splitlines()
    frames = [number for number, line in enumerate(lines) if line.startswith('  File "')]
    says = next((line for line in lines[frames[-1] :] if line and not line.startswith(" ")), "") if frames else ""
    kind = says.partition(":")[0].rpartition(".")[2]
    known = getattr(builtins, kind, None)
    passing = isinstance(known, type) and issubclass(known, OSError) and not issubclass(known, MENDABLE)
    if not says or passing or not error.startswith("Traceback"):
        return "", ""
    return f"{kind} at {lines[frames[-1]].strip()}", says
