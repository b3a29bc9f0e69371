"""A Katib Experiment (kubeflow.org/v1beta1, and its beta ancestors), converted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.convert import program, ranges
from orchestrator.convert.draft import Draft, number
from orchestrator.definition.yaml12 import Document, Path

ALGORITHMS = {
    "random": "random",
    "grid": "grid",
    "tpe": "tpe",
    "multivariate-tpe": "tpe",
    "bayesianoptimization": "gp",
    "cmaes": "cmaes",
    "sobol": "sobol",
    "hyperband": "tpe",
    "pbt": "random",
}
LEFT_OUT = {
    "metricsCollectorSpec": "a program reports its metrics itself",
    "resumePolicy": "`geosweep run` resumes a sweep at any time",
    "nasConfig": "architecture search is not supported",
}
OF_THE_CLUSTER = "what runs on a cluster, and how, is set by `geosweep submit` and its profiles"
REFERENCE = re.compile(r"\$\{trialParameters\.([^}]+)\}")
FLAG = re.compile(r"--?([A-Za-z0-9][\w.-]*)=?$")
LAWS = ("normal", "logNormal")


def convert(document: Document, text: str, *, by: str = "") -> Draft:
    """The draft. `by` names the parameter whose values become arms. Raises program.NoListError."""
    draft = Draft("a Katib Experiment", document)
    value = document.value
    spec: Mapping[str, Any] = value.get("spec") or {}
    known = {*LEFT_OUT, "objective", "algorithm", "parameters", "trialTemplate", "earlyStopping"}
    known |= {"parallelTrialCount", "maxTrialCount", "maxFailedTrialCount"}
    for key in spec:
        if key in LEFT_OUT:
            draft.left_out(("spec", key), LEFT_OUT[key])
        elif key not in known:
            draft.left_out(("spec", key), "is not converted")
    metadata: Mapping[str, Any] = value.get("metadata") or {}
    for key in metadata.keys() - {"name", "generateName"}:
        draft.left_out(("metadata", key), OF_THE_CLUSTER)
    program.header(draft, str(metadata.get("name") or metadata.get("generateName") or "experiment"))
    words = _command(spec, draft)
    _environment(spec, draft)
    names, command = _flags(spec, words, draft)
    script = program.file_in(words)
    found: dict[str, tuple[Any, list[str]]] = {}
    for i, one in enumerate(spec.get("parameters") or []):
        at: Path = ("spec", "parameters", i)
        translated = _parameter(one, at, draft)
        if translated is not None:
            old, new = str(one.get("name")), names.get(str(one.get("name")), str(one.get("name")))
            said = [draft.note("changed", at, f"{old} is renamed {new}, like the program's flag")] if new != old else []
            found[new] = (translated[0], [*said, *translated[1]])
    hand = program.handed(draft, found, ("spec", "parameters"))
    why = "" if script else draft.note("to fill in", ("spec", "trialTemplate"), "name the training program")
    program.task(draft, script or "train.py", ["${program}" if w == script else w for w in command], hand, why)
    _metric(draft, spec.get("objective") or {})
    program.arms(draft, found, by, script or "trained")
    _method(draft, spec)
    trials = spec.get("maxTrialCount")
    count = trials if isinstance(trials, int) else None
    program.budget(draft, hand, count, grid=_algorithm(spec) == "grid", words="maxTrialCount")
    _resources(draft, spec)
    return draft


def _algorithm(spec: Mapping[str, Any]) -> str:
    return str((spec.get("algorithm") or {}).get("algorithmName") or "random")


def _containers(spec: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Those of the trial's pod, wherever the kind of job keeps them; the primary one first."""
    template = spec.get("trialTemplate") or {}
    primary, found = template.get("primaryContainerName"), list[Mapping[str, Any]]()

    def look(value: Any) -> None:
        if isinstance(value, Mapping):
            inner = value.get("containers")
            if isinstance(inner, list):
                found.extend(one for one in inner if isinstance(one, Mapping))
            for one in value.values():
                look(one)

    look(template.get("trialSpec"))
    return sorted(found, key=lambda one: one.get("name") != primary)


