"""From the sweep file's models to resolved parts: names looked up, parameters merged, seeds laid out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import optim_core
import trainables
from orchestrator.definition import program
from orchestrator.definition.arms import Arms
from orchestrator.definition.columns import is_fact
from orchestrator.definition.errors import nearest
from orchestrator.definition.location import Where
from orchestrator.definition.model import SeedsSpec, TrainingSpec
from orchestrator.definition.parts import TRAINING
from orchestrator.definition.program_keys import is_program
from orchestrator.definition.schema import SweepModel
from orchestrator.definition.space import SpaceError, corners, mismatch, names_in, renamed
from orchestrator.definition.states import Goal
from orchestrator.definition.stopping_rule import rungs
from orchestrator.definition.training_values import check_processes, check_recipes, in_shares
from orchestrator.definition.yaml12 import Path

if TYPE_CHECKING:
    from trainables import Task

CONFIRM_FROM = 1000
LARGEST_SEED, MOST_SEEDS = 2**63, 1_000_000
FACTS = ("steps", "grad_evals")
MOST_READERS = 4
"""Default number of threads that read ahead; more of them would only wait for the interpreter's lock."""


def metrics(model: SweepModel, known: Mapping[str, Any], where: Where) -> str:
    """Check the tuned metric and return the reported one."""
    for key, name in (("name", model.metric.name), ("report_metric", model.metric.report_metric)):
        _free(("metric", key), name, where)
        if name is not None and name not in known:
            raise where.error(("metric", key), f"{name!r} is not a metric of this task{nearest(name, known)}")
    goal = known[model.metric.name].goal
    if goal != model.metric.goal:
        raise where.error(("metric", "goal"), f"{model.metric.goal!r}, but this task {goal}s {model.metric.name}")
    return model.metric.report_metric or model.metric.name


def _free(path: Path, name: str | None, where: Where) -> None:
    if name is not None and is_fact(name):
        raise where.error(path, f"{name!r} is a column of every table of trials; give the metric another name")


