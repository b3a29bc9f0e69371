"""A Ray Tune experiment in YAML, converted.

Tune's YAML (`tune run -f`, `rllib train file`) is NAME: {run: ..., config: {...}, num_samples: ...}; a file with
the arguments of a Tuner (param_space, tune_config) is read too. Values may be {grid_search: [...]} or texts such as
`tune.loguniform(1e-4, 1e-1)`, as people write them.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from orchestrator.convert import program, ranges
from orchestrator.convert.draft import Draft, number
from orchestrator.definition.yaml12 import Document, Path

LEFT_OUT = {
    "env": "an RLlib environment; pass it to the program",
    "local_dir": "--root sets where sweeps are stored",
    "storage_path": "--root sets where sweeps are stored",
    "checkpoint_freq": "a program manages its own checkpoints",
    "checkpoint_at_end": "a program manages its own checkpoints",
    "checkpoint_config": "a program manages its own checkpoints",
    "keep_checkpoints_num": "a program manages its own checkpoints",
    "max_failures": "a trial whose worker is lost resumes by itself",
    "sync_config": "--root sets where sweeps are stored",
}
SEARCHES = {
    "OptunaSearch": "tpe",
    "HyperOptSearch": "tpe",
    "TuneBOHB": "tpe",
    "BayesOptSearch": "gp",
    "AxSearch": "gp",
    "HEBOSearch": "gp",
    "BasicVariantGenerator": "random",
}
STOPPING = ("asha", "hyperband", "median")
TUNED = re.compile(r"\s*(?:ray\.)?(?:tune\.)?[a-z_]+\(")
OWN = {"run", "config", "param_space", "tune_config", "num_samples", "metric", "mode", "stop", "resources_per_trial"}
OWN |= {"scheduler", "search_alg", "time_budget_s", "max_concurrent_trials", "name", "run_config"}


def convert(document: Document, text: str, *, by: str = "") -> Draft:
    """The draft. `by` names the parameter whose values become arms. Raises program.NoListError."""
    draft = Draft("a Ray Tune experiment", document)
    name, at, given = _experiment(document.value, draft)
    run_config = given.get("run_config") or {}
    flat = {**{k: v for k, v in run_config.items() if k == "stop"}, **given, **(given.get("tune_config") or {})}
    flat["scheduler"] = _called(flat.get("scheduler"))
    for part, inside in ((), given), (("tune_config",), given.get("tune_config") or {}), (("run_config",), run_config):
        for key in inside:
            if key not in OWN:
                draft.left_out((*at, *part, key), LEFT_OUT.get(key, "is not converted"))
    program.header(draft, name)
    script = program.file_in([str(given.get("run") or "")])
    said = (
        f"run: {given['run']} is not a program; name the training program"
        if given.get("run")
        else "name the training program"
    )
    space = "param_space" if "param_space" in given else "config"
    found = _parameters(given.get(space) or {}, (*at, space), draft)
    grid = any("grid_search" in str(one) for one in (given.get(space) or {}).values())
    if grid and any(isinstance(one, Mapping) and "min" in one for one, _ in found.values()):
        draft.note("changed", (*at, space), "grid_search with ranges: all are drawn at random")
        grid = False
    hand = program.handed(draft, found, (*at, space))
    program.task(draft, script or "train.py", [], hand, "" if script else draft.note("to fill in", (*at, "run"), said))
    mode = str(flat.get("mode") or "min")
    why = "" if flat.get("metric") else draft.note("to fill in", at, "the file names no metric")
    goal = "maximize" if mode.startswith("max") else "minimize"
    draft.top.put("metric", {"name": str(flat.get("metric") or "loss"), "goal": goal}, why)
    program.arms(draft, found, by, script or "trained")
    draft.top.put("method", {"name": _method(flat, grid)}, "grid_search tries all of its values" if grid else "")
    _stopping(draft, flat, at)
    place: Path = (*at, "run_config", "stop") if "stop" not in given else ()
    _budget(draft, flat, at, hand, grid=grid, place=place)
    _resources(draft, flat, at)
    return draft


def _experiment(value: Mapping[str, Any], draft: Draft) -> tuple[str, Path, Mapping[str, Any]]:
    """Name, place and content of the first experiment."""
    if value.keys() & {"param_space", "tune_config", "config", "num_samples"}:
        run_config = value.get("run_config") or {}
        return str(value.get("name") or run_config.get("name") or "experiment"), (), value
    first = next(iter(value))
    for other in list(value)[1:]:
        draft.left_out((other,), "a second experiment; a sweep file holds one: convert it separately")
    return str(first), (first,), value[first]


def _method(flat: Mapping[str, Any], grid: bool) -> str:
    search = flat.get("search_alg")
    named = str(search.get("type") if isinstance(search, Mapping) else search or "")
    return "grid" if grid else SEARCHES.get(named, "tpe" if named else "random")


def _parameters(given: Mapping[str, Any], at: Path, draft: Draft, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, one in given.items():
        name, place = f"{prefix}{key}", (*at, key)
        if isinstance(one, Mapping) and not one.keys() & {"grid_search", "eval"}:
            found |= _parameters(one, place, draft, f"{name}.")
            continue
        try:
            found[name] = _parameter(one, place, draft)
        except _CodeError as error:
            draft.left_out(place, str(error))
    return found


class _CodeError(ValueError):
    """An expression without a counterpart."""


def _parameter(one: Any, at: Path, draft: Draft) -> tuple[Any, list[str]]:
    if isinstance(one, Mapping) and "grid_search" in one:
        return {"values": list(one["grid_search"])}, []
    text = str(one["eval"]) if isinstance(one, Mapping) else one
    if isinstance(text, str) and text.lstrip().startswith("lambda"):
        raise _CodeError(f"{text!r}: code is not converted")
    if not isinstance(text, str) or not TUNED.match(text):
        return ({"value": one} if isinstance(one, list) else one), []
    return _expression(text), [draft.note("changed", at, f"was {text}")]


def _expression(text: str) -> dict[str, Any]:
    """`tune.uniform(0, 1)` and the like. Raises _CodeError."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        raise _CodeError(f"{text!r} is not understood") from None
    if not isinstance(call, ast.Call):
        raise _CodeError(f"{text!r} is not understood")
    name = ast.unparse(call.func).rpartition(".")[2]
    try:
        given = dict(enumerate(ast.literal_eval(arg) for arg in call.args))
        given |= {ORDER[name].index(str(word.arg)): ast.literal_eval(word.value) for word in call.keywords}
        if sorted(given) != list(range(len(given))):
            raise ValueError(text)
        return CALLS[name]([given[i] for i in range(len(given))])
    except (KeyError, ValueError, IndexError, TypeError, ZeroDivisionError):
        raise _CodeError(f"{text!r}: code is not converted; give it values, or min and max") from None


