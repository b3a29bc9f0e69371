"""Methods for the matrices of hidden layers, with AdamW for everything else, so that they train any model.

The rest (embeddings, the head, biases and norms) moves with lr * adamw_lr_scale. The head is the last weight with two
or more axes, unless the model has an embedding with a table that no linear layer matches: then the table is also the
head (tied by a function call), and the last matrix is a hidden one.
"""

from __future__ import annotations

from typing import Any, ClassVar, Self

from torch import Tensor, nn

from optim_core.declarations import NOT_NEGATIVE, SHARE
from optim_core.layerwise import LayerWise
from optim_core.ranges import check_not_negative, check_positive, check_share


class HiddenMatrices(LayerWise):
    """Two parameter groups: hidden matrices and the rest. Groups without a flag `hidden` are split by number of axes.

    lr, weight_decay, adamw_lr_scale >= 0; momentum, betas in [0, 1). The `momentum` of the second group is its beta1:
    momentum schedulers expect it there.
    """

    CHANGEABLE = frozenset({"lr", "weight_decay"})
    GROUPABLE = CHANGEABLE
    BOUNDS: ClassVar = {
        "momentum": SHARE, "beta1": SHARE, "beta2": SHARE, "weight_decay": NOT_NEGATIVE, "adamw_lr_scale": NOT_NEGATIVE
    }  # fmt: skip
    WIDENS = False

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add the group, or its matrices and the rest as two groups if it has no flag `hidden`.

        Raises ValueError for a hidden parameter that is not a matrix.
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
                raise ValueError(f"a hidden parameter has the shape {flat[0]}; hidden ones must have two or more axes")
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
        super().check_values(**values)
        check_not_negative(**{k: values[k] for k in ("lr", "weight_decay", "adamw_lr_scale") if k in values})
        check_share(**{k: values[k] for k in ("momentum", "beta1", "beta2") if k in values})
        check_positive(**{k: values[k] for k in ("eps",) if k in values})

    @classmethod
    def from_model(cls, model: nn.Module | list[nn.Module], **hyperparameters: Any) -> Self:
        """Hidden matrices of `model` in the first group, the rest in the second."""
        if isinstance(model, list):
            raise TypeError(f"{cls.__name__} trains one model; a list of players needs an optimizer for games")
        chosen = set(hidden_matrices(model))
        named = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
        groups = [{"params": [x for x in named if (x[1] in chosen) is flag], "hidden": flag} for flag in (True, False)]
        return cls(groups, **hyperparameters)

    def takes(self, group: dict[str, Any], p: Tensor) -> bool:
        """The hidden ones."""
        return bool(group["hidden"])

    def settings_of_the_rest(self, group: dict[str, Any]) -> dict[str, Any]:
        """Its beta1 is named momentum."""
        return {**group, "base": "adamw", "betas": (group["momentum"], group["beta2"])}


def _tensor(member: Any) -> Tensor:
    """The tensor of a parameter, or of a pair of name and parameter."""
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
