"""From the sweep file's models to resolved parts: names looked up, parameters merged, seeds laid out."""

from __future__ import annotations

import inspect
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any

import optim_core
import trainables
from orchestrator.definition.errors import nearest
from orchestrator.definition.location import Where
from orchestrator.definition.model import SeedsSpec, TrainingSpec
from orchestrator.definition.parameter import check_value, parameter
from orchestrator.definition.schema import ArmModel, SweepModel
from orchestrator.definition.space import Parameter, SpaceError, names_in, order
from orchestrator.definition.states import Goal
from orchestrator.definition.stopping_rule import rungs
from orchestrator.definition.yaml12 import Path

CONFIRM_FROM = 1000
LARGEST_SEED = 2**63
LONGEST_NAME = 100
FACTS = ("steps", "grad_evals")


def task(model: SweepModel, where: Where) -> tuple[str, dict[str, Any], Mapping[str, Any]]:
    """(name, parameters with defaults, metrics) of the task."""
    given = dict(model.task)
    name = given.pop("name", None)
    if not isinstance(name, str):
        raise where.error(("task",), f"name: missing; name a task{nearest(str(name), trainables.names())}")
    if wrong := trainables.conflict(name):
        raise where.error(("task", "name"), wrong)
    try:
        cls = trainables.lookup(name)
        known = trainables.parameters(name)
    except KeyError as error:
        raise where.error(("task", "name"), str(error.args[0])) from None
    for key in given:
        if key not in known:
            raise where.error(("task", key), f"task {name} has no parameter {key!r}{nearest(key, known)}")
    for key, p in known.items():
        if p.default is inspect.Parameter.empty and key not in given:
            raise where.error(("task",), f"{key}: missing; task {name} needs it")
    values = {key: given.get(key, p.default) for key, p in known.items()}
    try:
        built = cls(**values)
    except (TypeError, ValueError) as error:
        culprit = next((k for k in given if str(error).startswith(k)), None)
        raise where.error(("task", culprit) if culprit else ("task",), str(error)) from None
    return name, values, built.METRICS


def metrics(model: SweepModel, known: Mapping[str, Any], where: Where) -> str:
    """Check the tuned metric and return the reported one."""
    for key, name in (("name", model.metric.name), ("report_metric", model.metric.report_metric)):
        if name is not None and name not in known:
            raise where.error(("metric", key), f"{name!r} is not a metric of this task{nearest(name, known)}")
    goal = known[model.metric.name].goal
    if goal != model.metric.goal:
        raise where.error(
            ("metric", "goal"), f"{model.metric.goal!r}, but this task wants to {goal} {model.metric.name}"
        )
    return model.metric.report_metric or model.metric.name


def seeds(model: SweepModel, where: Where) -> SeedsSpec:
    """Tune and confirm seeds of all studies, no two alike.

    Counts become 0, 1, ... and 1000, 1001, ..., one study after the other, so that a further study changes no seed of
    the earlier ones. A flat list is dealt out in order; a list of lists has one for each study.
    """
    studies = model.seeds.studies
    if studies > 1 and model.seeds.confirm in (0, []):
        raise where.error(
            ("seeds", "confirm"), f"none, but {studies} studies are compared on fresh seeds; set it to 1 or more"
        )
    tune = _dealt(model.seeds.tune, "tune", studies, 0, where)
    start = CONFIRM_FROM if isinstance(model.seeds.tune, list) else max(CONFIRM_FROM, len(tune))
    confirm = _dealt(model.seeds.confirm, "confirm", studies, start, where)
    both = sorted(set(tune) & set(confirm))
    if both:
        raise where.error(("seeds", "confirm"), f"{both} are tune seeds too; confirm needs fresh ones")
    return SeedsSpec(tune=tune, confirm=confirm, studies=studies)


