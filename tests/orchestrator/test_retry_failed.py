"""`run --retry-failed`: another attempt at what failed and at nothing else, and the sweep is the undisturbed one's."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator import results
from orchestrator.definition.states import ConfigurationState
from orchestrator.definition.sweep_file import loads
from orchestrator.protocol import retries, seal
from orchestrator.protocol.amendments import amendments
from orchestrator.scheduling.studies import open_arms
from orchestrator.storage.folder import SweepFolder, find
from orchestrator.storage.object_store import Far
from tests.orchestrator.sweep_files import sweep_text
from tests.services import postgres_server
from tests.verbs import Called, called

Call = Callable[..., Called]
SCRIPT = """
import argparse, json, pathlib, sys
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float)
p.add_argument("--seed", type=int)
a = p.parse_args()
if pathlib.Path("broken").exists() and (a.seed == 1001 or (a.seed == 0 and a.lr > 0.2)):
    sys.exit("no space left on device")
for step in range(2):
    print(json.dumps({"step": step + 1, "loss": abs(a.lr - 0.3) + a.seed * 1e-6}))
"""
FILE = """
schema_version: 1
name: flaky
task: {program: train.py, seed_arg: --seed, metrics: [{jsonl: stdout}]}
metric: {name: loss, goal: minimize}
arms:
  wide: {parameters: {lr: {values: [0.1, 0.25]}}}
  narrow: {parameters: {lr: {values: [0.1, 0.15]}}}