def _floats(args: list[Any]) -> tuple[float, float]:
    return float(args[0]), float(args[1])


CALLS: Mapping[str, Callable[[list[Any]], dict[str, Any]]] = {
    "choice": lambda a: {"values": list(a[0])},
    "grid_search": lambda a: {"values": list(a[0])},
    "uniform": lambda a: ranges.uniform(*_floats(a)),
    "quniform": lambda a: ranges.quantized(ranges.uniform(*_floats(a)), a[2]),
    "loguniform": lambda a: ranges.log_uniform(*_floats(a)),
    "qloguniform": lambda a: ranges.quantized(ranges.log_uniform(*_floats(a)), a[2]),
    "randint": lambda a: ranges.uniform(int(a[0]), int(a[1]) - 1),
    "qrandint": lambda a: ranges.quantized(ranges.uniform(int(a[0]), int(a[1])), int(a[2]) if len(a) > 2 else 1),
    "lograndint": lambda a: ranges.quantized(ranges.log_uniform(int(a[0]), int(a[1]) - 1), 1),
    "qlograndint": lambda a: ranges.quantized(ranges.log_uniform(int(a[0]), int(a[1])), int(a[2])),
    "randn": lambda a: ranges.uniform(*ranges.middle(float(a[0]), float(a[1]))),
    "qrandn": lambda a: ranges.quantized(ranges.uniform(*ranges.middle(float(a[0]), float(a[1]))), a[2]),
}
"""Tune's functions; randint and lograndint exclude their upper end, the others include it."""

