"""What MLflow gets about a sweep's arms at its end: a summary run for each, and the same on the parent.

A metric history in MLflow cannot be undone: a summary that changed because the sweep was extended is recreated.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.tracking.mlflow_view import INTERVAL, ROW
from orchestrator.tracking.names import accepted

LAYOUT = "geosweep.summary"
"""On a summary run with its interval apart from its curves; earlier versions had it at step 0 of the curves."""
LEADS = "geosweep.leads"
"""On the parent: the arm with the best mean, settled or not."""
VERDICT = "geosweep.verdict"
"""On the parent: the digest of the verdict in its description."""
GOES_ON = "The sweep is running; the verdict follows when it ends."
NOTE = "mlflow.note.content"
Point = tuple[str, float, int]


def go_on(client: Any, parent: str, description: str) -> None:
    """Remove the verdict of a sweep that trains again."""
    known = client.get_run(parent).data.tags
    if VERDICT in known or "**" in known.get(NOTE, "").removeprefix(description):  # the latter from an earlier version
        client.set_tag(parent, NOTE, "\n\n".join(filter(None, [description, GOES_ON])))
    if VERDICT in known:
        client.delete_tag(parent, VERDICT)


def points_of(values: Mapping[str, float], row: int) -> list[Point]:
    """(metric, value, step) for an arm's `METRIC/mean`, `/n`, `/low` and `/high`; `row` is its height in the chart."""
    names = accepted(values)
    found: list[Point] = []
    for key, value in values.items():
        metric, _, part = key.rpartition("/")
        if part in ("low", "high"):
            found.append((f"{accepted([metric])[metric]}/mean/{part}", value, 0))
        else:
            found.append((names[key], value, 0))
        if part == "high" and f"{metric}/low" in values and f"{metric}/mean" in values:
            name = f"{accepted([metric])[metric]}/{INTERVAL}"
            three = (values[f"{metric}/low"], value, values[f"{metric}/mean"])  # tables show the last one
            found += [(name, v, step) for step, v in enumerate(three)]
    if any(name.endswith(f"/{INTERVAL}") for name, _, _ in found):
        found += [(ROW, float(row), step) for step in range(3)]
    return [point for point in found if math.isfinite(point[1])]


def says(client: Any, run: str, points: Sequence[Point]) -> bool:
    """Whether a run's histories hold exactly these points for these metrics."""
    known = client.get_run(run).data.metrics
    last = {name: value for name, value, _ in points}
    return {k: known.get(k) for k in last} == last


def metrics(points: Sequence[Point]) -> list[Any]:
    """As MLflow entities with the current time."""
    from mlflow.entities import Metric

    now = int(1000 * time.time())
    return [Metric(name, value, now, step) for name, value, step in points]


def of_parent(arms: Mapping[str, Mapping[str, float]], reported: str, *, maximize: bool) -> tuple[list[Point], str]:
    """The points of the parent, and the leading arm: its mean is under the metric's own name, to sort sweeps by.

    Each arm's mean is `METRIC/ARM`, its interval `METRIC/low/ARM` and `METRIC/high/ARM`.
    """
    rows: dict[str, float] = {}
    for arm, values in arms.items():
        for part, where in (("mean", ""), ("low", "low/"), ("high", "high/")):
            value = values.get(f"{reported}/{part}")
            if value is not None and math.isfinite(value):
                rows[f"{reported}/{where}{arm}"] = value
    means = {arm: rows[f"{reported}/{arm}"] for arm in arms if f"{reported}/{arm}" in rows}
    leads = (max if maximize else min)(means, key=means.__getitem__) if means else ""
    if leads:
        rows[reported] = means[leads]
    names = accepted(rows)
    return [(names[key], value, 0) for key, value in rows.items()], leads
