"""Is the protocol fair? Rules with stable codes, one function each; sweeps/LINT.md explains them and names the papers.

A validator checks types; these rules check whether the described comparison could mislead. Some unfair
protocols cannot even be written in our format (epochs, pruning across arms): such a file is invalid, and linting
it still says which rule it breaks. The results of a finished sweep show two more things: an optimum at the
edge of its range, and data that differ between arms.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import optim_core
from orchestrator.definition import model, plan, program
from orchestrator.definition.errors import SpecError
from orchestrator.definition.method import is_foreign
from orchestrator.definition.model import ArmSpec, Spec
from orchestrator.definition.parts import TASK, TRAINING, section_of
from orchestrator.definition.rule_codes import RULES
from orchestrator.definition.space import MOST, Parameter, levels
from orchestrator.definition.sweep_file import loads
from orchestrator.definition.yaml12 import YamlError, parse
from orchestrator.protocol import alike
from orchestrator.protocol.lint_raw import RAW
from orchestrator.statistics.significance import floor_of_seeds

EFFORT, PARITY, WIDTHS, RANDOM_TRIALS = 1.25, 1.02, 2.0, 4
SCHEDULE_WORDS = ("schedule", "warmup", "decay_steps", "total_steps", "anneal")


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One breach of a rule."""

    code: str
    key: str
    """Dotted key in the file."""
    line: int
    message: str
    """What is unfair, and how to fix it."""
    waived: str = ""
    """Why the file breaks the rule on purpose (analysis.waive)."""

    @property
    def title(self) -> str:
        """The rule's name."""
        return RULES[self.code]


Breach = tuple[str, tuple[str, ...], str]
"""(code, path of the key, message)."""
Found = Iterator[tuple[tuple[str, ...], str]]
Rule = Callable[[Spec], Found]
_ON_SPEC: dict[str, Rule] = {}


def _rule(code: str) -> Callable[[Rule], Rule]:
    def add(rule: Rule) -> Rule:
        _ON_SPEC[code] = rule
        return rule

    return add


def lint(text: str, file: str, seen: Iterable[Breach] = ()) -> list[Finding]:
    """All findings in a sweep file, in the order of their codes. Raises SpecError for a file that is invalid otherwise.

    `seen`: breaches that the results of a finished sweep show (see `compare.lint_results`).
    """
    import yaml

    try:
        document = parse(text)
    except YamlError as error:
        raise SpecError(file, error.line, error.column, error.path, str(error)) from None
    repaired, breaches = copy.deepcopy(document.value), list[Breach]()
    for raw in RAW:
        breaches += list(raw(repaired)) if isinstance(repaired, dict) else []
    spec = loads(yaml.safe_dump(repaired, sort_keys=False), file) if breaches else loads(text, file)
    for code, rule in _ON_SPEC.items():
        breaches += [(code, *breach) for breach in rule(spec)]
    breaches += seen
    why = spec.analysis.waive
    return [
        Finding(code=code, key=".".join(path), line=document.place(path)[0], message=message, waived=why.get(code, ""))
        for code, path, message in sorted(breaches)
    ]


def _tuned(arm: ArmSpec) -> list[Parameter]:
    return [p for p in arm.parameters if p.kind != "constant" and len(p.values) != 1]


def _is_default(spec: Spec, arm: ArmSpec) -> bool:
    """At the optimizer's defaults: nothing of it is tuned or set. A script's names are its own."""
    if spec.task.is_program:
        return not arm.parameters
    return all(section_of(p.name)[0] in (TASK, TRAINING) for p in arm.parameters)


def _parameter(arm: ArmSpec, name: str) -> Parameter | None:
    return next((p for p in arm.parameters if p.name == name), None)


def _values(arm: ArmSpec, name: str) -> list[Any]:
    """Values that a parameter may take, where they can be listed; its bounds otherwise; the default when not given."""
    p = _parameter(arm, name)
    if p is None:
        return [optim_core.hyperparameters(arm.optimizer)[name].default]
    return list(p.values) or [p.low, p.high]


