"""Step the optimizers of several trials at once: one class, separate hyperparameters, shared arithmetic.

The weights of K trials are stored in rows: w [K, n] for each parameter group of n weights, gradients and state
likewise, and a hyperparameter is a column [K, 1]. A class declares with `PACKING` that its step has this form, and by
which rule:

    sgd:    m <- momentum m + (g + weight_decay w),  w <- w - lr m
    adamw:  w <- (1 - lr weight_decay) w - lr mhat / (sqrt(vhat) + eps)
    sam:    the same, with g taken at w + sam_radius g / |g|, one norm |g| for each row

Each row is its optimizer's step up to rounding. A row with a gradient that is not finite is skipped individually.

On a GPU the rows are updated together, which takes few kernels. On a CPU large rows are updated one by one with torch's
fused kernels, which pass over the memory once and round as the optimizers themselves do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from optim_core.adjustable import BETAS, OWN
from optim_core.packed_rules import Columns, Rule

BOOKKEEPING = frozenset({"params", "param_names", "initial_lr", "grad_evals", "skipped_steps", OWN})
"""Entries of a parameter group that do not affect its arithmetic."""
LARGE_ROW = 20_000
"""Weights of a trial from which a call for each costs less than another pass over the memory."""


class Counting(Protocol):
    """A pack's requirements for each optimizer (`base.Counting`)."""

    param_groups: list[dict[str, Any]]
    state: Any
    checks_gradients: bool

    def charge(self, amount: float) -> None:
        """Count gradient evaluations."""

    def skip(self) -> None:
        """Count a step that is not taken."""


class Unpackable(ValueError):  # noqa: N818
    """These trials cannot be stepped together; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Packing:
    """A class's own `PACKING` declaration; it is not inherited, since subclasses step differently."""

    rule: Callable[[Mapping[str, Any]], Rule | None]
    """The rule of a parameter group with these settings; None if there is none."""
    apart: frozenset[str]
    """Hyperparameters that may differ between the trials of a pack."""
    climbs: bool = False
    """Whether the gradient is taken at w + sam_radius g / |g|: two evaluations per step."""


class Passed(Protocol):
    """One gradient evaluation of every trial."""

    @property
    def losses(self) -> Tensor:
        """[K]"""

    @property
    def grads(self) -> list[list[Tensor]]:
        """Per parameter group [K, n], in one tensor or in consecutive columns; the step may overwrite them."""

    @property
    def norms(self) -> Tensor:
        """[K], over all groups, before clipping; finite if the gradient is, unless it overflows itself."""


@dataclass(frozen=True, kw_only=True)
class Stepped:
    """The result of a step, for each trial."""

    losses: list[float]
    """At the weights before the step."""
    taken: list[bool]
    cost: list[float]
    """Gradient evaluations charged."""


def why_not(kind: type[Any], settings: Mapping[str, Any]) -> str:
    """Why an optimizer of this class with these settings cannot be packed; empty if it can."""
    packing: Packing | None = kind.__dict__.get("PACKING")
    if packing is None:
        return "does not declare support for stepping several trials at once (PACKING)"
    if packing.rule(settings) is None:
        words = ", ".join(f"{key} {value}" for key, value in settings.items() if key not in packing.apart)
        return f"cannot step several trials at once with these settings ({words})"
    return ""


def settings(optimizer: Counting) -> str:
    """What must be the same in all trials of a pack: optimizers with equal settings can be stepped together."""
    kind = type(optimizer)
    packing: Packing | None = kind.__dict__.get("PACKING")
    apart = packing.apart | {"betas"} if packing is not None else frozenset()
    groups = [
        {
            **{k: g[k] for k in sorted(g) if k not in BOOKKEEPING | apart},
            "shapes": [tuple(p.shape) for p in g["params"]],
        }
        for g in optimizer.param_groups
    ]
    return f"{kind.__module__}.{kind.__qualname__} {groups}"


