"""An optimizer's declarations as a block of its page: gradients per step, state, limits, hyperparameters with ranges.

A page in docs/methods lists its optimizers in its front matter (`optimizers:`), and `<!-- declared: NAME -->` marks
the place of each block. Ranges are found by trying values: whatever `optim_core.registry.check` refuses, sweep files
cannot contain. State is measured by counting the tensors after two steps on a small network.
"""

from __future__ import annotations

import inspect
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

import optim_core
from optim_core import registry

HERE = Path(__file__).parents[1] / "methods"
MARK = re.compile(r"<!-- declared: (\S+) -->")
NONSENSE = "no-such-choice"
FAR = 10**12
LOSS = nn.functional.cross_entropy
SHAPE = (48, 32)
"""Shape of the hidden weight whose state is counted: [out, in]."""


@lru_cache(maxsize=1)
def meanings() -> Mapping[str, Any]:
    """Descriptions of hyperparameters: name -> text; under `of`, optimizer names -> their own texts for some."""
    found: Mapping[str, Any] = yaml.safe_load((HERE / "hyperparameters.yaml").read_text())
    return found


def meaning(name: str, key: str) -> str:
    """The description of a hyperparameter of the named optimizer; empty if there is none."""
    for group, words in meanings()["of"].items():
        if name in group.split() and key in words:
            return str(words[key])
    return str(meanings()["all"].get(key, ""))


def pages() -> Iterator[tuple[Path, list[str]]]:
    """(file, optimizers it describes) of every method page."""
    for path in sorted(HERE.glob("*.md")):
        _, front, _ = (path.read_text() + "\n---\n---\n").split("---\n", 2)
        yield path, list((yaml.safe_load(front) or {}).get("optimizers", []))


def refused(name: str, key: str, value: Any) -> str:
    """Why the named optimizer refuses a value; empty if it accepts the value."""
    given, own, _ = subject(name)
    try:
        registry.check(name, **{key: value})
        optim_core.build(name, given, **{**own, key: value})
    except (ValueError, TypeError, KeyError) as error:
        return str(error)
    return ""


def usable(name: str, key: str, parameter: inspect.Parameter) -> str:
    """The values that the named optimizer accepts, as an interval or a list."""
    default, declared = parameter.default, getattr(parameter.annotation, "__name__", str(parameter.annotation))
    if "bool" in declared:
        return "`true`, `false`"
    if "str" in declared and (said := refused(name, key, NONSENSE)):
        listed = re.search(r"(?:available|there is|(?:must|has to) be(?: one of)?|one of):? (.+)", said)
        words = [word.strip() for word in re.split(r",| or ", listed[1])] if listed else []
        return ", ".join(word if " " in word else f"`{word}`" for word in words)
    if isinstance(default, str) and "float" not in declared:
        return "text"
    whole = isinstance(default, int) or declared.startswith("int")
    low, high = optim_core.lookup(name).BOUNDS.get(key, (-math.inf, math.inf))
    if math.isinf(low) and refused(name, key, -FAR):
        low = next((edge for edge in (-1, 0) if not refused(name, key, edge if whole else edge + 1e-6)), 1)
    if math.isinf(high) and refused(name, key, 2 if whole else 2.0) and not refused(name, key, 0.5):
        high = 1
    return interval(name, key, low, high, whole=whole)


def interval(name: str, key: str, low: float, high: float, *, whole: bool) -> str:
    """An interval, closed at the ends that the optimizer accepts."""
    kind: Callable[[float], Any] = int if whole else float
    lower, upper = not math.isinf(low), not math.isinf(high)
    left = lower and not refused(name, key, kind(low))
    right = upper and not refused(name, key, kind(high))
    if lower and upper:
        return f"{'[' if left else '('}{low:.4g}, {high:.4g}{']' if right else ')'}"
    if lower:
        return f"{'≥' if left else '>'} {low:.4g}"
    return f"{'≤' if right else '<'} {high:.4g}" if upper else ""


def shown(value: Any) -> str:
    """A default in YAML."""
    if value is inspect.Parameter.empty:
        return "*required*"
    if isinstance(value, float):
        return f"`{value:g}`"
    return f"`{yaml.safe_dump(value, default_flow_style=True).removesuffix('...' + chr(10)).strip()}`"


class Quadratic(nn.Module):
    """f(w) = w' H w / 2 with diagonal H of known spectrum, as average-case methods require."""

    spectrum: Mapping[str, float] = {
        "smoothness": 1.0, "strong_convexity": 0.1, "left_exponent": 0.0, "right_exponent": 0.0,
        "eigenvalue_scale": 0.2,
    }  # fmt: skip

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(SHAPE))
        self.register_buffer("curvature", torch.linspace(0.1, 1, SHAPE[0] * SHAPE[1]).view(SHAPE))

    def forward(self) -> Tensor:
        return (self.curvature * self.weight.square()).sum() / 2