def _command(spec: Mapping[str, Any], draft: Draft) -> list[str]:
    """The words that the primary container runs."""
    at: Path = ("spec", "trialTemplate")
    found = _containers(spec)
    if not found:
        draft.left_out(at, "the template is elsewhere (configMap); its command was not read")
        return []
    image = found[0].get("image")
    if image:
        draft.left_out((*at, "trialSpec"), f"image {image}: a program runs in the environment of `geosweep run`")
    words = [str(word) for key in ("command", "args") for word in found[0].get(key) or []]
    if len(words) >= 3 and words[0].rsplit("/", 1)[-1] in ("sh", "bash") and words[1].endswith("c"):
        try:
            return shlex.split(words[2])
        except ValueError:
            draft.left_out((*at, "trialSpec"), f"{words[2]!r} was not read: unclosed quote")
            return []
    return words


def _environment(spec: Mapping[str, Any], draft: Draft) -> None:
    """Notes what the trial's job gave to its program besides the command; not the values, which may be secret."""
    template = spec.get("trialTemplate") or {}
    at: Path = ("spec", "trialTemplate", "trialSpec")
    found, others = _containers(spec), list[str]()
    for one in (found[0].get("env") or []) if found else ():
        inside = REFERENCE.search(str(one.get("value")))
        if inside:
            why = "a parameter in the environment; the program gets --NAME=VALUE instead"
            draft.left_out(at, f"env {one.get('name')}, {inside[0]}: {why}")
        else:
            others.append(str(one.get("name")))
    if others or (found and found[0].get("envFrom")):
        named = ", ".join([*others, *(["envFrom"] if found[0].get("envFrom") else [])])
        draft.left_out(at, f"env {named}: a program runs in the environment of `geosweep run`")
    replicas = dict[str, int]()
    for key, value in ((template.get("trialSpec") or {}).get("spec") or {}).items():
        if str(key).endswith("ReplicaSpecs") and isinstance(value, Mapping):
            replicas = {role: int((one or {}).get("replicas") or 1) for role, one in value.items()}
    if sum(replicas.values()) > 1:
        counts = ", ".join(f"{count} {role}" for role, count in replicas.items())
        why = "a trial runs one command, which may start several processes itself (torchrun, docs/scripts.md)"
        draft.left_out(at, f"replicas ({counts}): {why}")


def _flags(spec: Mapping[str, Any], words: Sequence[str], draft: Draft) -> tuple[dict[str, str], list[str]]:
    """Parameter -> the flag that passes it; and the command with ${args} in their place."""
    references = {
        str(one.get("name")): str(one.get("reference"))
        for one in (spec.get("trialTemplate") or {}).get("trialParameters") or []
    }
    names, command = dict[str, str](), list[str]()
    i = 0
    while i < len(words):
        word, following = words[i], words[i + 1] if i + 1 < len(words) else ""
        inside = REFERENCE.search(word)
        flag = FLAG.match(word[: inside.start()]) if inside else FLAG.match(word)
        if inside and flag and word.endswith(inside[0]):
            names[references.get(inside[1], inside[1])] = flag[1]
        elif flag and not inside and REFERENCE.fullmatch(following):
            found = REFERENCE.fullmatch(following)
            assert found is not None
            names[references.get(found[1], found[1])] = flag[1]
            i += 1
        elif inside:
            draft.left_out(
                ("spec", "trialTemplate"), f"{word!r}: a parameter inside a word; the program gets --NAME=VALUE"
            )
        else:
            command.append("${interpreter}" if re.fullmatch(r"(.*/)?python[\d.]*", word) else word)
            i += 1
            continue
        if "${args}" not in command:
            command.append("${args}")
        i += 1
    if command and "${args}" not in command:
        command.append("${args}")
    return names, command


def _metric(draft: Draft, objective: Mapping[str, Any]) -> None:
    at: Path = ("spec", "objective")
    name, goal = objective.get("objectiveMetricName"), str(objective.get("type") or "minimize")
    why = "" if name else draft.note("to fill in", at, "the file names no metric")
    found: dict[str, Any] = {"name": name or "loss", "goal": goal}
    if "goal" in objective:
        draft.left_out((*at, "goal"), "a sweep does not stop at a target value, which would favor lucky seeds")
    if objective.get("additionalMetricNames"):
        draft.left_out((*at, "additionalMetricNames"), "every metric that a trial reports is kept")
    strategies = {str(one.get("name")): one.get("value") for one in objective.get("metricStrategies") or []}
    best = {"maximize": "max", "minimize": "min"}.get(goal, "max")
    strategy = strategies.get(str(name), best)
    if strategy == best:
        found["select"] = "best"
        said = draft.note(
            "changed", at, "Katib takes a trial's best value; remove select for the last one, which is fairer"
        )
    else:
        said = draft.note("changed", at, f"metricStrategies had {strategy}; here it is the last value")
    draft.top.put("metric", found, why, said)