def _dealt(given: int | list[int | list[int]], key: str, studies: int, start: int, where: Where) -> tuple[int, ...]:
    """The seeds of all studies, equally many for each."""
    at: Path = ("seeds", key)
    if isinstance(given, int):
        return tuple(range(start, start + studies * given))
    nested = [part for part in given if isinstance(part, list)]
    if nested and len(nested) < len(given):
        raise where.error(at, "mixes seeds and lists of seeds; write one list, or one list for each study")
    if nested and (len(nested) != studies or len({len(part) for part in nested}) > 1):
        sizes = ", ".join(str(len(part)) for part in nested)
        raise where.error(
            at,
            f"{len(nested)} lists of {sizes} seeds for {studies} studies; give each study a list of the same length",
        )
    found = tuple(seed for part in given for seed in (part if isinstance(part, list) else [part]))
    if nested and not found:
        raise where.error(at, "the lists are empty; give every study at least one seed")
    if any(seed >= LARGEST_SEED for seed in found):
        raise where.error(at, f"{max(found)} is too large; a seed is below 2^63")
    if len(found) % studies:
        raise where.error(at, f"{len(found)} seeds cannot be dealt to {studies} studies; give a multiple of {studies}")
    twice = next((seed for seed in found if found.count(seed) > 1), None)
    if twice is not None and nested:
        owners = [i + 1 for i, part in enumerate(nested) for seed in part if seed == twice]
        if len(set(owners)) > 1:
            raise where.error(
                at, f"seed {twice} is in study {owners[0]} and in study {owners[1]}; studies share no seed"
            )
    if twice is not None:
        raise where.error(at, f"{list(found)} names a seed twice")
    if any(seed < 0 for seed in found):
        raise where.error(at, f"{list(found)} has a negative seed")
    return found


def _alike(name: str) -> str:
    """Equal for names that a reader, or a file system, takes for one."""
    return unicodedata.normalize("NFC", name).casefold()


def arms(model: SweepModel, where: Where) -> dict[str, tuple[str, tuple[Parameter, ...]]]:
    """Arm -> (optimizer, parameters), shared parameters merged in where the optimizer has them."""
    found: dict[str, tuple[str, tuple[Parameter, ...]]] = {}
    used: set[str] = set()
    known_anywhere: set[str] = set()
    for name, given in model.arms.items():
        arm = given or ArmModel(optimizer=None, parameters={})
        optimizer = arm.optimizer or name
        path: Path = ("arms", name, "optimizer") if arm.optimizer else ("arms", name)
        if not name or "@" in name or "/" in name:
            raise where.error(("arms", name), "an arm's name must not be empty or contain @ or /")
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise where.error(("arms", name), f"an arm's name is at most {LONGEST_NAME} printable characters")
        twin = next((other for other in found if _alike(other) == _alike(name)), None)
        if twin is not None:
            raise where.error(("arms", name), f"reads like arm {twin}; names differ in more than case")
        if wrong := optim_core.conflict(optimizer):
            raise where.error(path, wrong)
        try:
            known = optim_core.hyperparameters(optimizer)
        except KeyError as error:
            raise where.error(path, str(error.args[0])) from None
        _check_players(model, optimizer, where, path)
        known_anywhere |= set(known)
        own = {k: parameter(k, p, where, ("arms", name, "parameters", k)) for k, p in arm.parameters.items()}
        for key in own:
            if key not in known:
                raise where.error(
                    ("arms", name, "parameters", key), f"unknown to optimizer {optimizer}{nearest(key, known)}"
                )
        shared = {k: parameter(k, p, where, ("parameters", k)) for k, p in model.parameters.items() if k in known}
        for p in {**shared, **own}.values():
            at: Path = ("arms", name, "parameters", p.name) if p.name in own else ("parameters", p.name)
            check_value(optimizer, p, where, at)
            if p.name == "workers" and "independent" in p.values and processes(model, where) > 1:
                raise where.error(
                    at,
                    "independent: the processes of a trial always climb along the gradient of the whole batch, so that "
                    "it does not depend on their number; remove it",
                )
        used |= set(shared)
        _check_conditions({**shared, **own}, own, where, name)
        try:
            found[name] = optimizer, order(list({**shared, **own}.values()))
        except SpaceError as error:
            key = str(error).split(":")[0]
            place: Path = ("arms", name, "parameters", key) if key in own else ("parameters", key)
            raise where.error((*place, "when"), str(error).split(": ", 1)[1]) from None
    for key in model.parameters:
        if key not in used:
            raise where.error(("parameters", key), f"no arm's optimizer has it{nearest(key, known_anywhere)}")
    return found