@lru_cache(maxsize=64)
def subject(name: str) -> tuple[Any, Mapping[str, Any], Tensor]:
    """(what the named optimizer is built on, its additional arguments, the weight of shape `SHAPE`)."""
    torch.manual_seed(0)
    if optim_core.lookup(name).PLAYS_GAMES:
        players = [Quadratic(), Quadratic()]
        return players, {}, players[0].weight
    if not registry.learning_rate(name):
        quadratic = Quadratic()
        return quadratic, {}, quadratic.weight
    model = nn.Sequential(nn.Linear(20, SHAPE[1]), nn.Tanh(), nn.Linear(*reversed(SHAPE)), nn.Tanh(), nn.Linear(48, 10))
    batches = [(torch.randn(64, 20), torch.randint(10, (64,)))]
    own = {"loss": LOSS, "refresh_batches": batches} if registry.needs_batches(name) else {}
    return model, own, model[2].weight


def taken(name: str) -> tuple[Any, Tensor]:
    """(the named optimizer after two steps, the weight of shape `SHAPE`)."""
    given, own, weight = subject(name)
    few = {"probes": 4} if "probes" in optim_core.hyperparameters(name) else {}
    optimizer = optim_core.build(name, given, **own, **few)
    if isinstance(given, list):

        def losses() -> list[Tensor]:
            product = (given[0].weight * given[1].weight).sum()
            return [given[0]() + product, given[1]() - product]

        return stepped(optimizer, losses), weight
    if isinstance(given, Quadratic):
        return stepped(optimizer, closure_of(optimizer, given)), weight
    inputs, targets = torch.randn(64, 20), torch.randint(10, (64,))
    return stepped(optimizer, closure_of(optimizer, lambda: LOSS(given(inputs), targets))), weight


def closure_of(optimizer: Any, loss: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The closure passed to `step`."""

    def closure() -> Tensor:
        optimizer.zero_grad()
        (found := loss()).backward()
        return found

    return closure


def stepped(optimizer: Any, closure: Callable[[], Any]) -> Any:
    """Take two steps, since some optimizers spend the first on a basis, and return the optimizer."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(2):
            optimizer.step(closure)
    return optimizer


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors with more than one element in a state."""
    if isinstance(value, Tensor) and value.numel() > 1:
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from tensors(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from tensors(inner)


def state(name: str) -> str:
    """The size of its state for a hidden weight, in multiples of the weight."""
    optimizer, weight = taken(name)
    kept = {key: sum(t.numel() for t in tensors(value)) for key, value in optimizer.state[weight].items()}
    parts = [f"`{key}` {count / weight.numel():.3g}" for key, count in kept.items() if count]
    return f"{sum(kept.values()) / weight.numel():.3g} ({', '.join(parts)})" if parts else "none"


def settings(values: Mapping[str, Any]) -> str:
    """Hyperparameter values in sweep-file syntax."""
    return ", ".join(f"`{key}: {shown(value).strip('`')}`" for key, value in values.items())


def limit(one: Any) -> str:
    """A declared limit, in words."""
    where = "; ".join(
        f"`{key}` {', '.join(shown(v) for v in values)}" for key, values in one.where.items() if len(values) < 5
    )
    named = "its base" if one.equals == "{base}" else f"`{one.equals}`"
    other = f" with {settings(one.other)}" if one.other else ""
    how = "bit for bit" if not one.deviation else f"to within {one.deviation:.0e} of the distance moved"
    return f"{named}{other} at {settings(one.at)}{f' (for {where})' if where else ''}, {how}"


def costs(name: str) -> list[str]:
    """The lines about cost."""
    step, start = registry.cost_per_step(name), registry.cost_of_start(name)
    plain = optim_core.lookup(name).GRAD_EVALS
    line = f"- **Gradient evaluations per step:** {step:g}"
    if step > plain:
        line += f" with default settings, including refreshes; {plain:g} without"
    elif step < plain:
        line += f" on average with default settings, at most {plain:g}"
    if start:
        line += f"; plus {start:g} before the first step"
    return [
        f"{line}.",
        f"- **State for a hidden weight of shape {list(SHAPE)}, in multiples of its size:** {state(name)}.",
    ]


def table(name: str) -> list[str]:
    """The table of hyperparameters."""
    lines = [
        "| hyperparameter | meaning | default | valid values | within a trial | per group |",
        "|---|---|---|---|---|---|",
    ]
    changeable, groupable = registry.changeable(name), registry.groupable(name)
    for key, parameter in optim_core.hyperparameters(name).items():
        cells = (
            f"`{key}`",
            meaning(name, key),
            shown(parameter.default),
            usable(name, key, parameter),
            "may change" if key in changeable else "",
            "yes" if key in groupable else "",
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return lines


def block(name: str) -> str:
    """All declarations, in Markdown."""
    role = registry.learning_rate(name)
    lines = [*costs(name)]
    lines += [f"- **Learning rate:** {f'`{role}`' if role else 'none to tune: theory sets the step size'}."]
    lines += [f"- **Equals** {limit(one)}." for one in registry.limits(name)]
    return "\n".join([*lines, "", *table(name)])


def filled(page: str) -> str:
    """Insert the declarations into a page."""
    return MARK.sub(lambda found: block(found[1]), page)
