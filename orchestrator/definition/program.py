"""`task: {program: train.py, ..}`: a script of the user's in place of a task, resolved with arms, budget and metrics.

The keys of `parameters:` are the script's own, with values of any type. An arm may name an optimizer, for scripts that
ask for `trial.optimizer`; without one, an arm is defined by its parameters. The budget is passed in the unit that the
script counts in.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

import optim_core
import trainables
from orchestrator.definition import parameter, resolved
from orchestrator.definition.errors import nearest
from orchestrator.definition.location import Where
from orchestrator.definition.messages import explained
from orchestrator.definition.model import TrainingSpec
from orchestrator.definition.program_keys import NAME, ProgramModel, filled
from orchestrator.definition.schema import ArmModel, SweepModel
from orchestrator.definition.space import Parameter
from orchestrator.definition.states import Goal
from orchestrator.definition.task_values import Fixed
from orchestrator.definition.yaml12 import Path as Key

WORST = 1e9
"""The value of a diverged trial unless the file says another (`worst`): of accuracy/... 0, else this, of its sign."""
KINDS = ("pattern", "jsonl", "csv", "tensorboard")
MACRO = re.compile(r"\$\{([^}:]*)(?::[^}]*)?\}")
MACROS = ("env", "interpreter", "program", "args", "args_no_boolean_flags", "args_no_hyphens", "args_json",
          "args_json_file", "envvar", "seed", "budget", "trial_dir", "checkpoint")  # fmt: skip


class _File(BaseModel):
    """The parts of a sweep file that are used here."""

    model_config = ConfigDict(extra="ignore")
    task: ProgramModel


def task(model: SweepModel, where: Where) -> Fixed:
    """A script's task, of which only the metrics are known here."""
    try:
        given = _File.model_validate({"task": model.task}).task
    except ValidationError as error:
        _explain(error, where)
        raise explained(error, where.document, where) from None
    _check_command(given, where)
    _check_metrics(given, model.metric.name, where)
    folder(model.task, where)
    changed = {**given.model_dump(exclude_defaults=True), "program": given.program}
    return Fixed(name=NAME, parameters=changed, example=_script(metrics_of(_asked(model), changed))())


def _asked(model: SweepModel) -> dict[str, Any]:
    return {**model.metric.model_dump(), "objectives": [o.model_dump() for o in model.objectives]}


def _explain(error: ValidationError, where: Where) -> None:
    """Raises for a key that is unknown here, with the nearest."""
    for one in error.errors():
        if one["type"] == "extra_forbidden":
            key = str(one["loc"][-1])
            raise where.error(("task", key), f"a script has no {key!r}{nearest(key, ProgramModel.model_fields)}")


def metrics_of(metric: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, trainables.Metric]:
    """The metrics that the sweep file of a script mentions; it may report others.

    `metric`: name, goal, and where there are any report_metric and objectives; `parameters`: those of the task.
    """
    given = filled(parameters)
    goals = {**given["goals"], **{o["name"]: o["goal"] for o in metric.get("objectives", ())}}
    if other := metric.get("report_metric"):
        goals.setdefault(other, metric["goal"])
    goals[metric["name"]] = metric["goal"]
    worst = {metric["name"]: given["worst"]}
    return {
        name: trainables.Metric(goal=goal, worst=_worst(name, goal, worst.get(name))) for name, goal in goals.items()
    }


def _worst(name: str, goal: str, given: float | None) -> float:
    if given is not None:
        return float(given)
    return WORST if goal == Goal.MINIMIZE else 0.0 if name.startswith("accuracy/") else -WORST


def _check_command(given: ProgramModel, where: Where) -> None:
    for i, word in enumerate(given.command or ()):
        for name in MACRO.findall(word):
            if name not in MACROS:
                raise where.error(("task", "command", i), f"${{{name}}} is not a macro{nearest(name, MACROS)}")
    words = " ".join(given.command or ("${program} ${args}",))
    if given.command and "${program}" not in words and "-m" not in given.command:
        raise where.error(("task", "command"), "does not name ${program}, so the script would not run; add it")
    for key in ("seed_arg", "budget_arg", "output_arg"):
        value = getattr(given, key)
        if value is not None and not value.strip():
            raise where.error(("task", key), "is empty; name the argument, for instance --seed, or leave it out")
    if given.checkpoints and not given.resume_arg:
        raise where.error(
            ("task", "checkpoints"), "without resume_arg nothing resumes from them; add it, or remove this"
        )


def _check_metrics(given: ProgramModel, tuned: str, where: Where) -> None:
    found = set[str]()
    for i, entry in enumerate(given.metrics or ()):
        if len(entry) != 1:
            if len(entry) == 2 and "step" in entry:
                way_out = f"task: {{step: {entry['step']}, metrics: ...}}"
                raise where.error(("task", "metrics", i), f"step belongs to the task, not to a source: {way_out}")
            raise where.error(("task", "metrics", i), "must name one source: pattern, jsonl, csv or tensorboard")
        ((kind, value),) = entry.items()
        if kind not in KINDS:
            raise where.error(("task", "metrics", i, kind), f"not a source of metrics{nearest(kind, KINDS)}")
        if kind != "pattern":
            continue
        try:
            names = re.compile(value).groupindex
        except re.error as error:
            raise where.error(("task", "metrics", i, kind), f"{value!r} is not a regular expression: {error}") from None
        if not names:
            raise where.error(
                ("task", "metrics", i, kind),
                f"{value!r} has no named group; name each metric, for instance val_loss=(?P<val_loss>\\S+)",
            )
        found |= {name.replace("__", "/") for name in names}
    if found and tuned not in found and all("pattern" in entry for entry in given.metrics or ()):
        group = tuned.replace("/", "__")
        raise where.error(
            ("task", "metrics"),
            f"no pattern has a group for the tuned {tuned}; name one (?P<{group}>..){nearest(tuned, found)}",
        )


