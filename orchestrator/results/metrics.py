"""The metrics of a sweep: which is tuned, which is reported, their directions and bounds."""

from __future__ import annotations

from orchestrator.definition import task_record
from orchestrator.definition.resolved import Resolved
from orchestrator.definition.states import Goal
from orchestrator.storage.errors import NotFound
from orchestrator.storage.folder import SweepFolder


def reported(folder: SweepFolder, metric: str = "") -> tuple[str, Goal]:
    """(metric, goal) for the given metric, or the sweep's reported one. Raises NotFound if the task does not have
    it.
    """
    resolved = folder.resolved()
    name = metric or resolved.report_metric
    if imported := resolved.imported:
        if name not in imported.metrics:
            raise NotFound(
                f"{folder.sweep_id} was imported with {', '.join(imported.metrics)}; to use {name!r}, import it again "
                f"with --metric {name}:maximize, or :minimize"
            )
        return name, Goal(imported.metrics[name])
    try:
        known = task_record.of_sweep(resolved).metrics
    except KeyError as gone:
        raise NotFound(
            f"{folder.sweep_id} does not say what {name!r} is for, and its task cannot be imported: {gone.args[0]}; "
            "run this in the folder that has it"
        ) from None
    if name not in known:
        raise NotFound(
            f"the task of {folder.sweep_id} has no metric {name!r}; available: {', '.join(known)}{_way(resolved, name)}"
        )
    return name, known[name].goal


def _way(resolved: Resolved, metric: str) -> str:
    """How to add a metric to a script's sweep."""
    if not resolved.is_script:
        return ""
    return (
        "; for a script, the sweep file declares whether a higher or lower metric is better: "
        f"task: {{goals: {{{metric}: maximize}}}}, or minimize, under a new sweep name"
    )


def declared_bounds(folder: SweepFolder, metric: str) -> tuple[float, float] | None:
    """Lowest and highest value of a metric, as its task declares them; None if it does not."""
    resolved = folder.resolved()
    try:
        known = None if resolved.imported else task_record.of_sweep(resolved).metrics.get(metric)
    except KeyError:  # a task that no longer exists
        return None
    return known.bounds if known else None


def tuned(folder: SweepFolder) -> tuple[str, Goal]:
    """(metric, goal) that the search optimizes."""
    asked = folder.resolved().definition["metric"]
    return asked["name"], Goal(asked["goal"])
