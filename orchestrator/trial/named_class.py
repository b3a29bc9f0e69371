"""From the name of a task or an optimizer to its class."""

from __future__ import annotations

import optim_core
import trainables


def class_of(name: str) -> type | None:
    """The class behind the name of a task or an optimizer, as it was written; None for an unknown one."""
    inner = name
    while inner.endswith(")") and "(" in inner:  # wrapper(name)
        inner = inner[inner.index("(") + 1 : -1]
    for lookup in (trainables.lookup, optim_core.lookup):
        try:
            cls: type = lookup(inner)
        except KeyError:
            continue
        written: type = getattr(cls, "__signature_of__", cls)
        return written
    return None