def _check_conditions(known: Mapping[str, Parameter], own: Mapping[str, Parameter], where: Where, arm: str) -> None:
    """An arm's own parameter can become active: each condition names values that its parent can have."""
    for p in own.values():
        for parent, wanted in p.when.items():
            values = known[parent].values if parent in known else ()
            if values and not set(map(repr, wanted)) & set(map(repr, values)):
                raise where.error(
                    ("arms", arm, "parameters", p.name, "when", parent),
                    f"{', '.join(map(str, wanted))} is no value of {parent} here (it has "
                    f"{', '.join(map(str, values))}), so that {p.name} would never be active; mend or remove it",
                )


def _check_players(model: SweepModel, optimizer: str, where: Where, path: Path) -> None:
    """Optimizers for games go with games, and with nothing else."""
    task = str(model.task["name"])
    if optim_core.lookup(optimizer).PLAYS_GAMES == trainables.lookup(task).GAME:
        return
    games = [name for name in optim_core.registered() if optim_core.lookup(name).PLAYS_GAMES]
    if trainables.lookup(task).GAME:
        raise where.error(path, f"{optimizer} trains one model, and task {task} is a game; use {', '.join(games)}")
    tasks = [name for name in trainables.registered() if trainables.lookup(name).GAME]
    raise where.error(path, f"{optimizer} plays games, and task {task} is none; use one of {', '.join(tasks)}")


def constraints(model: SweepModel, names: Iterable[str], where: Where) -> None:
    """Every constraint is an expression over parameters, steps and grad_evals, which seconds do not know."""
    unknowable = FACTS if model.budget.unit == "seconds" else ()
    known = {*names, *FACTS}
    for i, text in enumerate(model.constraints):
        try:
            named = names_in(text)
        except SpaceError as error:
            raise where.error(("constraints", i), str(error)) from None
        unknown = sorted(named - known)
        if late := sorted(named & set(unknowable)):
            raise where.error(
                ("constraints", i), f"{text!r} names {late[0]}, which a budget in seconds does not know beforehand"
            )
        if unknown:
            raise where.error(
                ("constraints", i), f"{text!r} names {unknown[0]}, which no arm has{nearest(unknown[0], known)}"
            )


def stopping(model: SweepModel, where: Where) -> dict[str, Any]:
    """type, eta, rungs and audit_share of the stopping rule."""
    given = model.early_terminate
    if given is None:
        return {"type": "none", "eta": 3, "rungs": ()}
    found = rungs(given.type, eta=given.eta, min_share=given.min_budget, evaluations=model.evaluations)
    if given.type == "pbt":
        _population(model, where)
    if not found:
        raise where.error(
            ("early_terminate", "min_budget"),
            f"{given.min_budget:.0%} of the budget leaves no evaluation before the last ({model.evaluations} in all); "
            "lower it or raise evaluations",
        )
    return {"type": given.type, "eta": given.eta, "rungs": found, "audit_share": given.audit_share}