def seeds(model: SweepModel, where: Where) -> SeedsSpec:
    """Tune and confirm seeds of all studies, all distinct.

    Counts become 0, 1, ... and 1000, 1001, ..., one study after the other, so that a further study changes no seed of
    the earlier ones. A flat list is divided in order; a list of lists has one for each study.
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
    if isinstance(given, int) and given * studies > MOST_SEEDS:
        raise where.error(
            at, f"{given} in each of {studies} studies: a sweep has at most {MOST_SEEDS:,} seeds of a kind"
        )
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
        raise where.error(
            at, f"{len(found)} seeds cannot be divided among {studies} studies; give a multiple of {studies}"
        )
    twice = next((seed for seed in found if found.count(seed) > 1), None)
    if twice is not None and nested:
        owners = [i + 1 for i, part in enumerate(nested) for seed in part if seed == twice]
        if len(set(owners)) > 1:
            raise where.error(
                at, f"seed {twice} is in study {owners[0]} and in study {owners[1]}; studies must not share seeds"
            )
    if twice is not None:
        raise where.error(at, f"{list(found)} names a seed twice")
    if any(seed < 0 for seed in found):
        raise where.error(at, f"{list(found)} has a negative seed")
    return found


def constraints(model: SweepModel, arms: Arms, where: Where) -> tuple[str, ...]:
    """Every constraint is an expression over parameters, steps and grad_evals; not the last two for seconds.

    Bare names of the task and of training become full ones.
    """
    script = is_program(model.task)
    unknowable = FACTS if model.budget.unit == "seconds" and not script else ()
    facts = (model.budget.unit,) if script else FACTS
    known = {*(p.name for arm in arms.arms.values() for p in arm.parameters), *facts}
    found = []
    for i, text in enumerate(model.constraints):
        try:
            named = names_in(text)
        except SpaceError as error:
            raise where.error(("constraints", i), str(error)) from None
        aliases = {name: arms.names.alias(name) for name in named - known}
        unknown = sorted(name for name, full in aliases.items() if full not in known)
        if late := sorted(named & set(unknowable)):
            raise where.error(
                ("constraints", i), f"{text!r} names {late[0]}, unknown in advance with a budget in seconds"
            )
        if unknown:
            raise where.error(
                ("constraints", i), f"{text!r} names {unknown[0]}, which no arm has{nearest(unknown[0], known)}"
            )
        found.append(renamed(text, aliases) if aliases else text)
        for arm in arms.arms.values():
            spoken_of = names_in(found[-1]) & {p.name for p in arm.parameters}
            for config in corners(arm.parameters, sorted(spoken_of)):
                if why := mismatch(found[-1], config, **dict.fromkeys(facts, 1.0)):
                    raise where.error(("constraints", i), f"{text!r} cannot be computed in arm {arm.name}: {why}")
    return tuple(found)


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
    """What population based training requires of the rest of the file."""
    given, search, trials = model.early_terminate, model.method.name, model.budget.trials_per_arm
    assert given is not None
    if search not in ("random", "sobol"):
        raise where.error(
            ("method", "name"),
            f"{search!r}, but pbt starts from a population drawn all at once, then changes it itself; "
            "write random or sobol",
        )
    if given.audit_share:
        raise where.error(
            ("early_terminate", "audit_share"),
            "pbt gives the budget of a stopped trial to its child, so none is finished; remove it",
        )
    if len(seeds(model, where).tune_of(1)) > 1:
        raise where.error(
            ("seeds", "tune"), "pbt compares members on one seed; write 1 (the confirm stage may have more)"
        )
    if trials is not None and trials < given.eta:
        raise where.error(
            ("budget", "trials_per_arm"),
            f"{trials}, but a population smaller than eta ({given.eta}) replaces no member; raise it",
        )


def objectives(model: SweepModel, known: Mapping[str, Any], where: Where) -> list[dict[str, Any]]:
    """Additional metrics of the search: known to the task, in its direction, each once."""
    names = [model.metric.name]
    for i, given in enumerate(model.objectives):
        path: Path = ("objectives", i, "name")
        _free(path, given.name, where)
        if given.name not in known:
            raise where.error(path, f"{given.name!r} is not a metric of this task{nearest(given.name, known)}")
        if given.name in names:
            raise where.error(path, f"{given.name!r} is already an objective; name another metric or remove it")
        if known[given.name].goal != given.goal:
            raise where.error(
                ("objectives", i, "goal"),
                f"{given.goal!r}, but this task {known[given.name].goal}s {given.name}",
            )
        names.append(given.name)
    if model.objectives and model.method.name in ("cmaes", "gp"):
        raise where.error(("objectives",), f"{model.method.name} optimizes a single metric; use tpe, random or sobol")
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
        raise where.error(("resources", "gpu"), f"{gpu}: expected whole devices, or a fraction below 1")
    if is_program(model.task):
        return 1
    count = max(1, int(gpu)) if given == "auto" else given
    if count < 1:
        raise where.error(("resources", "processes"), f"{given}: a trial needs at least one process")
    if given != "auto" and given > 1 and gpu % given:
        raise where.error(("resources", "processes"), f"{given} processes cannot share {gpu} GPU; each needs its own")
    name = str(model.task["name"])
    if count > 1 and trainables.lookup(name).closure is not trainables.Task.closure:
        key = "gpu" if given == "auto" else "processes"
        why = f"task {name} computes its gradient itself, in one process only"
        raise where.error(("resources", key), f"{model.resources.gpu if key == 'gpu' else given}: {why}; give it one")
    return count


def readers(model: SweepModel, where: Where) -> int:
    """Threads that read ahead: as asked, or with a GPU one for each CPU of a process; without one the CPUs are busy."""
    given, script = model.resources.readers, is_program(model.task)
    able = not script and trainables.lookup(str(model.task["name"])).read_ahead is not trainables.Task.read_ahead
    if given == "auto":
        wanted = able and model.resources.gpu and model.resources.pack == 1
        return min(model.resources.cpu, MOST_READERS) if wanted else 0
    if given and not able:
        why = "a script reads its own data" if script else f"task {model.task['name']} does not read ahead"
        raise where.error(("resources", "readers"), f"{given}: {why}; leave it out")
    return given


def training(model: SweepModel, task: Task, arms: Arms, where: Where) -> TrainingSpec:
    """The task's recipe with what the file changes, and the limit on a step; searched keys fit it at every corner."""
    if is_program(model.task):
        return program.training(model, where)
    given = model.training.model_dump(exclude_none=True, exclude={"step_timeout"})
    for key in given:
        name = f"{TRAINING}.{key}"
        if all(any(p.name == name and not p.when for p in arm.parameters) for arm in arms.arms.values()):
            place = next(iter(arms.places.values()))[name]
            raise where.error(place, f"is also fixed in training: {{{key}: ...}}; remove one of them")
    if "warmup" in given:
        given["warmup"] = in_shares("warmup", given["warmup"], model, where, ("training", "warmup"))
    try:
        recipe = task.recipe(**given)
        task.check_recipe(recipe)
        check_processes(recipe, processes(model, where))
    except ValueError as error:
        culprit = next((key for key in given if str(error).startswith(key)), None)
        raise where.error(("training", culprit) if culprit else ("training",), str(error)) from None
    found = TrainingSpec(recipe=recipe, step_timeout=model.training.step_timeout)
    for name, arm in arms.arms.items():
        check_recipes(arm, recipe, task, model, arms.places[name], where, processes(model, where))
    return found
