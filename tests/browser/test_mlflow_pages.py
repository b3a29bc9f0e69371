"""A user's way through MLflow's own pages, in a real browser against a real `mlflow server`. Pictures are kept.

They go to $GEOSWEEP_PICTURES, where that is set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from orchestrator import runner
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.report.publish import publish
from orchestrator.compare.report.report import build
from orchestrator.definition import sweep_file
from orchestrator.executors.debug import DebugExecutor
from orchestrator.tracking.mlflow import embedded_uri
from orchestrator.tracking.mlflow_sweep import tracker_of
from orchestrator.tracking.mlflow_view import page_of
from tests.browser.chromium import Page, binary, browser
from tests.services import MlflowServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(binary() is None, reason="no Chromium here: apt-get install chromium"),
]
UNFOLD = "document.querySelector('[role=gridcell] button, .ag-cell button').click()"
TICK = """(() => {
  const rows = [...document.querySelectorAll('[role=row]')].filter(r => r.innerText.includes('mean over seeds'));
  const places = [...new Set(rows.map(r => r.getAttribute('row-index')))];
  for (const i of places)
    document.querySelector(`[row-index="${i}"] input[type=checkbox]`).click();
  return places.length;
})()"""
"""Tick the rows of the arms' summaries; returns how many there are."""
SWEEP = """
schema_version: 1
name: rotations
description: Does the basis matter to AdamW?
task: {name: "tests.tasks:Fit"}
metric: {name: loss/val, goal: minimize}
arms:
  adamw: {parameters: {lr: {distribution: log_uniform_values, min: 0.003, max: 0.3}}}
  rotated_adamw:
    parameters:
      lr: {distribution: log_uniform_values, min: 0.003, max: 0.3}
      rotation: {values: [identity, input, global]}
method: {name: random}
budget: {per_trial: 40, trials_per_arm: 4}
seeds: {confirm: 6}
"""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """(address of the experiment's page, sweep id): a finished sweep with its report, behind a server."""
    root = tmp_path_factory.mktemp("runs")
    definition = sweep_file.loads(SWEEP)
    folder = runner.open_folder(definition, SWEEP, root, {})
    tracker = tracker_of(definition, folder)
    with folder.hold():
        runner.run(definition, folder, DebugExecutor(), tracker)
    evidence = Evidence(folder)
    assert publish(evidence, build(evidence, folder.path / "report").parent) == ""
    server = MlflowServer(root, embedded_uri(root), (root / "mlartifacts").as_uri())
    with server.running() as address:
        yield address, folder.sweep_id


@pytest.fixture(scope="module")
def page(served: tuple[str, str]) -> Iterator[Page]:
    with browser() as tab:
        yield tab


def picture(page: Page, name: str) -> None:
    """Keep what the window shows, where somebody wants to look at it."""
    if place := os.environ.get("GEOSWEEP_PICTURES"):
        page.picture(Path(place) / name)


def runs(page: Page, served: tuple[str, str], query: str = "") -> None:
    """Open the experiment by its name, as a user does: training runs, the parent on top. Then search."""
    address, sweep_id = served
    page.go(f"{address}/health")
    page.wait_for("OK")
    page.run("localStorage.clear(), sessionStorage.clear()")  # what an earlier test searched and grouped
    page.go(f"{address}/#/experiments")
    page.wait_for("Model training")
    page.click("Model training")
    page.wait_for("rotations")
    page.click("rotations", "a")
    page.wait_for(sweep_id, "23 matching runs")
    if query:
        picture(page, "1-experiment.png")
        page.run("document.querySelector('input[placeholder*=\"metrics.\"]').focus()")
        page.write(query)
        page.press("Enter", 13)


@pytest.mark.long  # of MLflow's own page
def test_search_by_rotation_finds_its_trials(page: Page, served: tuple[str, str]) -> None:
    runs(page, served, 'params.rotation = "input"')
    text = page.wait_for("2 matching runs")
    page.run(UNFOLD)
    page.wait_for("rotated_adamw-")
    assert "2 matching runs" in text
    picture(page, "2-search.png")