method: {name: grid}
budget: {unit: steps, per_trial: 2}
seeds: {tune: 1, confirm: 2}
evaluations: 2
"""
RUN = ("run", "flaky.yaml", "--executor", "debug", "--no-tracking", "--skip-steps")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished sweep some of whose trials failed, and the undisturbed one."""
    found = tmp_path_factory.mktemp("retry")
    (found / "train.py").write_text(SCRIPT)
    (found / "flaky.yaml").write_text(FILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(found)
        (found / "broken").touch()
        for root in ("failed", "whole"):
            called_quietly(patch, *RUN, "--root", root)
            (found / "broken").unlink(missing_ok=True)
    return found


def called_quietly(patch: pytest.MonkeyPatch, *words: str) -> None:
    from orchestrator.cli import main

    patch.setattr("sys.argv", ["geosweep", *words])
    with pytest.raises(SystemExit):
        main()


@pytest.fixture
def call(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Call:
    shutil.copytree(place / "failed", tmp_path / "runs")
    monkeypatch.chdir(place)
    return lambda *words: called(monkeypatch, capfd, *words, "--root", str(tmp_path / "runs"))


@pytest.mark.slow
def test_what_failed_is_trained_again_and_nothing_else(call: Call, tmp_path: Path, place: Path) -> None:
    folder = find(tmp_path / "runs", "flaky")
    jobs = {job.trial_id for job in retries.failed(folder)}
    assert jobs == {"wide-0001-s0", "wide-0000-s1001", "narrow-0001-s1001"}
    assert "--retry-failed" in call(*RUN).err
    before = {p: p.stat().st_mtime_ns for p in folder.path.glob("trials/*/result.json")}
    said = call(*RUN, "--retry-failed")
    assert said.code == 0, said.err
    assert "trained again: narrow-0001-s1001, wide-0000-s1001, wide-0001-s0" in " ".join(said.err.split())
    after = {p: p.stat().st_mtime_ns for p in folder.path.glob("trials/*/result.json")}
    assert {p.parent.name for p in before if after.get(p) != before[p]} == jobs
    kept = folder.trial("wide-0001-s0") / "failed-1"
    assert "no space left" in (kept / "stderr.log").read_text()
    assert json.loads((kept / "result.json").read_text())["state"] == "FAILED"
    whole = find(place / "whole", "flaky")
    assert results.best(folder).arms == results.best(whole).arms, "it chose what the undisturbed sweep chose"
    study = open_arms(loads(FILE, str(place / "flaky.yaml")), folder)["wide"].study
    assert {c.state for c in study.configurations()} == {ConfigurationState.COMPLETE}
    assert "agree" in call("reconcile", "flaky", "--no-tracking").out
    assert call("verify", "flaky").code == 0
    [line] = amendments(folder)
    assert (set(line["retried"]), line["of_search"], line["seen"]) == (jobs, 1, ["run"])
    [stamp] = seal.stamps(folder)
    assert stamp.startswith("1 failed trial of the search retrained after results had been seen (run)")
    assert "nothing to run" in call(*RUN).err
    nothing = call(*RUN, "--retry-failed")
    assert (nothing.code, f"no trial of {folder.sweep_id} has failed" in nothing.err) == (0, True)


@pytest.mark.slow
def test_a_driver_killed_before_the_second_attempt_leaves_a_sweep_that_goes_on(call: Call, tmp_path: Path) -> None:
    folder = find(tmp_path / "runs", "flaky")
    with folder.hold():
        retries.set_aside(folder, [job for job in retries.failed(folder) if job.stage == "confirm"])
    assert retries.waiting(folder) == {"narrow-0001-s1001", "wide-0000-s1001"}
    assert seal.verify(folder).problems == []
    assert seal.stamps(folder) == [], "a confirm trial that failed had no result to be seen"
    said = call(*RUN)
    assert "1 trial failed" in " ".join(said.err.split()), "the one of the search"
    assert retries.waiting(folder) == set()


@pytest.mark.slow
def test_decisions_that_stand_are_not_taken_again(tmp_path: Path, place: Path) -> None:
    folder = SweepFolder(tmp_path, "s-1")
    folder.path.mkdir()
    spec = loads(sweep_text(method="random", extra="early_terminate: {type: pbt, eta: 2, min_budget: 25%}\n"))
    jobs = retries.failed(find(place / "failed", "flaky"))
    retries.check(spec, folder, [job for job in jobs if job.stage == "confirm"])
    with pytest.raises(ValueError, match="its populations continued without"):
        retries.check(spec, folder, jobs)
    folder.race.write_text("{}")
    with pytest.raises(ValueError, match="its race was decided"):
        retries.check(spec, folder, [])


@pytest.mark.slow
def test_what_failed_in_an_object_store_is_trained_again_by_another_machine(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its records, what the failed trials left and the search are the far side's; the first machine is gone."""
    root = f"memory://retry{tmp_path}"
    monkeypatch.chdir(place)
    with postgres_server() as database:
        monkeypatch.setenv("GEOSWEEP_STORAGE", database.url)

        def on(machine: str, *words: str) -> Called:
            monkeypatch.setenv("GEOSWEEP_SCRATCH", str(tmp_path / machine))
            return called(monkeypatch, capfd, *words, "--root", root)

        (place / "broken").touch()
        try:
            first = on("first", *RUN)
        finally:
            (place / "broken").unlink()
        assert "--retry-failed" in first.err
        again = on("second", *RUN, "--retry-failed")
        assert again.code == 0, again.err
        assert "trained again: narrow-0001-s1001, wide-0000-s1001, wide-0001-s0" in " ".join(again.err.split())
        sweep = f"{root}/{find(place / 'failed', 'flaky').sweep_id}"
        kept = Far(f"{sweep}/trials/wide-0001-s0", tmp_path / "nowhere")
        assert json.loads(kept.text("failed-1/result.json"))["state"] == "FAILED"
        assert json.loads(kept.text("result.json"))["state"] == "COMPLETE"
        assert on("third", "verify", "flaky").code == 0
        best = on("third", "best", "flaky", "--json").document
        assert best["arms"] == results.best(find(place / "whole", "flaky")).document()["arms"]
        assert "no trial of" in on("third", *RUN, "--retry-failed").err
