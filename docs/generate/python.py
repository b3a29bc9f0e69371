"""The Python reference of `optim_core`: its public names, from their docstrings."""

from __future__ import annotations

import inspect

import optim_core

FIRST = ("build", "names", "hyperparameters", "register", "Counting", "Limit", "Control", "HeatMap")
"""The names most readers look for; the others follow."""
MODULES = ("optim_core.diagnostics.registry", "optim_core.rotations.base", "optim_core.preconditioners.base")
"""Modules that users extend."""
HEAD = """# Python: optim_core

Optimizers for your own training loop: [how to use them](../../optim_core/README.md), and [a page per
method](../methods/index.md). `optim_core` imports only torch and the standard library.
"""


def page() -> str:
    """The page, in Markdown with the directives of mkdocstrings."""
    others = [name for name in optim_core.__all__ if name not in FIRST]
    names = [name for name in (*FIRST, *others) if not inspect.ismodule(getattr(optim_core, name))]
    lines = [HEAD, *(f"::: optim_core.{name}\n    options: {{heading: optim_core.{name}}}\n" for name in names)]
    return "\n".join([*lines, *(f"::: {module}\n" for module in MODULES)])
