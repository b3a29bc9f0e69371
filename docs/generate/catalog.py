"""Pages and tables made of the registries: tasks, diagnostics, the presets of LLQR."""

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
    """The page of the bundled tasks."""
    lines = [
        "# Tasks", "",
        "The bundled tasks, made of their classes. Parameters stand under `task:` in a [sweep file](sweep_file.md); "
        "those that leave the question as it is, so that each arm may search its own, are *free*. A task of your own: "
        "[how](../own_task.md).", "",
    ]  # fmt: skip
    for name in registered():
        cls = trainables.lookup(name)
        if not trainables.is_bundled(name):
            continue
        lines += [f"## {name}", "", paragraphs(cls), ""]
        metrics = [f"`{metric}` ({one.goal}, {one.worst:g} when diverged)" for metric, one in metrics_of(cls).items()]
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
    """The metrics of a task, where they are known of the class."""
    found = getattr(cls, "METRICS", {})
    return found if isinstance(found, Mapping) else {}


def diagnostics() -> str:
    """The page of diagnostics."""
    lines = [
        "# Diagnostics", "",
        "What `diagnostics: {names: [...]}` in a [sweep file](sweep_file.md#diagnostics) measures while trials train, "
        "logged as `geometry/...`. None of it is charged to the budget.", "",
    ]  # fmt: skip
    for name in measures.names():
        found = measures.lookup(name)
        home = inspect.getmodule(found)
        lines += [f"## {name}", "", paragraphs(home) or paragraphs(found), ""]
    return "\n".join(lines)


def presets() -> str:
    """What the presets of LLQR settle."""
    names = list(llqr_settings.PRESETS)
    resolved = {name: llqr_settings.resolve(name, "ngd", {}) for name in names}
    lines = [f"| hyperparameter | {' | '.join(names)} |", "|---|" + "---|" * len(names)]
    for key in llqr_settings.PRESETS["default"]:
        lines.append(f"| `{key}` | {' | '.join(shown(resolved[name][key]) for name in names)} |")
    return "\n".join(lines)


TABLES: Mapping[str, Callable[[], str]] = {"presets": presets}


def filled(page: str) -> str:
    """A page with its `<!-- catalog: NAME -->` replaced."""
    return MARK.sub(lambda found: TABLES[found[1]](), page)
