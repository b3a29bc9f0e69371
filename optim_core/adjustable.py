"""Hyperparameters that change during training, or differ between parameter groups."""

from __future__ import annotations

from typing import Any, ClassVar

BETAS = ("beta1", "beta2")
OWN = "own"
"""Key of a parameter group: the hyperparameters that were set for it explicitly."""


class Adjustable:
    """Mixin for an optimizer whose hyperparameters are in `param_groups`."""

    CHANGEABLE: ClassVar[frozenset[str]] = frozenset({"lr"})
    """Hyperparameters (of those it has) that are read at every step, so that `change` takes effect."""
    GROUPABLE: ClassVar[frozenset[str]] = frozenset({"lr", "momentum", "weight_decay", "beta1", "beta2", "eps"})
    """Hyperparameters (of those it has) that are read from each parameter's group (see `groups`)."""
    param_groups: list[dict[str, Any]]

    def change(self, **values: float) -> None:
        """Change hyperparameters in CHANGEABLE during training. Raises ValueError for any other one.

        Parameter groups with an explicit value (see `groups`) keep it.
        """
        for name, value in values.items():
            inside = name in BETAS and all("betas" in group for group in self.param_groups)
            if name not in self.CHANGEABLE or not (inside or all(name in group for group in self.param_groups)):
                raise ValueError(f"{name} of {type(self).__name__} cannot change while it trains")
            for group in self.param_groups:
                if name not in group.get(OWN, ()):
                    self.set_in_group(group, name, value)

    def divided(self) -> None:
        """Called after its parameter groups were divided, before the first step (see `groups`). Raises ValueError if
        unsupported.
        """

    def set_in_group(self, group: dict[str, Any], name: str, value: Any) -> None:
        """Set a value in one parameter group. Raises ValueError for a hyperparameter that it does not have."""
        if name in BETAS and "betas" in group:
            group["betas"] = tuple(value if n == name else b for n, b in zip(BETAS, group["betas"], strict=True))
        elif name in group:
            group[name] = value
        else:
            raise ValueError(f"{name} of {type(self).__name__} has no meaning with these settings")
