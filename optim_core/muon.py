"""Muon on the matrices of hidden layers, AdamW on everything else, so that it trains any model (Jordan et al. 2024).

    matrices:  B <- momentum B + (1 - momentum) G;  M = momentum B + (1 - momentum) G
               W <- (1 - lr weight_decay) W - lr s NS(M),   NS(M) about U V^T of M by five Newton-Schulz steps
    the rest:  AdamW with lr * adamw_lr_scale (embeddings, the head, biases, norms)

    s = sqrt(max(1, m / n))  (adjust_lr: original)   or   0.2 sqrt(max(m, n))  (match_rms_adamw; Liu et al. 2025)

Agrees with torch's `Muon` and AdamW bit for bit, and step by step with the author's code (github.com/KellerJordan/Muon,
see tests/golden/agreement). Convolutions are seen as [m, n] = (out, in * height * width), also in s, where that code
takes height and width for m and n. The head is the last weight with two or more axes, unless the model has an embedding
whose table no linear layer matches: then the table is the head too (tied by a function call), and the last matrix is a
hidden one. A step costs 4 m n min(m, n) + 2 min(m, n)^3 multiplications for each of the five iterations.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from optim_core.base import Closure, Counting, Params
from optim_core.declarations import NOT_NEGATIVE, SHARE
from optim_core.descent import descend
from optim_core.kernels import full_precision, refuse_sparse
from optim_core.linalg import newton_schulz
from optim_core.ranges import check_not_negative, check_positive, check_share
from optim_core.registry import register

ADJUST = ("original", "match_rms_adamw")
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@register("muon")
class Muon(Counting):
    """Two parameter groups: hidden matrices and the rest. Groups without a flag `hidden` are split by their axes.

    lr, weight_decay, adamw_lr_scale >= 0; momentum, betas in [0, 1). adjust_lr: `match_rms_adamw` gives matrices
    updates of AdamW's size, so that one lr suits both groups; `original` is the author's. newton_schulz_dtype is
    bfloat16, float32 or float64. The `momentum` of the second group is its beta1: schedulers of momentum look there.
    """

    CHANGEABLE = frozenset({"lr", "weight_decay"})
    GROUPABLE = CHANGEABLE
    BOUNDS: ClassVar = {
        "momentum": SHARE, "beta1": SHARE, "beta2": SHARE, "weight_decay": NOT_NEGATIVE, "adamw_lr_scale": NOT_NEGATIVE
    }  # fmt: skip

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        adjust_lr: str = "match_rms_adamw",
        adamw_lr_scale: float = 1.0,
        newton_schulz_dtype: str = "bfloat16",
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        given = {k: v for k, v in locals().items() if k not in ("self", "params", "__class__")}
        self.check_values(**given)
        super().__init__(params, given)

    def direction(self, group: dict[str, Any], state: dict[str, Any], update: Tensor) -> Tensor:
        """What is made of NS(M) [m, n] before it is scaled by lr s; variants of Muon differ here."""
        return update

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the group, or its matrices and the rest of it as two groups when it has no flag `hidden`.

        Raises ValueError for a hidden parameter that is no matrix.
        """
        params = param_group["params"]
        given = [params] if isinstance(params, Tensor) else list(params)
        if "hidden" in param_group:
            parts = {bool(param_group["hidden"]): given}
        else:
            parts = {hidden: [x for x in given if (_tensor(x).ndim > 1) is hidden] for hidden in (True, False)}
        for hidden, members in parts.items():
            flat = [tuple(_tensor(x).shape) for x in members if hidden and _tensor(x).ndim < 2]
            if flat:
                raise ValueError(f"a hidden parameter has the shape {flat[0]}; Muon moves those with two axes or more")
            if members:
                values = {**self.defaults, **param_group, "params": members, "hidden": hidden}
                if not hidden:
                    values["lr"] *= values["adamw_lr_scale"]
                    values["momentum"] = values["beta1"]
                super().add_param_group(values)

    def set_in_group(self, group: dict[str, Any], name: str, value: Any) -> None:
        """As the base class does; lr is scaled outside the matrices."""
        scale = group["adamw_lr_scale"] if name == "lr" and not group["hidden"] else 1.0
        super().set_in_group(group, name, value if scale == 1 else value * scale)

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        check_not_negative(**{k: values[k] for k in ("lr", "weight_decay", "adamw_lr_scale") if k in values})
        check_share(**{k: values[k] for k in ("momentum", "beta1", "beta2") if k in values})
        check_positive(**{k: values[k] for k in ("eps",) if k in values})
        for name, choices in (("adjust_lr", ADJUST), ("newton_schulz_dtype", tuple(DTYPES))):
            if values.get(name, choices[0]) not in choices:
                raise ValueError(f"{name} is {values[name]!r}; it has to be one of {', '.join(choices)}")

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Hidden matrices of `model` in the first group, the rest in the second."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        chosen = set(hidden_matrices(model))
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [{"params": [x for x in named if (x[1] in chosen) is flag], "hidden": flag} for flag in (True, False)]
        return cls(groups, **hyperparameters)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step of both; returns the loss before it."""
        loss = self.evaluate(closure)
        refuse_sparse(self.param_groups)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None and p.numel() > 0]
            if group["hidden"]:
                with full_precision():
                    for p in params:
                        self._step_matrix(group, p)
            else:
                settings = {**group, "base": "adamw", "betas": (group["momentum"], group["beta2"])}
                descend(settings, params, [p.grad for p in params if p.grad is not None], self.state)
        return loss

    def _step_matrix(self, group: dict[str, Any], p: Tensor) -> None:
        """B, M and W of the module's formula."""
        assert p.grad is not None
        buffer = self.state[p].setdefault("momentum_buffer", torch.zeros_like(p))
        buffer.lerp_(p.grad, 1 - group["momentum"])
        ahead = p.grad.lerp(buffer, group["momentum"]).reshape(p.shape[0], -1)
        m, n = ahead.shape
        size = math.sqrt(max(1, m / n)) if group["adjust_lr"] == "original" else 0.2 * math.sqrt(max(m, n))
        orthogonal = newton_schulz(ahead, dtype=DTYPES[group["newton_schulz_dtype"]])
        update = self.direction(group, self.state[p], orthogonal)
        p.mul_(1 - group["lr"] * group["weight_decay"])
        p.add_(update.reshape(p.shape), alpha=-group["lr"] * size)


def _tensor(member: Any) -> Tensor:
    """Of a parameter, or a pair of name and parameter."""
    found: Tensor = member[1] if isinstance(member, tuple) else member
    return found


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """Weights with two or more axes that are neither embeddings nor the head."""
    tables = [m.weight for m in model.modules() if isinstance(m, nn.Embedding)]
    heads = {m.out_features for m in model.modules() if isinstance(m, nn.Linear)}
    tied = any(t.shape[0] not in heads for t in tables) and not any(t.shape[0] in heads for t in tables)
    matrices: list[Tensor] = [
        p for p in model.parameters() if p.ndim > 1 and p.requires_grad and not any(p is t for t in tables)
    ]
    shared = {p for m in model.modules() if isinstance(m, nn.Linear) for p in [m.weight]} & set(tables)
    return matrices if tied or shared else matrices[:-1]
