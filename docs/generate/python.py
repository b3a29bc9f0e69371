"""The reference of `optim_core` in Python: its public names, from their docstrings."""

from __future__ import annotations

import inspect

import optim_core

FIRST = ("build", "names", "hyperparameters", "register", "Counting", "Limit", "Control", "HeatMap")
"""What most readers look for; everything else follows by its name."""
MODULES = ("optim_core.diagnostics.registry", "optim_core.rotations.base", "optim_core.preconditioners.base")
"""Where users add things of their own."""
HEAD = """# Python: optim_core

The optimizers for a training loop of one's own; [how to use them](../../optim_core/README.md). `optim_core` imports
torch and the standard library, nothing else of this project. The optimizers themselves: [methods](../methods/index.md).
"""


def page() -> str:
    """The page, in Markdown with the directives of mkdocstrings."""
    others = [name for name in optim_core.__all__ if name not in FIRST]
    names = [name for name in (*FIRST, *others) if not inspect.ismodule(getattr(optim_core, name))]
    lines = [HEAD, *(f"::: optim_core.{name}\n    options: {{heading: optim_core.{name}}}\n" for name in names)]
    return "\n".join([*lines, *(f"::: {module}\n" for module in MODULES)])
