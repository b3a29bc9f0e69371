"""The seal: what a sweep promised before its first trial, and a witness of its trials' results.

`seal.json` holds arms, spaces, metric, seeds, budget, analysis and their hash, written before anything is trained. Of a
budget in seconds calibration.json says what it is worth; as the trials' jobs are in the witness, a change of it shows.
`witness.jsonl` gets one line for each trial that ended: a digest of its job, metrics and result, chained to the line
before it, chain_i = sha256(chain_{i-1} trial_id digest). Later changes show: a changed trial, seed, budget or
result is a problem, and the comparison is refused. A changed analysis is allowed, and so is another definition (arms,
budget, metric, ...) of a sweep whose results on the same confirm seeds are known; `stamps` says so in every table.

The seal also holds the hash of every source file that a trial imports (`trial.source`). A sweep whose code changed does
not continue under its name unless the change is accepted, which is stamped. Each trial records the code that its worker
trained it with, so a machine with different code shows.

There is no secret in it. It guards against mistakes and against forgetting what was planned, not against a forger
who rewrites the whole folder; for that, keep the hash elsewhere (MLflow has it as the tag `geosweep.seal`).
"""

from __future__ import annotations

import hashlib
import itertools
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from orchestrator.definition import method
from orchestrator.definition.model import AnalysisSpec, Spec, definition
from orchestrator.definition.parts import split
from orchestrator.definition.program_keys import NAME, filled
from orchestrator.definition.states import State
from orchestrator.protocol import extensions, retries
from orchestrator.protocol.amendments import amend, amendments
from orchestrator.protocol.amendments import lines as lines_of
from orchestrator.protocol.errors import CodeChanged
from orchestrator.protocol.sealed import Code, Seal, Verified, read, write
from orchestrator.storage import calibration
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial import source
from orchestrator.trial.job import Job, Report, Result
from orchestrator.trial.program import source as scripts
from orchestrator.trial.record import read_job, read_result
from orchestrator.trial.trial_id import TrialId

FILES = ("trial.json", "metrics.jsonl", "result.json")
WITNESSED = ("trial_id", "digest", "chain")
FREE = ("analysis", "controls")
"""Parts that do not change results: they may change, and the change is stamped."""
PAIRINGS = {"declared": "pairing declared", "none": "not paired"}
"""How imported results are described; there are no digests of what they were trained on."""
SAMPLER = "method"
"""In the list of sealed files: the version of a third-party sampler."""
MOST_FILES = 5
"""Names of changed files that a sentence lists."""


def digest(value: Any) -> str:
    """sha256 of a plain value, independent of the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def promised(spec: Spec) -> dict[str, Any]:
    """Everything that is sealed, part by part, as plain JSON."""
    usual = (("twin", False), ("looks", 1))  # left out, as sweeps of earlier versions were sealed
    analysis = {key: value for key, value in asdict(spec.analysis).items() if (key, value) not in usual}
    free: dict[str, Any] = {"analysis": analysis, "controls": list(spec.controls), "report_metric": spec.report_metric}
    if spec.budget.tokens_per_batch is not None:
        free["tokens_per_batch"] = spec.budget.tokens_per_batch
    plain: dict[str, Any] = json.loads(json.dumps({**definition(spec), **free}))
    return plain


def code_of(spec: Spec) -> Code:
    """The source that trials of the sweep import now."""
    script = scripts.digests(Path(spec.task.folder), filled(spec.task.parameters)) if spec.task.is_program else {}
    arms = {name: {**source.digests((spec.task.name, arm.optimizer)), **script} for name, arm in spec.arms.items()}
    files = {name: digest for found in arms.values() for name, digest in found.items()}
    if method.is_foreign(spec.method.name):
        files |= source.digests((method.origin(spec.method.name),))
        files[SAMPLER] = digest(dict(method.identity(spec.method)))
    for key, wanted in (("requirements", spec.environment.requirements), ("image", spec.environment.image)):
        if wanted:
            files[f"environment.{key}"] = digest(wanted)
    return Code(files=files, arms={arm: source.combined(found) for arm, found in arms.items()})


def close(spec: Spec, folder: SweepFolder) -> str:
    """Seal the sweep on its first run; later, note what the file changed since. Returns the seal's hash."""
    content, sealed = promised(spec), read(folder)
    if sealed is None:
        sealed = Seal(
            sweep_id=folder.sweep_id,
            hash=digest(content),
            sealed_at=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            late=any((folder.path / "trials").glob("*/result.json")),
            follows=_predecessors(folder, content),
            content=content,
            code=code_of(spec),
            overrides=spec.overrides,
        )
        write(sealed, folder)
    amended: dict[str, Any] = {part: content[part] for part in FREE if content[part] != in_force(folder)[part]}
    if amended:
        amend(folder, amended)
    return sealed.hash


