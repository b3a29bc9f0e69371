"""A whole step as one compiled graph: forward, backward, every pass of SAM, and the update, with nothing read back.

    step = optim_core.compiled_step(optimizer, model, loss)  # loss(outputs, targets), a mean
    value = step(inputs, targets)

`torch.compile` gets one function without graph breaks. A gradient that is not finite is detected and its step undone on
the device, as a GradScaler does with `found_inf`; `skipped_steps` reads the count on request. The numbers are those of
`optimizer.step(closure)` up to the compiler's rounding.

Not in the graph but run eagerly: the first step, which creates the state, and every step at which a rotation learns a
new basis. Learning rate, radius and decay may change between steps without recompiling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parallel import DistributedDataParallel

from optim_core.base import Counting
from optim_core.baselines import AdamW
from optim_core.rotated_adamw import RotatedAdamW
from optim_core.sam import SAM
from optim_core.sharded import is_sharded
from optim_core.two_pass import norm_of

COMPILED = (AdamW, SAM, RotatedAdamW)
Named = dict[str, Tensor]
Update = Callable[[int, list[Tensor], list[Tensor], Tensor, dict[str, Any]], None]


class CompiledStep:
    """The compiled step of `adamw`, `sam` or `rotated_adamw`; `options` go to `torch.compile`.

    Raises TypeError for another optimizer, ValueError for settings that the graph does not support.
    """

    def __init__(
        self, optimizer: Counting, model: nn.Module, loss: Callable[[Any, Any], Tensor], **options: Any
    ) -> None:
        if type(optimizer) not in COMPILED:
            names = ", ".join(sorted(kind.__name__ for kind in COMPILED))
            raise TypeError(f"{type(optimizer).__name__} has no compiled step; {names} have one")
        params = [p for g in optimizer.param_groups for p in g["params"]]
        if isinstance(model, DistributedDataParallel) or any(is_sharded(p) for p in params):
            raise ValueError("a compiled step supports one process; compile only the model under DDP or FSDP")
        if any(g.get("state_dtype", "auto") != "auto" for g in optimizer.param_groups):
            raise ValueError("state_dtype bfloat16 draws random bits outside the graph; use state_dtype auto")
        self.optimizer, self.model, self.loss = optimizer, getattr(model, "_orig_mod", model), loss
        self._norms = frozenset(
            f"{name}.{key}" if name else key
            for name, m in self.model.named_modules()
            if isinstance(m, _NormBase)
            for key, _ in m.named_buffers(recurse=False)
        )
        self._names = {p: name for name, p in self.model.named_parameters()}
        if missing := [tuple(p.shape) for p in params if p not in self._names]:
            raise ValueError(f"a parameter of shape {missing[0]} does not belong to the model")
        self._graph = torch.compile(self._whole, **{"fullgraph": True, **options})
        self._groups: list[list[Tensor]] | None = None
        self._skipped: Tensor | None = None
        self._steps: list[Tensor] = []
        self._seen: list[int] = []
        optimizer.__dict__["_settle"] = self.settle

    def __call__(self, inputs: Any, targets: Any) -> Tensor:
        """One step; the loss before it, detached."""

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss: Tensor = self.loss(self.model(inputs), targets)
            loss.backward()  # type: ignore[no-untyped-call]
            return loss

        step: Any = self.optimizer.step
        return self.taken(lambda: step(closure), lambda *given: self._graph(inputs, targets, *given))

    def taken(self, eagerly: Callable[[], Any], graph: Callable[..., tuple[Tensor, Tensor]]) -> Tensor:
        """A step by `eagerly`, or by `graph` of (parameters, numbers) of each group if one can be taken."""
        if self._groups is None or self._learns():
            return self._eagerly(eagerly)
        self._follow_counters()
        assert self._skipped is not None
        device = self._skipped.device
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            loss, good = graph(self._groups, [self._numbers(g, device) for g in self._kept()])
        self._skipped.add_(~good)
        self.optimizer.charge(self.optimizer.GRAD_EVALS)
        for i, steps in enumerate(self._steps):
            steps.add_(good)
            self.optimizer.param_groups[i]["step"] += 1  # an upper bound: `settle` subtracts skipped steps
            self._seen[i] += 1
        self.optimizer._opt_called = True  # type: ignore[attr-defined]  # what torch's schedulers look at
        return loss

    def settle(self) -> None:
        """Bring the optimizer's counters in line with the device's decisions."""
        if self._skipped is None:
            return
        skipped = int(self._skipped)
        self._skipped.zero_()
        for i, steps in enumerate(self._steps):
            if self.optimizer.param_groups[i]["step"] == self._seen[i]:
                self.optimizer.param_groups[i]["step"] = self._seen[i] = int(steps)
        for _ in range(skipped):
            self.optimizer.skip()

    def _eagerly(self, step: Callable[[], Any]) -> Tensor:
        self.settle()
        before = self.optimizer.skipped_steps
        loss = step()
        if self.optimizer.skipped_steps == before:
            self._groups = [[p for p in g["params"] if p.grad is not None] for g in self.optimizer.param_groups]
            if isinstance(self.optimizer, RotatedAdamW) and any(s.without_basis() for s in self.optimizer._spaces):
                self._groups = None
            if any("exp_avg" not in self.optimizer.state[p] for p in self._adam()):
                self._groups = None  # the first gradient was spent on a basis
            self._skipped = torch.zeros((), dtype=torch.int64, device=next(iter(self._names)).device)
        self.optimizer.zero_grad()
        return torch.as_tensor(loss).detach()

    def _adam(self) -> list[Tensor]:
        return [
            p
            for ps, g in zip(self._groups or [], self.optimizer.param_groups, strict=False)
            if "betas" in g
            for p in ps
        ]

    def _learns(self) -> bool:
        """Whether a rotation learns at this step; decided by the counter, and confirmed by the device if so."""
        if not isinstance(self.optimizer, RotatedAdamW):
            return False

        def due() -> bool:
            pairs = zip(self.optimizer._spaces, self.optimizer.param_groups, strict=True)  # type: ignore[attr-defined]
            return any(s.learns(g["step"] + 1) for s, g in pairs)

        if due():
            self.settle()
        return due()

    def _follow_counters(self) -> None:
        """Create the device's counters anew if a step was taken or a state loaded without them."""
        if not isinstance(self.optimizer, RotatedAdamW):
            return
        now = [int(g["step"]) for g in self.optimizer.param_groups]
        if now != self._seen:
            device = next(iter(self._names)).device
            self._seen = now
            self._steps = [torch.full((), float(n), dtype=torch.float32, device=device) for n in now]

    def _kept(self) -> list[tuple[int, dict[str, Any]]]:
        return list(enumerate(self.optimizer.param_groups))

    def _numbers(self, numbered: tuple[int, dict[str, Any]], device: torch.device) -> dict[str, Any]:
        """The numbers of a group that the graph needs, as tensors, so that no value is compiled in.

        With one axis: the compiler reads zero-dimensional CPU tensors in order to guard their values.
        """
        index, group = numbered
        assert self._groups is not None
        wide = torch.float32 if device.type == "mps" else torch.float64
        values: dict[str, Any] = {k: group[k] for k in ("lr", "momentum", "eps") if k in group}
        values |= {"coupled": group["weight_decay"], "decay": 1 - group["lr"] * group["weight_decay"]}
        values["radius"] = group.get("sam_radius", 0.0)
        for which, beta in enumerate(group.get("betas", ()), 1):
            values |= {f"beta{which}": beta, f"share{which}": 1 - beta}
        found: dict[str, Any] = {k: torch.full((1,), float(x), dtype=wide, device=device) for k, x in values.items()}
        own = [self.optimizer.state[p] for p in self._groups[index]]
        if "betas" in group:
            found |= {"means": [s["exp_avg"] for s in own], "squares": [s["exp_avg_sq"] for s in own]}
            found["steps"] = [self._steps[index]] if self._steps else [s["step"] for s in own]
        else:
            found["buffers"] = [s["momentum_buffer"] for s in own if "momentum_buffer" in s]
        return found

    def _whole(
        self, inputs: Any, targets: Any, groups: list[list[Tensor]], numbers: list[dict[str, Any]]
    ) -> tuple[Tensor, Tensor]:
        """The graph: (loss, whether every gradient was finite)."""
        numbers = [{k: v if isinstance(v, list) else v.reshape(()) for k, v in own.items()} for own in numbers]
        params = {self._names[p]: p for ps in groups for p in ps}
        before = dict(self.model.named_buffers())
        loss, grads, after = self._gradients(params, before, inputs, targets)
        good = all_finite(list(grads.values()))
        if isinstance(self.optimizer, SAM):
            norm = norm_of(list(grads.values()))
            good = norm.isfinite()
            away = {}
            for ps, own in zip(groups, numbers, strict=True):
                scale = own["radius"] / norm.clamp_min(1e-12)
                for p in ps:
                    name = self._names[p]
                    away[name] = torch.addcmul(p.detach(), grads[name], scale.to(p)).requires_grad_()
            perturbed = self.optimizer._statistics.keep == "perturbed"
            start = {k: before[k] if perturbed and k in self._norms else v for k, v in after.items()}
            _, grads, later = self._gradients(away, start, inputs, targets)
            good = good & all_finite(list(grads.values()))
            chosen = {k: after[k] if k in self._norms and not perturbed else later[k] for k in after}
            after = {k: torch.where(good, v, before[k]) if k in self._norms else v for k, v in chosen.items()}
        with torch.no_grad():
            for key, value in after.items():
                before[key].copy_(value)
            for index, (ps, own) in enumerate(zip(groups, numbers, strict=True)):
                gs = [grads[self._names[p]] for p in ps]
                if ps:
                    self._update(index, ps, gs, good, own)
        return loss.detach(), good

    def _gradients(self, params: Named, buffers: Named, inputs: Any, targets: Any) -> tuple[Tensor, Named, Named]:
        """(loss, gradients, new buffers) at these weights."""
        after = {k: b.clone() for k, b in buffers.items()}
        with torch.enable_grad():
            loss = self.loss(functional_call(self.model, {**params, **after}, (inputs,)), targets)
            grads = torch.autograd.grad(loss, list(params.values()))
        return loss, dict(zip(params, grads, strict=True)), after

    def _update(self, index: int, params: list[Tensor], grads: list[Tensor], good: Tensor, own: dict[str, Any]) -> None:
        if isinstance(self.optimizer, RotatedAdamW):
            return self._rotated(index, params, grads, good, own)
        if "means" in own:
            for step in own["steps"]:
                step.add_(good)
            return _descend(params, _moves(grads, good, own, own["steps"]), good, own)
        for i, (p, g) in enumerate(zip(params, grads, strict=True)):
            g = g + own["coupled"].to(p) * p
            if own["buffers"]:
                buffer = own["buffers"][i]
                g = torch.where(good, own["momentum"].to(p) * buffer + g, buffer)
                buffer.copy_(g)
            p.copy_(torch.where(good, p - own["lr"].to(p) * g, p))

    def _rotated(
        self, index: int, params: list[Tensor], grads: list[Tensor], good: Tensor, own: dict[str, Any]
    ) -> None:
        assert isinstance(self.optimizer, RotatedAdamW)
        space = self.optimizer._spaces[index]
        numbers = [own["steps"][0] + 1] * len(params)
        _descend(params, space.turn_back(_moves(space.turn(grads), good, own, numbers)), good, own)


