"""Saved views of MLflow's experiment page, so its charts need no manual setup.

MLflow keeps a saved view as a tag of the experiment: `mlflow.sharedViewState.ID`, an envelope with a name, a time and
the state of the page, deflated (MLflow 3.17, `savedViewEnvelope`). The page lists them by name and opens the one in its
URL. An older page does not know the envelope: it says so and shows all runs.

The view of the answer groups runs by arm: MLflow draws the mean of a group with a band from its lowest to its highest
run. It has no error bars. So an arm's summary holds its interval as three points of INTERVAL (low, high, mean), each at
the height ROW, and a chart of one against the other draws the interval as a line with the mean on it. The page titles
every chart with its metric and ignores other titles, so ROW is the words that are to stand above it.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote

from orchestrator.definition.model import Spec
from orchestrator.definition.states import Goal
from orchestrator.tracking.names import accepted

VIEW = "mlflow.sharedViewState."
ROW, INTERVAL = "interval by arm", "interval"
LONGEST = 20_000
"""Maximum length of an experiment tag."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What the views of a sweep show."""

    sweep_id: str
    reported: str
    """The metric that is compared; empty if unknown."""
    tuned: str = ""
    maximize: bool = True
    parameters: Sequence[str] = ()
    """Searched by at least one arm; columns of the table of trials."""

    @classmethod
    def of(cls, spec: Spec, sweep_id: str) -> Shown:
        """From a sweep's definition."""
        searched = dict.fromkeys(p.name for arm in spec.arms.values() for p in arm.parameters if p.kind != "constant")
        return cls(
            sweep_id=sweep_id,
            reported=spec.report_metric,
            tuned=spec.metric.name,
            maximize=spec.metric.goal is Goal.MAXIMIZE,
            parameters=tuple(searched),
        )

    @property
    def answer(self) -> str:
        """The id of the view that compares arms."""
        return f"geosweep-{self.sweep_id}"

    @property
    def trials(self) -> str:
        """The id of the view with all trials, best first."""
        return f"geosweep-{self.sweep_id}-trials"


def views(shown: Shown, *, final: bool, created_at: int) -> dict[str, str]:
    """The experiment's tags: key -> value. Until the sweep is `final`, the answer view shows the trials of its
    search.
    """
    if not shown.reported:
        return {}
    given = {name: name and accepted([name])[name] for name in (shown.reported, shown.tuned)}
    shown = replace(shown, reported=given[shown.reported], tuned=given[shown.tuned])
    mine = f"tags.`geosweep.sweep_id` = '{shown.sweep_id}'"
    below = f"{mine} and params.stage {'!= ' if final else '= '}'tune'"
    best = {"orderByKey": f"metrics.`{shown.tuned or shown.reported}`", "orderByAsc": not shown.maximize}
    first = {**best, "orderByKey": f"metrics.`{shown.reported}`"}
    known = {
        f"{VIEW}{shown.answer}": (f"{shown.sweep_id}: arms", {**_page(below), **first, **_charts(shown)}),
        f"{VIEW}{shown.trials}": (f"{shown.sweep_id}: trials", {**_page(mine), **best, **_columns(shown)}),
    }
    tags = {key: _envelope(name, state, created_at) for key, (name, state) in known.items()}
    return {key: value for key, value in tags.items() if len(value) <= LONGEST}


def keep(client: Any, experiment: str, shown: Shown, final: bool, created_at: int) -> None:
    """Store the views of a sweep; while it runs, those left by an earlier driver stay."""
    known = client.get_experiment(experiment).tags
    for key, value in views(shown, final=final, created_at=created_at).items():
        if known.get(key) != value and (final or key not in known):
            client.set_experiment_tag(experiment, key, value)


def forget(client: Any, experiment: str, sweep_id: str) -> None:
    """Delete the views of a sweep."""
    mine, known = Shown(sweep_id=sweep_id, reported=""), client.get_experiment(experiment).tags
    for view in (mine.answer, mine.trials):
        if (key := f"{VIEW}{view}") in known:
            client.delete_experiment_tag(experiment, key)


def page_of(experiment: str, view: str) -> str:
    """The URL of a saved view, relative to the root of MLflow's page."""
    mode = "TABLE" if view.endswith("-trials") else "CHART"
    return f"#/experiments/{experiment}/runs?viewStateShareKey={quote(view)}&compareRunsMode={mode}"


