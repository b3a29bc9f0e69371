"""Send a report to the sweep's MLflow runs: figures and page to the parent, each arm's own figures to its summary
run.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestrator.compare.evidence import Evidence
from orchestrator.compare.report.report import build
from orchestrator.compare.told import charts, runs_of, verdict
from orchestrator.definition.states import Stage
from orchestrator.protocol import seal
from orchestrator.statistics.intervals import summarize
from orchestrator.tracking.mlflow_report import UntrackedError


def write(evidence: Evidence, to: Path | None, *, tracking: bool, **form: bool) -> tuple[Path, str]:
    """Write the report into the folder `to` (None: report/ of the sweep) and log it to MLflow. `form` as in `build`.

    Returns the path of report.html, and what could not be logged to MLflow.
    """
    path = build(evidence, to or evidence.folder.path / "report", charts=charts(evidence) if tracking else "", **form)
    if to is None:
        evidence.folder.upload("report")
    return path, publish(evidence, path.parent) if tracking else ""


def publish(evidence: Evidence, report: Path | None) -> str:
    """Log the verdict, the curves and the folder `report`, if there is one; returns what went wrong, or an empty
    string.

    An untracked sweep has no runs to log to; that is not an error.
    """
    try:
        runs_of(evidence).send(
            report,
            {arm: curve(evidence, arm) for arm in evidence.arms},
            verdict(evidence),
            "; ".join(seal.stamps(evidence.folder)),
        )
    except UntrackedError:
        return ""
    except Exception as error:
        return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
    return ""


def curve(evidence: Evidence, arm: str) -> list[tuple[str, float, int]]:
    """(metric, value, step): mean, low and high of each curve over the arm's units, for MLflow's charts."""
    points = evidence.curves
    points = points[(points["arm"] == arm) & (points["stage"] == Stage.CONFIRM)]
    wanted = dict.fromkeys((evidence.reported, evidence.tuned, "loss/train"))
    found: list[tuple[str, float, int]] = []
    for name in wanted:
        for step, rows in points[points["name"] == name].groupby("step"):
            s = summarize(list(rows.groupby(evidence.unit)["value"].mean()), bounds=evidence.bounds(name))
            values: dict[str, Any] = {name: s.mean, f"{name}/low": s.lo, f"{name}/high": s.hi}
            found += [(k, float(v), int(float(step))) for k, v in values.items() if v is not None]  # type: ignore[arg-type]
    return found