def all_finite(tensors: Sequence[Tensor]) -> Tensor:
    """Whether every entry of every tensor is finite; on the device."""
    return torch.stack([t.isfinite().all() for t in tensors]).all()


def _descend(params: list[Tensor], moves: list[Tensor], good: Tensor, own: dict[str, Any]) -> None:
    """Decay, then move; neither if the step is skipped."""
    decay = torch.where(good, own["decay"], torch.ones_like(own["decay"]))
    for p, move in zip(params, moves, strict=True):
        p.mul_(decay.to(p)).add_(move.to(p.dtype))


def _moves(grads: list[Tensor], good: Tensor, own: dict[str, Any], steps: list[Tensor]) -> list[Tensor]:
    """Update the moments; returns -lr q of AdamW, 0 if the step is skipped. `steps`: each step's number, from 1."""
    found = []
    for g, m, v, step in zip(grads, own["means"], own["squares"], steps, strict=True):
        g, count = g.to(m.dtype), step.to(own["lr"].dtype)
        m.copy_(torch.where(good, m.lerp(g, own["share1"].to(m)), m))
        v.copy_(torch.where(good, v * own["beta2"].to(v) + own["share2"].to(v) * g * g, v))
        width = v.sqrt() / (1 - own["beta2"] ** count).sqrt().to(v) + own["eps"].to(v)
        size = (own["lr"] / (1 - own["beta1"] ** count)).to(m)
        found.append(torch.where(good, -size * m / width, torch.zeros_like(m)))
    return found