def check_code(spec: Spec, folder: SweepFolder, *, accept: bool = False) -> None:
    """Raises CodeChanged if new trials would be trained with other code than earlier ones, unless accepted."""
    code = code_of(spec)
    changed = changed_files(folder, code)
    if not changed:
        return
    if not accept:
        raise CodeChanged(
            f"{_listed(changed)} changed since {folder.sweep_id} was sealed; this would mix trials of two versions; "
            "give it another name, or continue with --accept-changed-code, which stamps its results exploratory"
        )
    amend(folder, {"code": asdict(code)})


def changed_files(folder: SweepFolder, code: Code) -> list[str]:
    """Source files that differ from those sealed, or accepted last; none for a sweep of an earlier version."""
    known = _codes(folder)
    return known[-1].changed(code) if known else []


def other_files(a: SweepFolder, b: SweepFolder) -> list[str]:
    """Source files that both sweeps trained with and that were not the same; none when one is of an earlier version."""
    one, two = _codes(a), _codes(b)
    if not one or not two:
        return []
    shared = one[-1].files.keys() & two[-1].files.keys()
    return [name for name in one[-1].changed(two[-1]) if name in shared - {SAMPLER}]


def _codes(folder: SweepFolder) -> list[Code]:
    """The code that was sealed, and each that was accepted since."""
    sealed = read(folder)
    accepted = [Code(**line["code"]) for line in amendments(folder) if "code" in line]
    return [sealed.code, *accepted] if sealed and sealed.code else accepted


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_FILES} more files" if len(names) > MOST_FILES else ""
    return ", ".join(names[:MOST_FILES]) + more


def sealed_hash(folder: SweepFolder) -> str:
    """The hash of the sweep's seal; empty for one from an earlier version."""
    sealed = read(folder)
    return sealed.hash if sealed else ""


def in_force(folder: SweepFolder) -> dict[str, Any]:
    """The analysis and the controls to use: the sealed ones, or what the file said on the last run."""
    sealed = read(folder) or Seal()
    found = {"analysis": sealed.content.get("analysis", {}), "controls": sealed.content.get("controls", [])}
    for line in amendments(folder):
        found |= {part: line[part] for part in FREE if part in line}
    return found


def analysis(folder: SweepFolder) -> AnalysisSpec:
    """The analysis in force; what earlier versions could not declare is at its default."""
    said = in_force(folder)["analysis"]
    return AnalysisSpec(**{one.name: said[one.name] for one in fields(AnalysisSpec) if one.name in said})


def stamps(folder: SweepFolder) -> list[str]:
    """Why the sweep's tables are exploratory; empty for a sweep that kept what it sealed. Every table shows these."""
    sealed = read(folder)
    if imported := folder.resolved().imported:
        return [f"imported from {imported.source}: {PAIRINGS[imported.pairing]}, and nothing was sealed"]
    if sealed is None:
        return ["not sealed: nothing proves that the analysis was chosen before the results"]
    found = ["sealed after its first trials"] if sealed.late else []
    for earlier, parts in sealed.follows.items():
        found.append(
            f"{', '.join(parts)} changed after the results of {earlier} on these confirm seeds were known; "
            "fresh confirm seeds settle it"
        )
    for line in amendments(folder):
        found += [f"{part} changed after the seal, on {line['at'][:10]}" for part in FREE if part in line]
    found += [*extensions.stamps(folder), *retries.stamps(folder)]
    for before, after in itertools.pairwise(_codes(folder)):
        found.append(f"code changed between trials: {_listed(before.changed(after))}")
    found += [f"{name} was rerun after its result was known" for name in sorted(_repeated(folder))]
    return found