def _parameter(one: Mapping[str, Any], at: Path, draft: Draft) -> tuple[dict[str, Any], list[str]] | None:
    kind, space = str(one.get("parameterType")), one.get("feasibleSpace") or {}
    why = list[str]()
    if kind in ("categorical", "discrete"):
        values = [number(v) if kind == "discrete" else v for v in space.get("list") or []]
        if not values:
            draft.left_out(at, f"{kind} without a list")
            return None
        return {"values": list(dict.fromkeys(values))}, why
    low, high = number(space.get("min")), number(space.get("max"))
    if not isinstance(low, int | float) or not isinstance(high, int | float) or low > high:
        draft.left_out(at, f"{kind} from {space.get('min')} to {space.get('max')} is not a range")
        return None
    law = str(space.get("distribution") or "uniform")
    if kind == "int":
        low, high = int(low), int(high)
    else:
        low, high = float(low), float(high)
    if law in LAWS:
        why.append(
            draft.note("changed", (*at, "feasibleSpace"), f"{law} is not supported; uniform over its range instead")
        )
    logarithmic = law in ("logUniform", "logNormal")
    if logarithmic and low <= 0:
        draft.left_out(at, f"min is {low}: a logarithmic range starts above 0")
        return None
    found = ranges.log_uniform(low, high) if logarithmic else ranges.uniform(low, high)
    step = number(space.get("step"))
    if isinstance(step, int | float) and step > 0 and "value" not in found and not (kind == "int" and step == 1):
        if logarithmic:
            draft.left_out((*at, "feasibleSpace", "step"), "a logarithmic range cannot have a step")
        else:
            word = "int_uniform" if kind == "int" and isinstance(step, int) else "q_uniform"
            found = {**found, "distribution": word, "q": step}
    return found, why


def _method(draft: Draft, spec: Mapping[str, Any]) -> None:
    old, at = _algorithm(spec), ("spec", "algorithm")
    new, why = ALGORITHMS.get(old, "random"), list[str]()
    if old not in ALGORITHMS:
        why.append(draft.note("changed", at, f"{old} has no counterpart; random replaces it"))
    elif old != new:
        why.append(draft.note("changed", at, f"was {old}"))
    settings = {
        str(s.get("name")): s.get("value") for s in (spec.get("algorithm") or {}).get("algorithmSettings") or []
    }
    found: dict[str, Any] = {"name": new}
    seed = number(settings.pop("random_state", None))
    if isinstance(seed, int):
        found["seed"] = seed
    for key in settings:
        draft.left_out((*at, "algorithmSettings"), f"{key}: specific to {old}")
    draft.top.put("method", found, *why)
    stopping: Mapping[str, Any] = spec.get("earlyStopping") or {}
    if old == "pbt":
        draft.left_out(at, program.NO_PBT)
    elif old == "hyperband":
        draft.top.put("early_terminate", {"type": old}, f"algorithm {old} was a search and a stopping rule in one")
    elif stopping:
        at_stop = ("spec", "earlyStopping")
        said = draft.note("changed", at_stop, "medianstop; min_budget (20%) replaces start_step")
        if stopping.get("algorithmName", "medianstop") != "medianstop":
            draft.left_out(at_stop, f"{stopping['algorithmName']} has no counterpart")
        else:
            draft.top.put("early_terminate", {"type": "median"}, said)


def _resources(draft: Draft, spec: Mapping[str, Any]) -> None:
    found: dict[str, Any] = {}
    if isinstance(spec.get("parallelTrialCount"), int):
        found["max_concurrent"] = spec["parallelTrialCount"]
    for one in _containers(spec)[:1]:
        limits: Mapping[str, Any] = (one.get("resources") or {}).get("limits") or {}
        cpu, gpu = number(str(limits.get("cpu", "")).removesuffix("m")), number(limits.get("nvidia.com/gpu"))
        if isinstance(cpu, int | float) and cpu:
            cores = cpu / 1000 if str(limits["cpu"]).endswith("m") else cpu
            found["cpu"] = max(1, round(cores))
        if isinstance(gpu, int) and gpu:
            found["gpu"] = gpu
    if found:
        draft.top.put("resources", found, "parallelTrialCount, and the limits of the container")
    if isinstance(spec.get("maxFailedTrialCount"), int):
        draft.top.put("max_failed", spec["maxFailedTrialCount"])