@_rule("GS101")
def effort(spec: Spec) -> Found:
    """Arms that try different numbers of distinct configurations."""
    sizes: dict[str, int] = {}
    for name, arm in spec.arms.items():
        if not arm.parameters:
            continue
        counts = [levels(p) for p in arm.parameters]
        few = all(c is not None for c in counts) and math.prod(len(c) for c in counts if c is not None) <= MOST
        finite = plan.grid_size(spec, arm) if few else None
        asked = plan.configurations(spec, arm)
        sizes[name] = asked if finite is None else min(asked, finite)
    if sizes and max(sizes.values()) > EFFORT * min(sizes.values()):
        words = ", ".join(f"{arm} {n}" for arm, n in sizes.items())
        yield (
            ("arms",),
            f"distinct configurations tried: {words}; give every arm equally many, for instance with method: random",
        )


@_rule("GS102")
def equal_steps(spec: Spec) -> Found:
    """Steps of unequal cost: the more expensive optimizer gets more compute."""
    if spec.budget.unit in ("steps", "grad_evals"):
        yield from alike.unequal_batches(spec)
    if spec.budget.unit == "grad_evals" and not spec.task.is_program:
        yield from alike.left_over(spec, PARITY)
    if spec.budget.unit != "steps":
        return
    spans = {name: plan.grad_evals_range(spec, arm) for name, arm in spec.arms.items()}
    least, most = min(low for low, _ in spans.values()), max(high for _, high in spans.values())
    if most > PARITY * least:
        words = ", ".join(
            f"{arm} {low:g}" if low == high else f"{arm} {low:g} to {high:g}" for arm, (low, high) in spans.items()
        )
        yield (
            ("budget", "unit"),
            f"{spec.budget.per_trial:g} steps cost unequal gradient evaluations: {words}; use unit: grad_evals",
        )


def _units(spec: Spec) -> tuple[int, str, str]:
    """(how many independent differences a comparison rests on, what they are, the key that sets them)."""
    if spec.seeds.studies > 1:
        return spec.seeds.studies, "studies", "studies"
    return len(spec.seeds.confirm), "confirm seeds", "confirm"


@_rule("GS104")
def few_seeds(spec: Spec) -> Found:
    """No exact paired test can reach 0.05."""
    n, words, key = _units(spec)
    if n < 6 and len(spec.arms) > 1:
        yield ("seeds", key), f"{n} {words}: the smallest possible p is {2.0 ** (1 - n):.2g}; use 6 or more"


@_rule("GS105")
def seeds_for_comparisons(spec: Spec) -> Found:
    """Holm's correction over all comparisons needs more."""
    comparisons, (n, words, key) = model.comparisons(spec), _units(spec)
    floor = floor_of_seeds(comparisons, spec.analysis.first_level) if comparisons else 0
    if 6 <= n < floor:
        yield (
            ("seeds", key),
            f"{n} {words} cannot settle {comparisons} comparisons: after Holm p is at least "
            f"{comparisons * 2.0 ** (1 - n):.2g}; use {floor} or more, or declare analysis.baseline",
        )


@_rule("GS107")
def test_metric(spec: Spec) -> Found:
    """The search must not see the test set."""
    if "test" in spec.metric.name.split("/"):
        yield ("metric", "name"), f"{spec.metric.name} is tuned; tune a validation metric and make this report_metric"


@_rule("GS108")
def uneven_evaluation(spec: Spec) -> Found:
    """Every arm is evaluated equally often. With a budget in seconds, steps are known only after calibration."""
    for name, arm in spec.arms.items() if plan.is_known(spec) and not spec.task.is_program else ():
        fewest = plan.steps_range(spec, arm)[0]
        if fewest < spec.evaluations:
            yield (
                ("evaluations",),
                f"{spec.evaluations} evaluations, but arm {name} takes as few as {fewest} steps and is evaluated "
                f"less often "
                f"than others; use {fewest} or fewer",
            )
            return


