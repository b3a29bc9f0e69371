"""Convert the rows that a script reports to points of its trial's log: at which step, and how many to keep."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping

from orchestrator.storage.metric_log import LoggedPoint, MetricLog
from orchestrator.trial.job import Job

MOST_POINTS = 10_000
"""Above this number only every second, third, .. point is kept, and the last one."""
SLACK = 1.02
"""A script that does not receive its budget is ended above this multiple of it."""
NOT_IN_A_NAME = re.compile(r"[^\w\-./: ]")


class Points:
    """The log of a script's trial, and the latest value of each metric.

    A row's step is in its field `step`, or the one named in the sweep file; steps never decrease. The n-th row with the
    tuned metric but no step is at n/E of the budget, the E-th and all following ones at its end.
    """

    def __init__(self, log: MetricLog, job: Job, step: str) -> None:
        self._log, self._job, self._step = log, job, step
        self.all: list[LoggedPoint] = []
        self.metrics: dict[str, float] = {}
        """Metric -> its latest value."""
        self.over = False
        """Whether a step beyond the budget was reported."""
        self.beyond: float | None = None
        """The first reported step, if it was beyond the budget."""
        self.told: float | None = None
        """The last step that the script itself stated."""
        self._held: LoggedPoint | None = None
        self._seen, self._again, self._stamp = 0, False, 0

    def begin(self, up_to: float, *, again: bool) -> None:
        """Keep the points of the log up to a step; `again`: a run continues, and may repeat some of them."""
        self.all = self._log.truncate(up_to)
        self.metrics = {name: value for point in self.all for name, value in point.metrics.items()}
        self._again = again and bool(self.all)

    @property
    def last(self) -> float:
        """The step of the latest point."""
        return float(self.all[-1].step) if self.all else 0.0

    def values(self) -> list[float]:
        """The reported values of the tuned metric."""
        return [p.metrics[self._job.metric] for p in self.all if self._job.metric in p.metrics]

    def add(self, row: Mapping[str, float], *, bounded: bool) -> None:
        """Add a row. `bounded`: a row beyond the budget ends the trial and does not become a point."""
        job, given = self._job, {NOT_IN_A_NAME.sub("_", name): float(value) for name, value in row.items()}
        key = self._step or ("epoch" if job.program["unit"] == "epochs" and "epoch" in given else "step")
        told, tuned = given.pop(key, None), job.metric in given
        if told is not None and math.isfinite(told):
            if self._again and tuned:
                self.begin(math.nextafter(told, -math.inf), again=False)
            if bounded and told > job.budget * SLACK:
                self.beyond = told if not self.all and self.beyond is None else self.beyond
                self.over = True
                return
            step = self.told = max(self.last, told)
        else:
            step = max(self.last, min(self.last + job.budget / job.evaluations, job.budget)) if tuned else self.last
        if not given:
            return
        self._seen += 1
        point = LoggedPoint(step, given)
        if self._seen % math.ceil(self._seen / MOST_POINTS):
            self._held = point if tuned else self._held
        else:
            self._keep(point)

    def flush(self) -> None:
        """There are no more rows: keep the last point too."""
        if self._held is not None:
            self._keep(self._held)

    def _keep(self, point: LoggedPoint) -> None:
        self._held = None
        while self.all and int(point.step) == int(self.last) and _now() <= self._stamp:
            time.sleep(0.0005)  # of points at one step a tracker keeps the newest, by millisecond
        self.all.append(self._log.append(point.step, point.metrics))
        self._stamp = _now()
        self.metrics |= point.metrics


def _now() -> int:
    """Milliseconds since the epoch."""
    return int(time.time() * 1000)