def folder(task: Mapping[str, Any], where: Where) -> str:
    """The folder that the script's path is relative to: where we are, the sweep file's, or that of the first run."""
    program, file = str(task["program"]), Path(where.file)
    places = [Path.cwd(), file.parent]
    kept = file.parent / resolved.NAME
    if file.name == "sweep.yaml" and kept.is_file():
        with suppress(ValueError, KeyError, TypeError):  # a damaged file is named by whoever needs more of it
            places.insert(0, Path(json.loads(kept.read_text(encoding="utf-8"))["program"]["folder"]))
    found = next((place for place in places if (place / program).is_file()), None)
    if found is None:
        there = sorted({p.name for place in places[:2] for p in place.glob("*.py")}) if "/" not in program else []
        raise where.error(
            ("task", "program"),
            f"{program!r} is neither in the current folder nor next to the sweep file{nearest(program, there)}",
        )
    path = found / program
    if not task.get("command") and path.suffix != ".py" and not os.access(path, os.X_OK):
        raise where.error(
            ("task", "program"), f"{program!r} is not executable; chmod +x it, or say how to run it in task.command"
        )
    return str(found.resolve())


def arm_optimizer(arm: ArmModel, where: Where, name: str) -> str:
    """The optimizer named by a script's arm; empty if none."""
    if arm.optimizer is None:
        return ""
    try:
        optim_core.hyperparameters(arm.optimizer)
    except KeyError as error:
        raise where.error(("arms", name, "optimizer"), str(error.args[0])) from None
    return arm.optimizer


def check_value(optimizer: str, p: Parameter, where: Where, path: Key) -> None:
    """A value for a parameter of the named optimizer must be one that it accepts."""
    if optimizer and p.name in optim_core.hyperparameters(optimizer):
        parameter.check_value(optimizer, p, where, path)


def training(model: SweepModel, where: Where) -> TrainingSpec:
    """How a script trains is up to the script; the file may only limit its silence."""
    for key in model.training.model_fields_set - {"step_timeout"}:
        raise where.error(("training", key), "a script's training is set by its own parameters; remove it")
    limit = model.training.step_timeout if "step_timeout" in model.training.model_fields_set else None
    return TrainingSpec(recipe=trainables.Task.RECIPE, step_timeout=limit)


def check(model: SweepModel, where: Where) -> None:
    """What a script cannot be given. Raises SpecError."""
    if model.early_terminate is not None and model.early_terminate.type == "pbt":
        raise where.error(
            ("early_terminate", "type"),
            "'pbt' changes hyperparameters during training, which a script cannot do; choose another type",
        )
    _check_names(model, where)
    if model.diagnostics is not None:
        raise where.error(("diagnostics",), "they look at a task's model; a script reports its own numbers; remove it")
    if model.controls:
        raise where.error(("controls",), "they train a task's model for a few steps, and a script has none; remove it")
    if model.resources.processes not in ("auto", 1):
        raise where.error(
            ("resources", "processes"), "a script starts its own processes: put torchrun into task.command; remove it"
        )
    if model.cache:
        raise where.error(("cache",), "true, but what a script reads besides its source is unknown; remove it")
    if model.budget.grad_evals is not None and model.budget.unit != "grad_evals":
        raise where.error(
            ("budget", "grad_evals"),
            f"how many gradient evaluations a script takes in its {model.budget.unit} is unknown; limit "
            "wall_clock instead",
        )


def _check_names(model: SweepModel, where: Where) -> None:
    """Parameters that fit on a command line and are not already passed otherwise."""
    taken = {
        str(model.task[key]).strip("-="): key for key in ("seed_arg", "budget_arg", "output_arg") if key in model.task
    }
    places: list[tuple[Key, Iterable[str]]] = [(("parameters",), model.parameters)]
    places += [(("arms", arm, "parameters"), given.parameters) for arm, given in model.arms.items() if given]
    for path, names in places:
        for name in names:
            if not name or re.search(r"[\s=]", name):
                raise where.error((*path, name), f"{name!r} is not an argument name: it contains a space or =")
            if name in taken:
                raise where.error((*path, name), f"task.{taken[name]} passes it already; remove one of them")


def declared(definition: Mapping[str, Any], report_metric: str | None = None) -> type[trainables.Task]:
    """What the task of a resolved definition declares; of a script its metrics. KeyError for one that is gone."""
    name, parameters = definition["task"]["name"], definition["task"]["parameters"]
    if name != NAME:
        return trainables.lookup(name)
    metric = {**definition["metric"], "objectives": definition.get("objectives", ()), "report_metric": report_metric}
    return _script(metrics_of(metric, parameters))


def _script(metrics: Mapping[str, trainables.Metric]) -> type[trainables.Task]:
    return type("Script", (trainables.Task,), {"METRICS": metrics, "__doc__": "A script."})


def promises(parameters: Mapping[str, Any], unit: str) -> list[str]:
    """What a plan says about a script's pairing and compute before it has run."""
    given = filled(parameters)
    words = " ".join([*(given["command"] or ()), given["seed_arg"] or "", given["budget_arg"] or ""])
    found = [f"{given['program']} is a script: its cost is not known in advance."]
    if not given["seed_arg"] and "${seed}" not in words:
        found.append("It is not passed the seed (task.seed_arg): unless it reads trial.seed, seeds are not paired.")
    if not given["budget_arg"] and "${budget}" not in words:
        held = (
            "it is stopped after" if unit == "seconds" else "unless it reads trial.steps, it is stopped once it reports"
        )
        found.append(f"It is not passed the budget (task.budget_arg): {held} its {unit}.")
    return found