@_rule("GS109")
def best_on_the_way(spec: Spec) -> Found:
    """The best of many evaluations rewards noise."""
    if spec.metric.select == "best":
        yield (
            ("metric", "select"),
            "best rewards noisy curves and unfinished schedules; compare final values: select: last",
        )


@_rule("GS110")
def schedule(spec: Spec) -> Found:
    """A tuned schedule is a tuned hyperparameter, and so is the rest of the recipe."""
    tuned = {
        name: [p.name for p in _tuned(arm) if any(word in p.name for word in SCHEDULE_WORDS)]
        for name, arm in spec.arms.items()
    }
    have = [name for name, found in tuned.items() if found]
    if have and len(have) < len(tuned):
        lacking = ", ".join(name for name in tuned if name not in have)
        key = ("arms", have[0], "parameters", tuned[have[0]][0])
        yield (
            key,
            f"{tuned[have[0]][0]} is tuned in {', '.join(have)} but no schedule is in {lacking}; tune it in "
            f"all, or in none",
        )
        return
    for path, name, words in alike.not_alike(spec, TRAINING):
        yield path, f"{name} is {words}; a recipe can matter as much as an optimizer: search it equally in all arms"


@_rule("GS116")
def tied(spec: Spec) -> Found:
    """A parameter that changes data or model changes the question."""
    for path, name, words in alike.not_alike(spec, TASK):
        yield (
            path,
            f"{name} is {words}: arms with different tasks cannot be paired; search it equally in all, or in none",
        )
    yield from alike.asked(spec)


@_rule("GS111")
def default_arm(spec: Spec) -> Found:
    """What everyone would have used."""
    if len(spec.arms) < 2 or not all(arm.optimizer for arm in spec.arms.values()):
        return

    references = optim_core.references()
    if not any(_is_default(spec, arm) or _plays(arm) & set(references) for arm in spec.arms.values()):
        yield ("arms",), f"no arm is a plain reference ({', '.join(references)}) or at its defaults; add one"


@_rule("GS112")
def expected_best(spec: Spec) -> Found:
    """Trials of an adaptive search are not exchangeable."""
    if not (spec.method.name == "tpe" or is_foreign(spec.method.name)) or not spec.analysis.expected_best:
        return
    for name, arm in spec.arms.items():
        drawn = round(spec.method.random_share * plan.configurations(spec, arm)) * spec.seeds.studies
        if _tuned(arm) and drawn < RANDOM_TRIALS <= plan.configurations(spec, arm):
            yield (
                ("method",),
                f"expected-best curves need randomly drawn trials; arm {name} has {drawn} of them. Raise "
                f"random_share, or "
                "set analysis.expected_best: false",
            )
            return


@_rule("GS114")
def nested(spec: Spec) -> Found:
    """An optimizer that contains another one must beat it, so the other must be an arm."""
    named = {name: arm for name, arm in spec.arms.items() if arm.optimizer}
    there = set[str]().union(*(_plays(arm) for arm in named.values()))
    for name, arm in named.items():
        space = _space(arm)
        missing = {
            " or ".join(sorted(others)): limit.at
            for limit in optim_core.limits(arm.optimizer)
            if limit.nested and limit.holds(space) and not (others := limit.others(space)) & there
        }
        for contained, at in missing.items():
            setting = ", ".join(f"{k}: {v:g}" if isinstance(v, float) else f"{k}: {v}" for k, v in at.items())
            yield (
                ("arms", name),
                f"{arm.optimizer} contains {contained} ({setting}), which is not an arm; without it one cannot tell "
                "whether the addition helps",
            )


def _plays(arm: ArmSpec) -> set[str]:
    """The optimizers whose steps the arm may take: its own, and those whose limits its space holds."""
    space, found = _space(arm), {arm.optimizer}
    for limit in optim_core.limits(arm.optimizer):
        if limit.reached(space):
            found |= limit.others(space)
    return found