class Witness:
    """Writes its line as trials end (see `callbacks.Callback`)."""

    def __init__(self, folder: SweepFolder) -> None:
        self._folder, self._path = folder, folder.path / "witness.jsonl"
        lines = list(lines_of(self._path, *WITNESSED))
        self._chain = lines[-1]["chain"] if lines else ""
        self._known = {line["trial_id"]: line["digest"] for line in lines}

    def on_start(self, job: Job) -> None:
        """Nothing is written."""

    def on_report(self, job: Job, report: Report) -> None:
        """Nothing is written."""

    def on_end(self, job: Job, result: Result | Report) -> None:
        """One line for a trial that ended; one that was drained, or pauses, has not."""
        if isinstance(result, Report):
            return
        found = trial_digest(self._folder, job.trial_id)
        if self._known.get(job.trial_id) == found:
            return  # a resumed driver is told of some ends again
        self._chain = _link(self._chain, job.trial_id, found)
        line = {"trial_id": job.trial_id, "state": result.state, "digest": found, "chain": self._chain}
        with self._path.open("a", encoding="utf-8") as out:
            out.write(json.dumps(line) + "\n")
        self._known[job.trial_id] = found

    def on_recover(self, job: Job, result: Result) -> None:
        """A line for a trial that ended while no driver was running."""
        if job.trial_id not in self._known:
            self.on_end(job, result)


def verify(folder: SweepFolder, code: Code | None = None) -> Verified:
    """Compare a sweep with its seal; `code` as it is now (`code_of`), if that is known."""
    sealed = read(folder)
    problems = [] if sealed is None else [*_seal_problems(folder, sealed), *_trial_problems(folder, sealed)]
    return Verified(
        sweep_id=folder.sweep_id,
        hash=sealed.hash if sealed else None,
        sealed_at=sealed.sealed_at if sealed else None,
        trials=sum(1 for _ in (folder.path / "trials").glob("*/result.json")),
        problems=problems,
        changed_files=[] if code is None else changed_files(folder, code),
        exploratory=stamps(folder),
        source_compared=code is not None,
    )


def witnessed(folder: SweepFolder) -> dict[str, str]:
    """Trial -> the digest of its files when it ended."""
    return {line["trial_id"]: line["digest"] for line in lines_of(folder.path / "witness.jsonl", *WITNESSED)}


def trial_digest(folder: SweepFolder, trial_id: str) -> str:
    """sha256 over the trial's own files."""
    found = hashlib.sha256()
    for name in FILES:
        path = folder.trial(trial_id) / name
        content = path.read_bytes() if path.exists() else b""
        found.update(f"{name} {len(content)}\n".encode() + content)
    return found.hexdigest()


