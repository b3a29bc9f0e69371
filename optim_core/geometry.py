"""The learned geometry shared by LLQR and LLQR+SAM: when U is refreshed, on which batches, and how it is applied.

Every `refresh_interval` steps, by a counter in the state, the inner problem of `relaxation` is solved from the current
U on fresh batches, with the model in evaluation mode (BatchNorm's running statistics, no dropout), outside autocast and
in float32 or wider. Then

    U <- (1 - ema_rate) U + ema_rate U_new,   diagonals clamped to [floor, ceiling]

A refresh changes only U: not weights, gradients, buffers, random state or the base optimizer's buffers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from optim_core import llqr_settings as settings
from optim_core.base import Counting, Params
from optim_core.curvature import (
    METRICS,
    Curvature,
    GaussNewton,
    Loss,
    bends,
    module_without_products,
    named_weights,
)
from optim_core.declarations import COUNT, NOT_NEGATIVE, SHARE, HeatMap
from optim_core.descent import BOUNDS, CHANGEABLE, base_defaults
from optim_core.preconditioners import Factors, Structure, block
from optim_core.ranges import check_ranges, choice
from optim_core.refresh_batches import Batches, Source
from optim_core.relaxation import Inner, Objective, Scale, descend, samples_of
from optim_core.undisturbed import Widened, head, undisturbed, wide, widen

PREFIX = "geometry_"
WARM_NORMS = 20
"""Steps before the first refresh of a model with running statistics: about one epoch of a small task."""


class LearnedGeometry(Counting):
    """A `Counting` optimizer with a learned preconditioner; `LLQR` and `LLQRSAM` build on it.

    `refresh_batches` is a callable index -> (inputs, targets), which makes a resumed run exact because the index is in
    the state, or an iterable of such pairs, restarted when it ends; a resumed run then continues with whatever the
    iterable gives. Batches have the nominal size and are on the model's device. `loss(outputs, targets)` is a mean.
    Under `DistributedDataParallel` the first worker's solution is sent to all.
    """

    NOT_SHARDED = "products with its curvature treat the model as a function of whole weights, which sharding replaces"
    REFRESH_INTERVAL = "refresh_interval"
    CHANGEABLE = CHANGEABLE | {
        "refresh_interval", "ema_rate", "damping", "curvature_scale", "inner_lr", "inner_momentum"
    }  # fmt: skip
    BOUNDS: ClassVar = {
        **BOUNDS, "refresh_interval": COUNT, "ema_rate": SHARE, "damping": NOT_NEGATIVE, "inner_momentum": SHARE,
        "inner_steps": COUNT, "n_grads": COUNT,
    }  # fmt: skip
    HEAT_MAP = HeatMap(
        across="refresh_interval",
        across_means="optimizer steps between refreshes",
        up="ema_rate",
        up_means="weight of the newest solution",
    )

    def __init__(
        self,
        params: Params,
        own: Mapping[str, Any] = MappingProxyType({}),
        /,
        *,
        lr: float = 0.1,
        base: str = "sgd",
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        preset: str = "default",
        structure: str | None = None,
        factor_limit: int | None = None,
        metric: str = "ngd",
        metric_scale: str | None = None,
        curvature_scale: float | None = None,
        damping: float | None = None,
        refresh_interval: int | None = None,
        first_refresh: int | None = None,
        ema_rate: float | None = None,
        first_refresh_full: bool | None = None,
        inner_steps: int | None = None,
        inner_lr: float | None = None,
        inner_momentum: float | None = None,
        inner_clip: float | None = None,
        n_grads: int | None = None,
        warm_start: bool | None = None,
        floor: float | None = None,
        ceiling: float | None = None,
        positive: bool | None = None,
        decrease_check: bool | None = None,
        action_dtype: str = "auto",
        model: nn.Module,
        loss: Loss,
        refresh_batches: Batches,
    ) -> None:
        given = {key: value for key, value in locals().items() if key in settings.PRESETS["default"]}
        defaults = base_defaults(
            base=base, lr=lr, momentum=momentum, weight_decay=weight_decay, beta1=beta1, beta2=beta2, eps=eps
        )
        choice("action_dtype", action_dtype, settings.ACTION_DTYPES)
        learned = {**settings.resolve(preset, metric, given), "action_dtype": action_dtype}
        if not isinstance(model, nn.Module):
            raise TypeError(f"model is {type(model).__name__}; {type(self).__name__} needs the torch.nn.Module itself")
        if not callable(loss):
            raise TypeError("loss must be a function of (outputs, targets) that returns their mean loss")
        self._batches = Source(refresh_batches)
        self._parallel = model if isinstance(model, DistributedDataParallel) else None
        model = getattr(model, "_orig_mod", model)  # unwrap a compiled model, which has no second derivatives
        self._model: nn.Module = model.module if isinstance(model, DistributedDataParallel) else model
        self._loss = loss
        self._owners = owners(self._model)
        self._blocks: dict[Tensor, Structure] = {}
        self._narrow: dict[Tensor, tuple[Any, Factors]] = {}
        self._has_statistics = any(getattr(m, "running_mean", None) is not None for m in model.modules())
        super().__init__(params, {**defaults, **learned, **own})
        counters = {"steps": 0, "refreshes": 0, "discarded_refreshes": 0, "refresh_step": -1, "drawn": 0}
        self.param_groups[0].update(counters, frozen=False, objective_before=math.nan, objective_after=math.nan)

    check_values = staticmethod(check_ranges)

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Over the parameters of `model`; `loss` and `refresh_batches` are required."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        missing = [name for name in ("loss", "refresh_batches") if name not in hyperparameters]
        if missing:
            raise TypeError(f"{cls.__name__} needs {' and '.join(missing)}: it measures curvature on its own batches")
        params = [p for p in model.parameters() if p.requires_grad]
        return cls(params, **{"model": model, **hyperparameters})

    @classmethod
    def cost_per_step(cls, **hyperparameters: Any) -> float:
        """Gradient evaluations per step with the refreshes amortized."""
        return settings.cost_per_step(cls.gradients_of(hyperparameters), hyperparameters)

    @classmethod
    def steps_within(cls, budget: float, **hyperparameters: Any) -> int:
        """Steps with the refreshes as they fall due, which are expensive: the first one comes before the first step."""
        return settings.steps_within(budget, cls.gradients_of(hyperparameters), hyperparameters)

    @classmethod
    def gradients_of(cls, hyperparameters: Mapping[str, Any]) -> float:
        """Gradient evaluations per step without its refresh, by hyperparameters."""
        return cls.GRAD_EVALS

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch does; `structure` and `factor_limit` may differ between groups, the refresh settings may not."""
        super().add_param_group(param_group)
        group, first = self.param_groups[-1], self.param_groups[0]
        settings.check(group)
        for key in (*settings.PRESETS["default"], "metric", "apply_to", "action_dtype"):
            if key not in settings.LOCAL and group.get(key) != first.get(key):
                raise ValueError(f"{key} is {group[key]} in one group and {first[key]} in another; it must be one")
        for p in group["params"]:
            if p not in self._owners:
                raise ValueError(f"a parameter of shape {tuple(p.shape)} does not belong to the model")

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:  # type: ignore[override]
        """As the base class does; the structure is that of the loaded state."""
        super().load_state_dict(state_dict)
        self._blocks.clear()
        self._narrow.clear()

    @property
    def refreshes(self) -> int:
        """Refreshes that changed U."""
        return int(self.param_groups[0]["refreshes"])

    @property
    def discarded_refreshes(self) -> int:
        """Refreshes discarded because J did not decrease or was not finite."""
        return int(self.param_groups[0]["discarded_refreshes"])

    @property
    def last_objective(self) -> tuple[float, float]:
        """J before and after the latest refresh on its own batches, in units of `metric_scale`; nan before the first
        one.
        """
        return self.param_groups[0]["objective_before"], self.param_groups[0]["objective_after"]

    def next_cost(self) -> float:
        """Gradient evaluations of the next step, including its refresh if one is due."""
        return self.gradients_per_step() + (settings.refresh_cost(self.param_groups[0]) if self._due() else 0.0)

    def gradients_per_step(self) -> float:
        """Gradient evaluations per step without its refresh."""
        return self.gradients_of(self.param_groups[0])

    def freeze(self) -> None:
        """Keep U unchanged from now on."""
        self.param_groups[0]["frozen"] = True

    def displacement(self) -> dict[str, float]:
        """Distance of U from the identity: root mean square over its entries, by factor and weight's name."""
        names = {p: name for name, p in self._model.named_parameters()}
        found: dict[str, float] = {}
        for group in self.param_groups:
            for p in group["params"]:
                kept = self._factors(p)
                start = self._block(p, group).identity(wide(p)) if kept else {}
                for key, factor in kept.items():
                    found[f"{names[p]}/{key}"] = float((factor - start[key]).square().mean().sqrt())
        return found

    @torch.no_grad()
    def begin_step(self) -> None:
        """Check the setup before the first step, refresh U if one is due, and count the step."""
        group = self.param_groups[0]
        if group["steps"] == 0 and group["ema_rate"] > 0 and not group["frozen"]:
            with undisturbed(self._model):
                self._probe()
        if self._due():
            self.charge(settings.refresh_cost(group))
            group["refresh_step"] = group["steps"]
            with undisturbed(self._model):
                self._refresh()
        self.counted(0, "steps")

    def precondition(self, group: dict[str, Any], params: Sequence[Tensor], vectors: Sequence[Tensor]) -> list[Tensor]:
        """U v for each parameter of a group, in new tensors; the vectors themselves while U is the identity."""
        found, scales, places = list(vectors), [], []
        for i, (p, v) in enumerate(zip(params, vectors, strict=True)):
            factors = self._factors(p)
            if not factors:
                continue
            made = self._block(p, group)
            if made.ELEMENTWISE and factors["scale"].dtype == v.dtype:
                scales.append(factors["scale"])
                places.append(i)
            else:
                if group.get("action_dtype") == "bfloat16" and v.ndim > 1:
                    factors = self._narrowed(p, factors)
                found[i] = made.act(factors, v.to(next(iter(factors.values())).dtype)).to(v.dtype)
        if scales:
            for i, product in zip(places, torch._foreach_mul([vectors[i] for i in places], scales), strict=True):
                found[i] = product
        return found

    def owner(self, p: Tensor) -> nn.Module:
        """The module that a parameter belongs to: its layer."""
        return self._owners[p]

    def must_know(self) -> bool:
        """Also before the first step, and when U is learned."""
        return super().must_know() or self.param_groups[0]["steps"] == 0 or self._due()

    def _due(self) -> bool:
        """Whether U is learned in this step; a counter that is too high may make it early, never late."""
        if self._seems_due():
            self._settled()
        return self._seems_due()

    def _seems_due(self) -> bool:
        group = self.param_groups[0]
        if group["frozen"] or group["ema_rate"] == 0:
            return False
        if group["refresh_step"] < 0:
            return bool(group["steps"] >= self._first_refresh())
        return bool(group["steps"] - group["refresh_step"] >= group["refresh_interval"])

    def _first_refresh(self) -> int:
        """Step of the first refresh; running statistics that have seen too few batches would distort it."""
        group = self.param_groups[0]
        if group["first_refresh"] >= 0:
            return int(group["first_refresh"])
        return min(int(group["refresh_interval"]), WARM_NORMS) if self._has_statistics else 0

    def _block(self, p: Tensor, group: Mapping[str, Any]) -> Structure:
        if p not in self._blocks:
            self._blocks[p] = block(group["structure"], p, self._owners[p], group["factor_limit"])
        return self._blocks[p]

    def _narrowed(self, p: Tensor, factors: Factors) -> Factors:
        """The factors in bfloat16, recomputed if a refresh has changed them."""
        stamp = tuple((id(f), f._version) for f in factors.values())
        if p not in self._narrow or self._narrow[p][0] != stamp:
            self._narrow[p] = stamp, {k: f.to(torch.bfloat16) for k, f in factors.items()}
        return self._narrow[p][1]

    def _factors(self, p: Tensor) -> Factors:
        kept = self.state.get(p, {})
        return {k.removeprefix(PREFIX): v for k, v in kept.items() if k.startswith(PREFIX)}

    def _curvature(self, inputs: Any, targets: Any) -> tuple[Curvature, list[Tensor]]:
        """The curvature at the current weights, and the parameters in the order of its vectors."""
        own = [p for g in self.param_groups for p in g["params"] if p.requires_grad]
        named = named_weights(self._model, own)
        params = list(named.values())
        if any(p.dtype != wide(p).dtype for p in self._model.parameters()):
            model: nn.Module = Widened(self._model)
            named = {f"model.{k}": wide(p).requires_grad_() for k, p in named.items()}
            inputs = widen(inputs)
        else:
            model = self._model
        return METRICS[self.param_groups[0]["metric"]](model, named, self._loss, inputs, targets), params

    def _probe(self) -> None:
        """Try one product before any weight has moved, so that what cannot work is reported early.

        On the first samples, or on the whole batch if these alone are not a valid batch (targets flattened over time,
        inputs with time first, masks).
        """
        batch = self._batches.peek(int(self.param_groups[0]["drawn"]))
        try:
            self._try(*(head(part) for part in batch))
        except Exception:
            self._try(*batch)

    def _try(self, inputs: Any, targets: Any) -> None:
        try:
            curvature, _ = self._curvature(inputs, targets)
            curvature.product([torch.ones_like(g) for g in curvature.gradient])
        except RuntimeError as error:
            name = module_without_products(self._model, {}, inputs)
            if name is None:
                raise
            raise RuntimeError(
                f"no Jacobian-vector product through {name}: {error}. Replace that module by one that torch can "
                "differentiate twice, or exclude its parameters from this optimizer"
            ) from error
        if isinstance(curvature, GaussNewton) and not bends(self._loss, curvature.outputs, targets):
            raise ValueError(
                "the loss has no curvature in the model's outputs, so the Gauss-Newton matrix is zero (for example "
                "with nll_loss of log-probabilities): let the model return logits and use cross_entropy, or metric "
                "newton"
            )

    def _refresh(self) -> None:
        group = self.param_groups[0]
        objectives, params = self._objectives()
        groups = {p: g for g in self.param_groups for p in g["params"]}
        blocks = [self._block(p, groups[p]) for p in params]
        present = [self._factors(p) or b.identity(wide(p)) for p, b in zip(params, blocks, strict=True)]
        start = present if group["warm_start"] else [b.identity(wide(p)) for p, b in zip(params, blocks, strict=True)]
        newest = [{k: f.clone() for k, f in own.items()} for own in start]
        inner = Inner(
            steps=int(group["inner_steps"]),
            lr=group["inner_lr"],
            momentum=group["inner_momentum"],
            clip=group["inner_clip"],
            clip_rms=group["metric_scale"] == "normalised",
        )
        objective = torch.stack(descend(blocks, newest, objectives, inner))
        self._agree([objective, *(f for own in newest for f in own.values())])
        values = objective.tolist()
        group["objective_before"], group["objective_after"] = values
        if group["decrease_check"] and not (math.isfinite(values[1]) and values[1] < values[0]):
            group["discarded_refreshes"] += 1
            return
        rate = 1.0 if group["first_refresh_full"] and group["refreshes"] == 0 else group["ema_rate"]
        group["refreshes"] += 1
        for p, made, old, new in zip(params, blocks, present, newest, strict=True):
            for key, factor in new.items():
                kept = factor if rate == 1 else old[key].lerp_(factor, rate)
                self.state[p][PREFIX + key] = kept
            made.clamp(self._factors(p), group["floor"], group["ceiling"], group["positive"])

    def _agree(self, tensors: Sequence[Tensor]) -> None:
        """Under `DistributedDataParallel` all workers take the first one's solution, so that U is the same on each."""
        if self._parallel is not None:
            for tensor in tensors:
                torch.distributed.broadcast(tensor, group=self._parallel.process_group, group_src=0)

    def _objectives(self) -> tuple[list[Objective], list[Tensor]]:
        group = self.param_groups[0]
        scale = Scale(kind=group["metric_scale"], curvature=group["curvature_scale"], damping=group["damping"])
        objectives: list[Objective] = []
        params: list[Tensor] = []
        for _ in range(int(group["n_grads"])):
            inputs, targets = self._batches.draw(int(group["drawn"]))
            group["drawn"] += 1
            curvature, params = self._curvature(inputs, targets)
            objectives.append(Objective(curvature, scale, samples_of(targets)))
        return objectives, params


def owners(model: nn.Module) -> dict[Tensor, nn.Module]:
    """Parameter -> its module: of several that share it, an embedding table if there is one, otherwise the first."""
    found: dict[Tensor, nn.Module] = {}
    for module in model.modules():
        for p in module.parameters(recurse=False):
            if p not in found or isinstance(module, nn.Embedding):
                found[p] = module
    return found