def search_of(experiment: str, where: str, shown: Shown) -> str:
    """The URL of the runs that match a filter, best first and without their parents, which would collapse them."""
    metric = shown.tuned or shown.reported
    order = f"&orderByKey={quote(f'metrics.`{metric}`')}&orderByAsc={str(not shown.maximize).lower()}" if metric else ""
    return f"#/experiments/{experiment}/runs?searchFilter={quote(where)}{order}&compareRunsMode=TABLE"


def run_of(experiment: str, run: str, artifact: str = "") -> str:
    """The URL of a run, or of one of its artifacts."""
    return f"#/experiments/{experiment}/runs/{run}" + (f"/artifacts/{quote(artifact)}" if artifact else "")


def links(experiment: str, parent: str, sweep_id: str, command: str) -> str:
    """The note of every run of a sweep, as Markdown; `command` writes the report."""
    charts = page_of(experiment, Shown(sweep_id=sweep_id, reported="").answer)
    report = run_of(experiment, parent, "report/report.html")
    return (
        f"Sweep [{sweep_id}]({run_of(experiment, parent)}): [charts of its arms]({charts}), [report]({report}) (once "
        f"`{command}` has written it)."
    )


def _envelope(name: str, state: Mapping[str, Any], created_at: int) -> str:
    packed = zlib.compress(json.dumps(state, separators=(",", ":")).encode())
    deflated = f"deflate;{base64.b64encode(packed).decode()}"
    return json.dumps({"name": name, "createdAt": created_at, "state": deflated}, separators=(",", ":"))


def _page(where: str) -> dict[str, Any]:
    return {
        "searchFilter": where,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
    }


def _columns(shown: Shown) -> dict[str, Any]:
    params = ["arm", "stage", "seed", *shown.parameters]
    metrics = dict.fromkeys((shown.tuned or shown.reported, shown.reported))
    columns = [f"metrics.`{name}`" for name in metrics] + [f"params.`{name}`" for name in dict.fromkeys(params)]
    return {"selectedColumns": columns, "groupBy": None}


def _charts(shown: Shown) -> dict[str, Any]:
    metric, interval = shown.reported, f"{shown.reported}/{INTERVAL}"
    answer = [
        _line("interval", "answer", ROW, xAxisKey="metric", selectedXAxisMetricKey=interval, displayPoints=True),
        {**_card("mean", "answer", "BAR"), "metricKey": f"{metric}/mean"},
    ]
    curves = [_line(f"curve-{name}", "curves", name) for name in dict.fromkeys((metric, shown.tuned, "loss/train"))]
    sections = {  # beside MLflow's own panels, a page 1400 pixels wide shows 20 characters of a title
        "answer": "Intervals, means",
        "curves": "Curves, min to max",
    }
    return {
        "compareRunCharts": [*answer, *(card for card in curves if card["metricKey"])],
        "compareRunSections": [
            {"uuid": key, "name": name, "display": True, "isReordered": True, "deleted": False, "isGenerated": False}
            | {"columns": 2, "cardHeight": 360}
            for key, name in sections.items()
        ],
        "isAccordionReordered": True,
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "param", "groupByData": "arm"}]},
        "useGroupedValuesInCharts": True,
        "runsHiddenMode": "SHOW_ALL",
    }


def _card(uuid: str, section: str, kind: str) -> dict[str, Any]:
    card = {"uuid": uuid, "type": kind, "metricSectionId": section, "deleted": False, "isGenerated": False}
    return {**card, "runsCountToCompare": 20}


def _line(uuid: str, section: str, metric: str, **more: Any) -> dict[str, Any]:
    return {
        **_card(uuid, section, "LINE"),
        "metricKey": metric,
        "selectedMetricKeys": [metric],
        "lineSmoothness": 0,
        "xAxisScaleType": "linear",
        "scaleType": "linear",
        "xAxisKey": "step",
        "selectedXAxisMetricKey": "",
        "yAxisKey": "metric",
        "yAxisExpressions": [],
        "ignoreOutliers": False,
        "useGlobalXaxisKey": False,
        "useGlobalLineSmoothing": False,
        **more,
    }