def _space(arm: ArmSpec) -> dict[str, list[Any]]:
    """Each hyperparameter of the arm's optimizer, with the values that it may take."""
    return {name: _values(arm, name) for name in optim_core.hyperparameters(arm.optimizer)}


@_rule("GS115")
def learning_rate(spec: Spec) -> Found:
    """The learning rate matters most, and every arm needs its own."""
    for name, arm in spec.arms.items():
        role = _learning_rate(arm)
        p = _parameter(arm, role)
        if _is_default(spec, arm) or not role or (p is not None and p in _tuned(arm)):
            continue
        yield ("arms", name), f"arm {name} does not tune {role}; give it a range, as the others have"


def _learning_rate(arm: ArmSpec) -> str:
    return optim_core.learning_rate(arm.optimizer) if arm.optimizer else ""


@_rule("GS117")
def widths(spec: Spec) -> Found:
    """Search volume in decades of the learning rate."""
    import math

    found = {
        name: math.log10(p.high / p.low)
        for name, arm in spec.arms.items()
        if (p := _parameter(arm, _learning_rate(arm))) is not None and p.log
    }
    if found and max(found.values()) > WIDTHS * min(found.values()):
        words = ", ".join(f"{arm} {w:.1f}" for arm, w in found.items())
        yield (
            ("arms", min(found, key=lambda a: found[a])),
            f"decades of the learning rate searched: {words}; give every arm the same width",
        )


@_rule("GS118")
def linear_scale(spec: Spec) -> Found:
    """Over a decade or more, a uniform range spends most trials near the top."""
    for name, arm in spec.arms.items():
        for p in _tuned(arm):
            if p.name == _learning_rate(arm) and p.kind == "float" and not p.log and p.high >= 10 * max(p.low, 1e-300):
                yield (
                    ("arms", name),
                    f"{p.name} from {p.low:g} to {p.high:g} on a linear scale: nine trials in ten fall into the top "
                    f"decade; use "
                    "distribution: log_uniform_values",
                )


@_rule("GS119")
def reported(spec: Spec) -> Found:
    """The winner's tuned metric is biased upwards."""
    known = program.declared(model.definition(spec), spec.report_metric).METRICS
    twin = "/".join("test" if part == "val" else part for part in spec.metric.name.split("/"))
    if spec.report_metric == spec.metric.name and twin != spec.metric.name and twin in known:
        yield ("metric", "name"), f"{spec.metric.name} is tuned and reported; set report_metric: {twin}"


@_rule("GS120")
def one_study(spec: Spec) -> Found:
    """No interval over training seeds covers the luck of a single search."""
    if spec.seeds.studies == 1 and len(spec.arms) > 1:
        yield (
            ("seeds",),
            "one search per arm compares the configurations found, not the methods: two identical arms tuned like "
            "this differ significantly in about 3 of 10 sweeps; set studies: 6 or more",
        )


@_rule("GS121")
def guesses(spec: Spec) -> Found:
    """A good guess is worth many trials, so an arm with one has a head start."""
    given = {name: sorted(p.name for p in arm.parameters if p.prior_confidence) for name, arm in spec.arms.items()}
    tuned = {name: {p.name for p in _tuned(arm)} for name, arm in spec.arms.items()}
    anywhere = {guess for found in given.values() for guess in found}
    missed = {name: sorted(names & anywhere - {*given[name]}) for name, names in tuned.items()}
    without = [name for name in spec.arms if missed[name] or (tuned[name] and not given[name])]
    if without and anywhere:
        less = ", ".join(name + (f" not {', '.join(missed[name])}" if given[name] else " nothing") for name in without)
        words = "; ".join(f"{name} guesses {', '.join(found)}" for name, found in given.items() if found)
        yield (
            ("arms", without[0]),
            f"{words}, and {less}; give every arm its prior, or none",
        )
