"""Pages and tables generated from the registries: tasks, diagnostics, LLQR presets."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

import trainables
from docs.generate.methods import shown
from optim_core import diagnostics as measures
from optim_core import llqr_settings
from trainables.registry import registered

MARK = re.compile(r"<!-- catalog: (\S+) -->")


def paragraphs(documented: Any) -> str:
    """A docstring as Markdown."""
    return inspect.cleandoc(inspect.getdoc(documented) or "")


def tasks() -> str:
    """The page on bundled tasks."""
    lines = [
        "# Tasks", "",
        "The bundled tasks, generated from their classes. Set parameters under `task:` in a "
        "[sweep file](sweep_file.md). *Free* parameters do not change the question, so each arm may search its own. "
        "To write your own task, see [Sweep your own task](../own_task.md).", "",
    ]  # fmt: skip
    for name in registered():
        cls = trainables.lookup(name)
        if not trainables.is_bundled(name):
            continue
        lines += [f"## {name}", "", paragraphs(cls), ""]
        metrics = [f"`{metric}` ({one.goal}, {one.worst:g} if diverged)" for metric, one in metrics_of(cls).items()]
        lines += [f"**Metrics:** {', '.join(metrics)}.", ""] if metrics else []
        if parameters := trainables.parameters(name):
            lines += ["| parameter | default | |", "|---|---|---|"]
            free = cls.FREE or frozenset()
            lines += [
                f"| `{key}` | {shown(p.default)} | {'free' if key in free else ''} |" for key, p in parameters.items()
            ]
            lines += [""]
    return "\n".join(lines)


def metrics_of(cls: Any) -> Mapping[str, Any]:
    """The metrics of a task, if its class declares them."""
    found = getattr(cls, "METRICS", {})
    return found if isinstance(found, Mapping) else {}


def diagnostics() -> str:
    """The page on diagnostics."""
    lines = [
        "# Diagnostics", "",
        "Measurements that `diagnostics: {names: [...]}` in a [sweep file](sweep_file.md#diagnostics) takes during "
        "training and logs as `geometry/...`. They are not charged to the budget.", "",
    ]  # fmt: skip
    for name in measures.names():
        found = measures.lookup(name)
        home = inspect.getmodule(found)
        lines += [f"## {name}", "", paragraphs(home) or paragraphs(found), ""]
    return "\n".join(lines)


def presets() -> str:
    """The values that LLQR's presets set."""
    names = list(llqr_settings.PRESETS)
    resolved = {name: llqr_settings.resolve(name, "ngd", {}) for name in names}
    lines = [f"| hyperparameter | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for key in llqr_settings.PRESETS["default"]:
        lines.append(f"| `{key}` | {' | '.join(shown(resolved[name][key]) for name in names)} |")
    return "\n".join(lines)


TABLES: Mapping[str, Callable[[], str]] = {"presets": presets}


def filled(page: str) -> str:
    """Replace each `<!-- catalog: NAME -->` of a page."""
    return MARK.sub(lambda found: TABLES[found[1]](), page)
