"""The files of a trial with its job and its result; only this module reads and writes them.

Files of earlier versions lack newer fields, which get their defaults; unknown fields are ignored.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

from orchestrator.definition.states import Goal, Stage, State
from orchestrator.storage.documents import read_json, write_atomic
from orchestrator.storage.errors import Damaged
from orchestrator.trial.job import Job, Result, Stopped

JOB, RESULT = "trial.json", "result.json"


@dataclass(frozen=True, kw_only=True)
class TrialRecord:
    """An ended trial: its job and its result."""

    job: Job
    result: Result

    @property
    def trial_id(self) -> str:
        """The job's."""
        return self.job.trial_id

    @property
    def study(self) -> int:
        """The job's."""
        return self.job.study

    @classmethod
    def read(cls, folder: Path) -> TrialRecord | None:
        """The record of the trial in `folder`, or None if it has not ended. Raises ValueError for other content."""
        job, result = read_job(folder), read_result(folder)
        return None if job is None or result is None else cls(job=job, result=result)

    def write(self, folder: Path) -> None:
        """Create the folder and write both files."""
        folder.mkdir(parents=True, exist_ok=True)
        write_job(self.job, folder)
        write_result(self.result, folder)


def counted_grad_evals(record: TrialRecord) -> float | None:
    """Gradient evaluations of the trial; for a script, those that were counted, otherwise None unless they are its
    budget.
    """
    if not record.job.program:
        return record.result.grad_evals
    found = record.result.proof.get("grad_evals")
    if found is None and record.job.program["unit"] == "grad_evals":
        return record.result.grad_evals
    return None if found is None else float(found)


def read_job(folder: Path) -> Job | None:
    """The job of the trial in `folder`, or None if there is none. Raises Damaged for other content."""
    with _naming(folder / JOB):
        found = _known(Job, read_json(folder / JOB))
        if found is None:
            return None
        found |= {"stage": Stage(found["stage"]), "goal": Goal(found["goal"])}
        for name in ("rungs", "diagnostics"):
            found[name] = tuple(found.get(name, ()))
        found["lineage"] = tuple((end, held) for end, held in found.get("lineage", ()))
        return Job(**found)


def read_result(folder: Path) -> Result | None:
    """The result of the trial in `folder`, or None if it has not ended. Raises Damaged for other content."""
    with _naming(folder / RESULT):
        found = _known(Result, read_json(folder / RESULT))
        if found is None:
            return None
        stopped = Stopped(**_known(Stopped, found["stopped"]) or {}) if found.get("stopped") else None
        found["changed"] = tuple(found.get("changed", ()))
        return Result(**{**found, "state": State(found["state"]), "stopped": stopped})


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns other content than a record into an error that names the file."""
    try:
        yield
    except Damaged:
        raise
    except (ValueError, TypeError, KeyError) as error:
        raise Damaged(path, str(error)) from None


def write_job(job: Job, folder: Path, *, durable: bool = True) -> None:
    """Write trial.json; `durable` as in `write_atomic`."""
    document = asdict(job)
    if job.study == 1:
        del document["study"]  # as in the files of sweeps with one study for each arm
    for name in ("ramps", "groups", "point", "program"):
        if not document[name]:
            del document[name]
    if job.pack == 1:
        del document["pack"]
    del document["alone"]
    write_atomic(folder / JOB, json.dumps(document), durable=durable)


def write_result(result: Result, folder: Path) -> None:
    """Write result.json."""
    write_atomic(folder / RESULT, json.dumps(result_document(result)))


def result_document(result: Result) -> dict[str, Any]:
    """The content of result.json."""
    found = {**asdict(result), "stopped": {} if result.stopped is None else asdict(result.stopped)}
    for name in ("changed", "last_lines", "proof"):
        if not found[name]:
            del found[name]  # as in the files of earlier versions
    return found


def _known(record: type, document: Any) -> dict[str, Any] | None:
    """The document's fields that the record has. Raises ValueError if one without a default is missing."""
    if document is None:
        return None
    if not isinstance(document, Mapping):
        raise ValueError(f"expected the fields of a {record.__name__}, found {document!r:.80}")
    declared = fields(record)
    found = {f.name: document[f.name] for f in declared if f.name in document}
    required = {f.name for f in declared if f.default is MISSING and f.default_factory is MISSING}
    if missing := sorted(required - found.keys()):
        raise ValueError(f"a {record.__name__} lacks {', '.join(missing)}")
    return found