@pytest.mark.long  # of MLflow's own page
def test_runs_group_by_arm(page: Page, served: tuple[str, str]) -> None:
    runs(page, served)
    page.click("Group by", "button")
    page.wait_for("arm")
    page.click("arm", "[role=menuitemcheckbox], [role=menuitem], li, label")
    page.wait_for("Group: adamw", "Group: rotated_adamw")
    picture(page, "3-grouped.png")


@pytest.mark.long  # of MLflow's own page
def test_two_arms_compare_with_their_intervals(page: Page, served: tuple[str, str]) -> None:
    runs(page, served, "params.stage = 'summary'")
    page.wait_for("3 matching runs")
    page.run(UNFOLD)
    page.wait_for("rotated_adamw: mean over seeds")
    assert page.run(TICK) == 2
    page.click("Compare", "button")
    text = page.wait_for("adamw: mean over seeds", "rotated_adamw: mean over seeds", "loss/val/low", "loss/val/high")
    assert "rotation" in text
    page.run("[...document.querySelectorAll('*')].filter(e => e.innerText === 'Metrics').pop().scrollIntoView()")
    picture(page, "4-compare.png")


@pytest.mark.long  # of MLflow's own page
def test_charts_draw_the_mean_and_its_interval(page: Page, served: tuple[str, str]) -> None:
    """MLflow draws the runs that its table shows, so the parent is unfolded first."""
    runs(page, served, "params.stage = 'summary'")
    page.wait_for("3 matching runs")
    page.run(UNFOLD)
    page.wait_for("rotated_adamw: mean over seeds")
    page.run("document.querySelectorAll('[role=radio], .du-bois-light-radio-button-input')[1].click()")
    page.wait_for("rotated_adamw: mean over seeds (loss/val)", "adamw: mean over seeds (loss/val)")
    time.sleep(2)  # the lines are drawn after their titles
    picture(page, "5-charts.png")
    deadline = time.monotonic() + 60
    while "loss/val/low" not in page.text:  # charts further down are drawn when they come into view
        assert time.monotonic() < deadline, page.text
        page.run("[...document.querySelectorAll('div')].forEach(e => e.scrollBy(0, 300))")
        time.sleep(1)
    page.wait_for("loss/val/low", "loss/val/high")
    picture(page, "5-intervals.png")


@pytest.mark.long  # what is saved stands in test_mlflow_view.py
def test_the_saved_view_answers_without_any_setting(page: Page, served: tuple[str, str]) -> None:
    """Intervals, means and curves by arm, at the address that `geosweep ui` opens."""
    address, sweep_id = served
    page.go(f"{address}/health")
    page.wait_for("OK")
    experiment = MlflowClient(address).get_experiment_by_name("rotations")
    assert experiment is not None
    page.go(f"{address}/{page_of(experiment.experiment_id, f'geosweep-{sweep_id}')}")
    page.wait_for("Group: adamw", "Group: rotated_adamw", "loss/val/interval", "loss/val/mean")
    time.sleep(2)
    picture(page, "8-answer.png")


@pytest.mark.long  # what it is told stands in test_ui.py
def test_the_parent_says_the_verdict_and_holds_the_report(page: Page, served: tuple[str, str]) -> None:
    runs(page, served)
    page.click(served[1], "a")
    page.wait_for("About this run", "Does the basis matter to AdamW?", "rotated_adamw and adamw: inconclusive")
    picture(page, "6-parent.png")
    page.click("Artifacts")
    page.wait_for("report")
    page.click("report")
    page.wait_for("report.html")
    shown = "(() => { const f = document.querySelector('iframe'); return f ? (f.srcdoc || f.src).length : 0 })()"
    deadline = time.monotonic() + 90
    while not page.run(shown):  # the tree may still move under the mouse
        assert time.monotonic() < deadline, page.text
        page.click("report.html")
        time.sleep(2)
    time.sleep(2)
    picture(page, "7-report.png")
