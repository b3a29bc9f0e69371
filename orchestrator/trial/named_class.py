"""Find the class of a task or optimizer by name."""

from __future__ import annotations

import optim_core
import trainables


def class_of(name: str) -> type | None:
    """The class of a task or optimizer, before any wrapping; None for an unknown name."""
    inner = name
    while inner.endswith(")") and "(" in inner:  # wrapper(name)
        inner = inner[inner.index("(") + 1 : -1]
    may_be_task = ":" in inner or inner in trainables.names()  # else its lookup searches for what may have been meant
    for lookup in (trainables.lookup, optim_core.lookup) if may_be_task else (optim_core.lookup,):
        try:
            cls: type = lookup(inner)
        except KeyError:
            continue
        written: type = getattr(cls, "__signature_of__", cls)
        return written
    return None
