"""The price of strict replay: the time of workers that wait for an earlier result, and of no others."""

from __future__ import annotations

from pathlib import Path

import yaml

from orchestrator import runner
from orchestrator.definition import sweep_file
from orchestrator.scheduling.conductor import SweepConductor
from orchestrator.trial.session import TrialSession
from tests.orchestrator.sweep_files import sweep_text


def test_only_workers_without_a_trial_are_counted(tmp_path: Path) -> None:
    """One arm, two results may be outstanding, three workers: the third waits until the first result is in."""
    text = yaml.safe_load(sweep_text(trials=4, confirm=1))
    del text["arms"]["adamw"]
    text["method"] |= {"replay": "strict", "lag": 2}
    definition = sweep_file.loads(yaml.safe_dump(text), "test.yaml")
    folder = runner.open_folder(definition, yaml.safe_dump(text), tmp_path, {})
    now = 0.0
    conductor = SweepConductor(definition, folder, runner.open_arms(definition, folder), clock=lambda: now)
    conductor.workers = 3
    jobs = [conductor.next_job(), conductor.next_job()]
    now = 10.0
    assert conductor.next_job() is None
    now = 15.0
    assert conductor.next_job() is None
    assert conductor.idle_s == 5.0
    assert jobs[0] is not None
    session = TrialSession(jobs[0])
    while conductor.on_report(session.advance()):
        pass
    now = 17.0
    assert conductor.next_job() is not None
    assert conductor.idle_s == 7.0
    conductor.workers = 2  # both have a trial: one that is fetched ahead and has to wait costs nothing
    assert conductor.next_job() is None
    now = 30.0
    assert conductor.next_job() is None
    assert conductor.idle_s == 7.0