ORDER: Mapping[str, tuple[str, ...]] = {
    "choice": ("categories",),
    **dict.fromkeys(("uniform", "randint"), ("lower", "upper")),
    **dict.fromkeys(("loguniform", "lograndint"), ("lower", "upper", "base")),
    **dict.fromkeys(("quniform", "qrandint"), ("lower", "upper", "q")),
    **dict.fromkeys(("qloguniform", "qlograndint"), ("lower", "upper", "q", "base")),
    "grid_search": ("values",),
    "randn": ("mean", "sd"),
    "qrandn": ("mean", "sd", "q"),
}
"""The arguments of each, which may be named in any order."""


def _called(scheduler: Any) -> Any:
    """`ASHAScheduler(max_t=100)`, as people write it, like the mapping `{type: ASHAScheduler, max_t: 100}`."""
    try:
        call = ast.parse(scheduler.strip(), mode="eval").body if isinstance(scheduler, str) else None
    except SyntaxError:
        return scheduler
    if not isinstance(call, ast.Call):
        return scheduler
    words = {"type": ast.unparse(call.func).rpartition(".")[2]}
    for word in call.keywords:
        with contextlib.suppress(ValueError):  # code
            words[str(word.arg)] = ast.literal_eval(word.value)
    return words


def _stopping(draft: Draft, flat: Mapping[str, Any], at: Path) -> None:
    scheduler = flat.get("scheduler")
    if not scheduler:
        return
    named = str(scheduler.get("type") if isinstance(scheduler, Mapping) else scheduler)
    lower = named.lower().replace("async_hyperband", "asha").replace("asynchyperband", "asha")
    if lower.startswith(("pbt", "populationbased")):
        draft.left_out((*at, "scheduler"), program.NO_PBT)
        return
    kind = next((word for word in STOPPING if word in lower), "")
    if not kind:
        draft.left_out((*at, "scheduler"), f"{named} has no counterpart, or stops nothing")
        return
    has: Mapping[str, Any] = scheduler if isinstance(scheduler, Mapping) else {}
    found: dict[str, Any] = {"type": kind}
    if isinstance(has.get("reduction_factor"), int) and kind in ("asha", "hyperband"):
        found["eta"] = max(2, has["reduction_factor"])
    grace, most = number(has.get("grace_period")), number(has.get("max_t"))
    if isinstance(grace, int | float) and isinstance(most, int | float) and 0 < grace < most:
        found["min_budget"] = f"{100 * grace / most:.3g}%"
    draft.top.put("early_terminate", found, f"was {named}")


def _budget(
    draft: Draft, flat: Mapping[str, Any], at: Path, hand: program.Handed, *, grid: bool, place: Path = ()
) -> None:
    """`place`: that of `stop`, if it is elsewhere."""
    stop, scheduler = flat.get("stop"), flat.get("scheduler")
    rules: Mapping[str, Any] = stop if isinstance(stop, Mapping) else {}
    most = rules.get("training_iteration") or (scheduler.get("max_t") if isinstance(scheduler, Mapping) else None)
    for key in rules.keys() - {"training_iteration"}:
        draft.left_out(
            (*(place or (*at, "stop")), key), "a trial does not stop at a target value, which would favor lucky seeds"
        )
    samples = flat.get("num_samples")
    if grid and isinstance(samples, int) and samples > 1:
        said = f"num_samples {samples} repeats the grid; one seed per repetition"
        draft.top.put("seeds", {"tune": samples}, draft.note("changed", (*at, "num_samples"), said))
    count = samples if isinstance(samples, int) and samples > 0 and not grid else None
    found = program.budget(
        draft, hand, count, grid=grid, most=most if isinstance(most, int) else 0, words="num_samples"
    )
    if isinstance(flat.get("time_budget_s"), int | float):
        found.put("wall_clock", f"{flat['time_budget_s']}s", "time_budget_s")


def _resources(draft: Draft, flat: Mapping[str, Any], at: Path) -> None:
    found: dict[str, Any] = {}
    given: Mapping[str, Any] = flat.get("resources_per_trial") or {}
    for key, value in given.items():
        if key in ("cpu", "CPU", "gpu", "GPU") and isinstance(value, int | float):
            found[key.lower()] = max(1, int(value)) if key.lower() == "cpu" else value
        else:
            draft.left_out((*at, "resources_per_trial", key), "is not a trial resource here")
    if isinstance(flat.get("max_concurrent_trials"), int) and flat["max_concurrent_trials"] > 0:
        found["max_concurrent"] = flat["max_concurrent_trials"]
    if found:
        draft.top.put("resources", found)
