"""An Optuna search space, as its command takes it (`optuna ask --search-space`), converted.

    x: {name: FloatDistribution, attributes: {low: 1e-5, high: 0.1, log: true, step: null}}

The file may hold only the space, or have it under `search_space` beside the options of `optuna create-study` and `ask`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.convert import program, ranges
from orchestrator.convert.draft import Draft, number
from orchestrator.definition.foreign import optuna_space
from orchestrator.definition.yaml12 import Document, Path

SAMPLERS = {
    "TPESampler": "tpe",
    "GPSampler": "gp",
    "CmaEsSampler": "cmaes",
    "RandomSampler": "random",
    "QMCSampler": "sobol",
    "GridSampler": "grid",
    "BruteForceSampler": "grid",
}
OPTIONS = {"study_name", "direction", "directions", "sampler", "sampler_kwargs", "n_trials", "metric", "program"}


def convert(document: Document, text: str, *, by: str = "") -> Draft:
    """The draft. `by` names the parameter whose values become arms. Raises program.NoListError."""
    draft = Draft("an Optuna search space", document)
    space: Mapping[str, Any] = optuna_space(document.value) or {}
    alone = space is document.value
    options = {} if alone else {str(k).replace("-", "_"): v for k, v in document.value.items()}
    at: Path = () if alone else (next(k for k in ("search_space", "search-space") if k in document.value),)
    for key in document.value.keys() - {*at} if not alone else ():
        if key.replace("-", "_") not in OPTIONS:
            draft.left_out((key,), "is a study option without a counterpart")
    program.header(draft, str(options.get("study_name") or "study"))
    found: dict[str, tuple[Any, list[str]]] = {}
    for name, one in space.items():
        translated = _parameter(one, (*at, name), draft)
        if translated is not None:
            found[name] = translated
    hand = program.handed(draft, found, at)
    script = str(options.get("program") or "")
    why = "" if script else draft.note("to fill in", (), "a search space names no program; name the training program")
    program.task(draft, script or "train.py", [], hand, why)
    _metric(draft, options)
    program.arms(draft, found, by, script or "trained")
    _method(draft, options)
    trials = options.get("n_trials")
    grid = draft.top.entries["method"]["name"] == "grid"
    program.budget(draft, hand, trials if isinstance(trials, int) else None, grid=grid, words="n_trials")
    return draft


def _metric(draft: Draft, options: Mapping[str, Any]) -> None:
    directions = options.get("directions") or [options.get("direction") or "minimize"]
    goals = [str(one).lower() for one in (directions if isinstance(directions, list) else [directions])]
    given = options.get("metric")
    why = "" if given else draft.note("to fill in", (), "Optuna's objectives have no names; name the reported metric")
    draft.top.put("metric", {"name": str(given or "value"), "goal": goals[0]}, why)
    if len(goals) > 1:
        further = [{"name": f"value{i}", "goal": goal} for i, goal in enumerate(goals[1:], 1)]
        draft.top.put("objectives", further, draft.note("to fill in", ("directions",), "name the other metrics"))


def _method(draft: Draft, options: Mapping[str, Any]) -> None:
    sampler, why = str(options.get("sampler") or "TPESampler"), list[str]()
    name = SAMPLERS.get(sampler, "tpe")
    if sampler not in SAMPLERS:
        why.append(draft.note("changed", ("sampler",), f"{sampler} has no counterpart; tpe replaces it"))
    found: dict[str, Any] = {"name": name}
    for key, value in (options.get("sampler_kwargs") or {}).items():
        if key == "seed" and isinstance(value, int):
            found["seed"] = value
        else:
            draft.left_out(("sampler_kwargs", key), f"specific to {sampler}")
    draft.top.put("method", found, *why)


def _parameter(one: Mapping[str, Any], at: Path, draft: Draft) -> tuple[dict[str, Any], list[str]] | None:
    kind, has = str(one.get("name")), one.get("attributes") or {}
    if kind == "CategoricalDistribution":
        values = has.get("choices") or []
        if not values:
            draft.left_out(at, "has no choices")
            return None
        return {"values": values}, []
    low, high = number(has.get("low")), number(has.get("high"))
    if not isinstance(low, int | float) or not isinstance(high, int | float) or low > high:
        draft.left_out(at, f"{has.get('low')} to {has.get('high')} is not a range")
        return None
    whole, logarithmic = "Int" in kind, bool(has.get("log")) or "Log" in kind
    step = number(has.get("step", has.get("q")))
    low, high = (int(low), int(high)) if whole else (float(low), float(high))
    if logarithmic and whole:
        why = draft.note("changed", at, "whole numbers on a logarithmic scale: rounded to multiples of 1")
        return ranges.quantized(ranges.log_uniform(low, high), 1), [why]
    found = ranges.log_uniform(low, high) if logarithmic else ranges.uniform(low, high)
    if isinstance(step, int | float) and "value" not in found and not (whole and step == 1):
        found = {**found, "distribution": "int_uniform" if whole else "q_uniform", "q": step}
    return found, []