def _population(model: SweepModel, where: Where) -> None:
    """What population based training asks of the rest of the file."""
    given, search, trials = model.early_terminate, model.method.name, model.budget.trials_per_arm
    assert given is not None
    if search not in ("random", "sobol"):
        raise where.error(
            ("method", "name"),
            f"{search!r}, but pbt begins with a population that is drawn at once and changes it itself; "
            "write random or sobol",
        )
    if given.audit_share:
        raise where.error(
            ("early_terminate", "audit_share"),
            "pbt gives the budget of a stopped trial to its child, so none is finished; remove it",
        )
    if len(seeds(model, where).tune_of(1)) > 1:
        raise where.error(
            ("seeds", "tune"), "pbt compares members on one seed; write 1, the confirm stage has as many as you like"
        )
    if trials is not None and trials < given.eta:
        raise where.error(
            ("budget", "trials_per_arm"),
            f"{trials}, but of a population of less than eta ({given.eta}) nobody is replaced; raise it",
        )


def objectives(model: SweepModel, known: Mapping[str, Any], where: Where) -> list[dict[str, Any]]:
    """Further metrics of the search: known to the task, in its direction, each once."""
    names = [model.metric.name]
    for i, given in enumerate(model.objectives):
        path: Path = ("objectives", i, "name")
        if given.name not in known:
            raise where.error(path, f"{given.name!r} is not a metric of this task{nearest(given.name, known)}")
        if given.name in names:
            raise where.error(path, f"{given.name!r} is searched by already; name another metric or remove it")
        if known[given.name].goal != given.goal:
            raise where.error(
                ("objectives", i, "goal"),
                f"{given.goal!r}, but this task wants to {known[given.name].goal} {given.name}",
            )
        names.append(given.name)
    if model.objectives and model.method.name in ("cmaes", "gp"):
        raise where.error(("objectives",), f"{model.method.name} searches by one metric; use tpe, random or sobol")
    return [{"name": o.name, "goal": Goal(o.goal)} for o in model.objectives]


def diagnostics(model: SweepModel, where: Where) -> dict[str, Any]:
    """names, every and batches; every name is a diagnostic of optim_core."""
    given = model.diagnostics
    if given is None:
        return {}
    for i, name in enumerate(given.names):
        try:
            optim_core.diagnostics.lookup(name)
        except KeyError as error:
            raise where.error(("diagnostics", "names", i), str(error.args[0])) from None
    return {"names": tuple(given.names), "every": given.every, "batches": given.batches}


def processes(model: SweepModel, where: Where) -> int:
    """How many processes train one trial: as asked, or one for each GPU."""
    given, gpu = model.resources.processes, model.resources.gpu
    if gpu > 1 and gpu != int(gpu):
        raise where.error(("resources", "gpu"), f"{gpu}: whole devices, or a fraction below 1 of one")
    count = max(1, int(gpu)) if given == "auto" else given
    if count < 1:
        raise where.error(("resources", "processes"), f"{given}: a trial has at least one process")
    if given != "auto" and given > 1 and gpu % given:
        raise where.error(("resources", "processes"), f"{given} processes cannot share {gpu} GPU; each needs its own")
    name = str(model.task["name"])
    if count > 1 and trainables.lookup(name).closure is not trainables.Task.closure:
        key = "gpu" if given == "auto" else "processes"
        why = f"task {name} computes its gradient itself, in one process only"
        raise where.error(("resources", key), f"{model.resources.gpu if key == 'gpu' else given}: {why}; give it one")
    return count


def training(model: SweepModel, where: Where) -> TrainingSpec:
    """The task's recipe with what the file changes, and the limit on a step."""
    task = trainables.build(**model.task)
    given = model.training.model_dump(exclude_none=True, exclude={"step_timeout"})
    if given.get("warmup", 0) >= 1:
        given["warmup"] /= model.budget.per_trial
        if given["warmup"] >= 1:
            raise where.error(
                ("training", "warmup"), f"{model.training.warmup:g} is the whole budget or more; lower it"
            )
    try:
        recipe = task.recipe(**given)
        task.check_recipe(recipe)
    except ValueError as error:
        culprit = next((key for key in given if str(error).startswith(key)), None)
        raise where.error(("training", culprit) if culprit else ("training",), str(error)) from None
    return TrainingSpec(recipe=recipe, step_timeout=model.training.step_timeout)