class PackedStep:
    """K optimizers of one class with the parameter groups of one model each.

    `weights` [K, n] are the rows of each group, in the order of its parameters, and are changed in place. `by_row`:
    update them one by one, by default on a CPU if they are large. Raises Unpackable.
    """

    def __init__(
        self, optimizers: Sequence[Counting], weights: Sequence[Tensor], *, by_row: bool | None = None
    ) -> None:
        kind = type(optimizers[0])
        first = optimizers[0].param_groups
        for group in first:
            if why := why_not(kind, {k: v for k, v in group.items() if k not in BOOKKEEPING}):
                raise Unpackable(f"{kind.__name__} {why}")
        if any(settings(other) != settings(optimizers[0]) for other in optimizers[1:]):
            raise Unpackable("settings that differ between its trials")
        packing: Packing = kind.__dict__["PACKING"]
        if any(not other.checks_gradients for other in optimizers):
            raise Unpackable("gradients that are not checked")
        self._optimizers, self._weights, self._climbs = list(optimizers), list(weights), packing.climbs
        found = [packing.rule(group) for group in first]
        self._rules = [rule for rule in found if rule is not None]
        self._names = [sorted(_names(group) & packing.apart) for group in first]
        self._state = [self._gathered(i, rule) for i, rule in enumerate(self._rules)]
        self._steps = [self._counted(i, rule) for i, rule in enumerate(self._rules)]
        self._fresh = [all(not o.state.get(p) for g in o.param_groups for p in g["params"]) for o in optimizers]
        self._table: list[tuple[list[str], list[Tensor]]] = []
        large = all(w.device.type == "cpu" and w.shape[1] >= LARGE_ROW for w in weights)
        self._by_row = large if by_row is None else by_row
        self._plans: list[dict[str, list[list[float]]]] = []
        """If rows are updated one by one: per parameter group, name -> values of the coming steps, [steps][K]."""
        self._parts: list[list[list[list[Tensor]]]] = []
        """Per parameter group and trial, the parts of its weights and of each state tensor."""

    def values(self, trial: int) -> list[dict[str, float]]:
        """The current hyperparameters of a trial, per parameter group."""
        return [
            {name: _value(group, name) for name in names}
            for group, names in zip(self._optimizers[trial].param_groups, self._names, strict=True)
        ]

    def prepare(self, plans: Sequence[Mapping[str, Tensor]]) -> None:
        """Set the hyperparameters of the coming steps: for each group name -> [steps, K], float64."""
        self._table = []
        self._plans = [{name: x.tolist() for name, x in values.items()} for values in plans] if self._by_row else []
        for rule, w, values, steps in zip(self._rules, self._weights, plans, self._steps, strict=True):
            count = next(iter(values.values())).shape[0]
            numbers = torch.tensor(steps, dtype=torch.float64)[None] + torch.arange(1, count + 1)[:, None]
            columns = rule.columns(values, numbers) if not self._by_row else {}
            if self._climbs:
                columns["radius"] = values["sam_radius"]
            if not columns:
                self._table.append(([], [w.new_empty(0)] * count))
                continue
            whole = torch.stack(list(columns.values()), dim=1)[..., None].to(w.device, w.dtype)  # [steps, names, K, 1]
            self._table.append((list(columns), list(whole.unbind(0))))

    def step(self, number: int, evaluate: Callable[[bool], Passed]) -> Stepped:
        """Take step `number`, from 0, of the prepared ones. `evaluate(ascending)` returns gradients at the current
        weights.

        A trial with a gradient that is not finite does not move, as with its own optimizer.
        """
        at = [dict(zip(names, rows[number].unbind(0), strict=True)) for names, rows in self._table]
        passes: list[Passed] = []
        if self._climbs:
            first = evaluate(True)
            home = [w.clone() for w in self._weights]
            for w, parts, own in zip(self._weights, first.grads, at, strict=True):
                climb = own["radius"] / first.norms.clamp_min(1e-12)[:, None]
                for part, g in zip(torch.split(w, [g.shape[1] for g in parts], 1), parts, strict=True):
                    part.addcmul_(g, climb)
            try:
                passes = [first, evaluate(False)]
            finally:
                for w, before in zip(self._weights, home, strict=True):
                    w.copy_(before)
        else:
            passes = [evaluate(False)]
        losses, *norms = torch.stack([passes[0].losses, *(one.norms for one in passes)]).tolist()
        climbed = [math.isfinite(x) for x in norms[0]] if self._climbs else [True] * len(losses)
        grads = passes[-1].grads
        taken = [
            up and (math.isfinite(x) or all(bool(g[k].isfinite().all()) for parts in grads for g in parts))
            for k, (up, x) in enumerate(zip(climbed, norms[-1], strict=True))
        ]
        still = [k for k, fine in enumerate(taken) if not fine]
        if self._by_row:
            self._update_rows(grads, number, still)
        else:
            self._update(grads, at, still)
        self._steps = [[n + (k not in still) for k, n in enumerate(steps)] for steps in self._steps]
        self._fresh = [fresh and k in still for k, fresh in enumerate(self._fresh)]
        cost = [float(len(passes)) if up else 1.0 for up in climbed]
        return Stepped(losses=losses, taken=taken, cost=cost)

    def charge(self, trial: int, amount: float) -> None:
        """Add gradient evaluations to its optimizer's count."""
        self._optimizers[trial].charge(amount)

    def skip(self, trial: int) -> None:
        """Count a step that its optimizer did not take."""
        self._optimizers[trial].skip()

    def settle(self, trial: int) -> None:
        """Give a trial's optimizer its state, independent of the others'."""
        optimizer = self._optimizers[trial]
        if self._fresh[trial]:
            return
        for group, rule, state, steps in zip(
            optimizer.param_groups, self._rules, self._state, self._steps, strict=True
        ):
            kept, at = rule.kept(group), 0
            for p in group["params"]:
                own = {
                    name: rows[trial, at : at + p.numel()].view(p.shape).clone()
                    for name, rows in zip(rule.state, state, strict=True)
                    if name in kept
                }
                if rule.counter:
                    own[rule.counter] = torch.tensor(float(steps[trial]), dtype=torch.float32, device=p.device)
                if own:
                    optimizer.state[p].update(own)
                at += p.numel()

    def _update(self, grads: list[list[Tensor]], at: list[Columns], still: list[int]) -> None:
        for i, (rule, w, parts, state) in enumerate(zip(self._rules, self._weights, grads, self._state, strict=True)):
            g = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
            before = [x[still].clone() for x in (w, *state)] if still else []
            if still:
                g[still] = 0.0
            rule.update(w, g, state, at[i])
            for x, rows in zip((w, *state), before, strict=bool(still)):
                x[still] = rows

    def _update_rows(self, grads: list[list[Tensor]], number: int, still: list[int]) -> None:
        if not self._parts:  # of the weights and the state, which stay where they are
            for w, parts, state in zip(self._weights, grads, self._state, strict=True):
                widths = [g.shape[1] for g in parts]
                self._parts.append([[list(torch.split(x[k], widths)) for x in (w, *state)] for k in range(len(w))])
        for i, (rule, parts) in enumerate(zip(self._rules, grads, strict=True)):
            plan, counts = self._plans[i], torch.tensor(self._steps[i], dtype=torch.float32) + 1
            rows = zip(*(g.unbind() for g in parts), strict=True)
            for k, (g, own, step) in enumerate(zip(rows, self._parts[i], counts.unbind(), strict=True)):
                if k not in still:
                    at = {name: values[number][k] for name, values in plan.items()}
                    rule.update_row(own[0], list(g), own[1:], at, step)

    def _gathered(self, index: int, rule: Rule) -> list[Tensor]:
        """State of a group as rows; state that a trial does not have yet is 0."""
        rows = []
        for name in rule.state:
            found = torch.zeros_like(self._weights[index])
            for k, optimizer in enumerate(self._optimizers):
                at = 0
                for p in optimizer.param_groups[index]["params"]:
                    if name in optimizer.state.get(p, {}):
                        found[k, at : at + p.numel()] = optimizer.state[p][name].reshape(-1)
                    at += p.numel()
            rows.append(found)
        return rows

    def _counted(self, index: int, rule: Rule) -> list[int]:
        counts = []
        for optimizer in self._optimizers:
            params = optimizer.param_groups[index]["params"]
            own = {int(optimizer.state.get(p, {}).get(rule.counter, 0)) if rule.counter else 0 for p in params}
            if len(own) > 1:
                raise Unpackable("parameters that have taken different numbers of steps")
            counts.append(own.pop() if own else 0)
        return counts


def _names(group: Mapping[str, Any]) -> set[str]:
    return {*group, *(BETAS if "betas" in group else ())}


def _value(group: Mapping[str, Any], name: str) -> float:
    inside = name in BETAS and "betas" in group
    return float(group["betas"][BETAS.index(name)] if inside else group[name])
