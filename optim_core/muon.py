"""Muon on the matrices of hidden layers, AdamW on everything else, so that it trains any model (Jordan et al. 2024).

    matrices:  U V^T of the Nesterov momentum by five Newton-Schulz steps, times lr and the scale of `adjust_lr`
    the rest:  AdamW with lr * adamw_lr_scale (embeddings, the head, biases, norms)

torch's own `Muon` and fused AdamW take the steps. Convolutions are seen as (out, in * height * width). The head is the
last weight with two or more axes, unless the model has an embedding whose table no linear layer matches: then the table
is the head too (tied by a function call), and the last matrix is a hidden one.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from optim_core.base import Closure, Counting, Params, check_not_negative, check_positive, check_share
from optim_core.declarations import NOT_NEGATIVE, SHARE
from optim_core.registry import register

ADJUST = ("original", "match_rms_adamw")


@register("muon")
class Muon(Counting):
    """Two parameter groups: hidden matrices and the rest; built directly, matrices are told by their axes alone.

    lr, weight_decay, adamw_lr_scale >= 0; momentum, betas in [0, 1). adjust_lr: `match_rms_adamw` gives matrices
    updates of AdamW's size, so that one lr suits both groups; `original` is the author's sqrt(max(1, out / in)).
    """

    def __init__(
        self,
        params: Params,
        *,
        lr: float = 1e-3,
        momentum: float = 0.95,
        weight_decay: float = 0.1,
        adjust_lr: str = "match_rms_adamw",
        adamw_lr_scale: float = 1.0,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
    ) -> None:
        self.check_values(**{k: v for k, v in locals().items() if k not in ("self", "params", "__class__")})
        shared = {"lr": lr, "weight_decay": weight_decay}
        given: list[Any] = list(params)
        if not all(isinstance(item, dict) for item in given):
            tensors = [item[1] if isinstance(item, tuple) else item for item in given]
            given = [
                {"params": [p for p in tensors if (p.ndim > 1) is hidden], "hidden": hidden} for hidden in (True, False)
            ]
        groups = [g for g in given if g["params"]]
        for group in groups:
            own = {"momentum": momentum, "adjust_lr": adjust_lr}
            rest = {"beta1": beta1, "beta2": beta2, "eps": eps, "lr": lr * adamw_lr_scale}
            group.update({**shared, **(own if group["hidden"] else rest)})
        super().__init__(groups, {})
        self._adamw_lr_scale = adamw_lr_scale
        place = torch.zeros(1, 1)
        self._muon = torch.optim.Muon([place], adjust_lr_fn=adjust_lr)
        self._adamw = torch.optim.AdamW([place], fused=True)

    CHANGEABLE = frozenset({"lr", "weight_decay"})
    BOUNDS: ClassVar = {
        "momentum": SHARE, "beta1": SHARE, "beta2": SHARE, "weight_decay": NOT_NEGATIVE, "adamw_lr_scale": NOT_NEGATIVE
    }  # fmt: skip

    def change(self, **values: float) -> None:
        """Train on with another lr, scaled for the second group, or weight_decay."""
        super().change(**values)
        for group in self.param_groups:
            if "lr" in values and not group["hidden"]:
                group["lr"] *= self._adamw_lr_scale

    @classmethod
    def check_values(cls, **values: Any) -> None:
        """Raise ValueError for a hyperparameter outside its range."""
        check_not_negative(**{k: values[k] for k in ("lr", "weight_decay", "adamw_lr_scale") if k in values})
        check_share(**{k: values[k] for k in ("momentum", "beta1", "beta2") if k in values})
        check_positive(**{k: values[k] for k in ("eps",) if k in values})
        if values.get("adjust_lr", ADJUST[0]) not in ADJUST:
            raise ValueError(f"adjust_lr is {values['adjust_lr']!r}; it has to be one of {', '.join(ADJUST)}")

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Hidden matrices of `model` in the first group, the rest in the second."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        chosen = set(hidden_matrices(model))
        params = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in params if (p in chosen) is hidden], "hidden": hidden} for hidden in (True, False)
        ]
        return cls(groups, **hyperparameters)

    @torch.no_grad()
    def step(self, closure: Closure | None = None) -> Tensor:  # type: ignore[override]
        """One step of both; returns the loss before it."""
        loss = self.evaluate(closure)
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if group["hidden"]:
                self._step_matrices(group, params)
            else:
                settings = {**self._adamw.defaults, **group, "betas": (group["beta1"], group["beta2"])}
                self._adamw.param_groups = [{**settings, "params": params}]
                self._adamw.state = self.state
                self._adamw.step()
        return loss

    def _step_matrices(self, group: dict[str, Any], params: list[Tensor]) -> None:
        """Take the step of torch's Muon on matrix views, which share storage and state with the parameters."""
        views = []
        for p in params:
            view = p.detach().view(p.shape[0], -1)
            assert p.grad is not None
            view.grad = p.grad.reshape(p.shape[0], -1)
            views.append(view)
        self._muon.param_groups = [
            {**self._muon.defaults, **group, "adjust_lr_fn": group["adjust_lr"], "params": views}
        ]
        self._muon.state = defaultdict(dict, {v: self.state[p] for v, p in zip(views, params, strict=True)})
        self._muon.step()  # type: ignore[no-untyped-call]


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