def _predecessors(folder: SweepFolder, content: Mapping[str, Any]) -> dict[str, list[str]]:
    """Sweeps of the same name and task whose results on some of these confirm seeds are known -> what was changed."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.root.glob(f"{content['name']}-*/seal.json")):
        earlier = SweepFolder(folder.root, path.parent.name)
        theirs = read(earlier)
        if path.parent == folder.path or theirs is None or not theirs.content:
            continue
        other = extensions.in_content(theirs.content, earlier)
        if any(other.get(part) != content[part] for part in ("name", "task")):
            continue
        shared = set(other["seeds"]["confirm"]) & set(content["seeds"]["confirm"])
        if not shared.isdisjoint(_seeds(path.parent / "trials")):
            parts = sorted(content.keys() | other.keys())
            found[path.parent.name] = [part for part in parts if other.get(part) != content.get(part)]
    return found


def _seeds(trials: Path) -> Iterator[int]:
    """Seeds of the trials that ended."""
    for path in trials.glob("*/result.json"):
        with suppress(ValueError):  # no folder of a trial's
            yield TrialId.parse(path.parent.name).seed


def _seal_problems(folder: SweepFolder, sealed: Seal) -> Iterator[str]:
    if digest(sealed.content) != sealed.hash:
        yield "seal.json was edited: its content no longer matches its hash"
    resolved, content = folder.resolved(), extensions.in_content(sealed.content, folder)
    for part, value in resolved.definition.items():
        if content.get(part) != value:
            yield f"resolved.json was edited: {part} is not what was sealed"
    if resolved.report_metric not in ("", sealed.content["report_metric"]):
        yield "resolved.json was edited: report_metric is not what was sealed"
    first = {part: sealed.content.get(part) for part in resolved.definition}
    if f"{first.get('name')}-{digest(first)[:8]}" != folder.sweep_id:
        yield f"the definition no longer hashes to {folder.sweep_id}"


def _trial_problems(folder: SweepFolder, sealed: Seal) -> Iterator[str]:
    lines, chain, broken = list(lines_of(folder.path / "witness.jsonl", *WITNESSED)), "", False
    for line in lines:
        chain = _link(chain, line["trial_id"], line["digest"])
        broken |= chain != line["chain"]
    if broken:
        yield "witness.jsonl was edited: its chain of digests is broken"
    newest = {line["trial_id"]: line["digest"] for line in lines}
    for trial_id in sorted(newest.keys() - retries.waiting(folder)):
        expected = newest[trial_id]
        if not (folder.trial(trial_id) / "result.json").exists():
            yield f"{trial_id}: its result was removed"
        elif trial_digest(folder, trial_id) != expected:
            yield f"{trial_id}: its files are not what they were when it ended"
    codes, measured = _codes(folder), calibration.grad_evals(folder)
    content = extensions.in_content(sealed.content, folder)
    for path in sorted((folder.path / "trials").glob("*/trial.json")):
        if path.parent.name not in newest and (path.parent / "result.json").exists() and not sealed.late:
            yield f"{path.parent.name}: a result that no driver of this sweep recorded"
        try:
            job, result = read_job(path.parent), read_result(path.parent)
        except ValueError as error:
            yield f"{path.parent.name}: a file of it was edited: {error}"
            continue
        known = set() if job is None else {code.arms.get(job.arm) for code in codes}
        if known and result is not None and result.code and result.code not in known:
            yield f"{path.parent.name}: its worker trained it with code other than the sealed"
        if job is not None and (wrong := _breach(job, content, measured)):
            yield f"{path.parent.name}: {wrong}"


def _grad_evals(job: Job, content: Mapping[str, Any], measured: Mapping[str, float]) -> float | None:
    """Gradient evaluations that the seal grants the trial; None where its optimizer no longer exists."""
    budget = content["budget"]
    if content["task"]["name"] == NAME:
        return float(budget["per_trial"])
    parts = split(job.values)
    if budget["unit"] == "seconds":
        return measured.get(job.arm, 0.0)
    held = content.get("tokens_per_batch", 1)
    if budget["unit"] == "steps" or (parts.task and "tokens_per_batch" in content):
        from orchestrator.definition import batches, plan

        if budget["unit"] == "steps":
            try:
                return plan.of_steps(job.optimizer, parts, budget["per_trial"])
            except KeyError:
                return None
        try:
            held = batches.per_batch(job.task, content["task"]["parameters"], parts.task)
        except Exception:  # the task is gone, or its data are elsewhere
            return None
    return float(budget["per_trial"] / held)


def _breach(job: Job, content: Mapping[str, Any], measured: Mapping[str, float]) -> str:
    """What in a trial's job differs from the seal, or ""; `measured`: the calibration of a budget in seconds."""
    if job.seed not in content["seeds"].get(job.stage, []):
        return f"seed {job.seed} is not among the sealed {job.stage} seeds"
    sealed = content["seeds"][job.stage]
    each = len(sealed) // content["seeds"].get("studies", 1)
    if sealed.index(job.seed) // each + 1 != job.study:
        return f"seed {job.seed} is not one of study {job.study}"
    allowed = _grad_evals(job, content, measured)
    if allowed is not None and job.budget != allowed:
        return f"its budget {job.budget:g} is not the sealed {allowed:g}"
    if job.arm not in content["arms"] or job.optimizer != content["arms"][job.arm]["optimizer"]:
        return f"arm {job.arm} with optimizer {job.optimizer} is not sealed"
    chosen = {} if content["task"]["name"] == NAME else split(job.values).task  # a script's names are its own
    sealed_task = {**content["task"]["parameters"], **chosen}
    if [job.task, job.task_parameters] != [content["task"]["name"], sealed_task]:
        return "its task is not the sealed one"
    if [job.metric, job.goal, job.select] != [content["metric"][k] for k in ("name", "goal", "select")]:
        return f"it was tuned on {job.metric}, not the sealed metric"
    for p in content["arms"][job.arm]["parameters"]:
        value = job.values.get(p["name"])
        if value is None:
            continue
        if p["values"] and value not in p["values"]:
            return f"{p['name']} = {value} is outside the sealed space"
        if not p["values"] and not p["low"] - 1e-12 <= value <= p["high"] + 1e-12:
            return f"{p['name']} = {value} is outside the sealed space"
    return ""


def _repeated(folder: SweepFolder) -> set[str]:
    """Trials that ended well and were run again."""
    seen: set[str] = set()
    again: set[str] = set()
    for line in lines_of(folder.path / "witness.jsonl", *WITNESSED):
        (again if line["trial_id"] in seen else seen).add(line["trial_id"])
        if line["state"] == State.FAILED:
            seen.discard(line["trial_id"])
    return again


def _link(chain: str, trial_id: str, found: str) -> str:
    return hashlib.sha256(f"{chain} {trial_id} {found}".encode()).hexdigest()
