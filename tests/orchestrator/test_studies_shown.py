"""Several studies as a user sees them: every verb and the live table."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from rich.console import Console

from orchestrator import display, results
from orchestrator.definition import sweep_file
from orchestrator.scheduling.conductor import SweepConductor
from orchestrator.scheduling.studies import open_arms
from orchestrator.storage.folder import find
from tests.orchestrator.sweep_files import sweep_text

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def write(path: Path, *lines: str, studies: int = 3, **changes: Any) -> Path:
    text = sweep_text(**{"method": "random", "trials": 3, "confirm": 2, "per_trial": 20, **changes})
    path.write_text("\n".join([text.replace("seeds: {", f"seeds: {{studies: {studies}, "), *lines]))
    return path


def shown(table: Any, width: int) -> list[str]:
    console = Console(width=width, record=True, file=Path(os.devnull).open("w"))  # noqa: SIM115
    console.print(table)
    return console.export_text().splitlines()


def test_every_verb_knows_three_studies(call: Any, tmp_path: Path) -> None:
    file = str(write(tmp_path / "fit.yaml"))
    done = call("run", file, "--executor", "debug")
    assert done.code == 0, done.err
    assert "sgd 3/3 studies, 15/15 trials" in done.err
    assert "paired studies, fresh seeds" in done.out
    assert "intervals: 95% t over the studies" in done.out
    chosen = re.search(r"sgd: lr (\S+) to (\S+) \(median (\S+)\), 3 studies", done.out)
    assert chosen is not None

    document = call("best", "--json").document["arms"]["sgd"]
    rates = sorted(one["parameters"]["lr"] for one in document["studies"])
    assert [f"{rate:.3g}" for rate in (rates[0], rates[2], rates[1])] == list(chosen.groups())
    assert chosen.group() in call("best").out

    status = call("status", "--json").document
    assert status["studies"] == {arm: {"confirmed": 3, "planned": 3} for arm in ("sgd", "adamw")}
    assert "3/3" in call("status").out
    assert call("export", "-o", str(tmp_path / "out")).code == 0
    assert set(pq.read_table(tmp_path / "out" / "trials.parquet").column("study").to_pylist()) == {1, 2, 3}
    assert [p["step"] for p in call("metrics", "@last", "sgd@2-0000-s1", "--json").document["points"]] == [
        5,
        10,
        15,
        20,
    ]
    assert call("logs", "@last", "sgd-0000-s1").code == 4
    assert not call("stop", "--json").document["draining"]
    assert call("reconcile", "--json").document["differences"] == []
    assert "is done; nothing to run" in call("run", file, "--executor", "debug").err


def test_status_counts_studies_whose_confirm_trials_have_ended(call: Any, tmp_path: Path) -> None:
    call("run", str(write(tmp_path / "fit.yaml")), "--executor", "debug", "--no-tracking")
    folder = find(tmp_path / "runs", "@last")
    confirm = [t for t in results.ended_trials(folder) if t.job.stage == "confirm" and t.job.arm == "sgd"]
    (folder.trial(confirm[0].trial_id) / "result.json").unlink()
    found = call("status", "--json").document["studies"]
    assert found == {"sgd": {"confirmed": 2, "planned": 3}, "adamw": {"confirmed": 3, "planned": 3}}
    document = call("best", "--json").document["arms"]["sgd"]
    assert sorted(one["seeds"] for one in document["studies"]) == [1, 2, 2]
    assert "1 to 2" in call("best").out


def test_the_live_table_fits_and_a_race_spares_studies(call: Any, tmp_path: Path) -> None:
    """`bad` loses after the studies of the first look; it is done with the studies that it ran."""
    file = write(tmp_path / "fit.yaml", "racing: {level: 0.3, looks: 1}", studies=6, confirm=1, trials=2)
    good = "adamw: {optimizer: adamw, parameters: {lr: {distribution: log_uniform_values, min: 0.01, max: 0.3}}}"
    bad = "bad: {optimizer: adamw, parameters: {lr: {distribution: log_uniform_values, min: 1e-9, max: 1e-8}}}"
    file.write_text(file.read_text().replace(good, bad))
    done = call("run", str(file), "--executor", "debug", "--no-tracking")
    assert done.code == 0, done.err
    folder = find(tmp_path / "runs", "@last")
    ran = len({t.study for t in results.ended_trials(folder) if t.job.arm == "bad"})
    assert ran < 6
    definition = sweep_file.load(folder.path / "sweep.yaml")
    conductor = SweepConductor(definition, folder, open_arms(definition, folder))
    line = display.plain_line(conductor)
    assert "sgd 6/6 studies, 18/18 trials" in line
    assert f"bad {ran}/{ran} studies, {3 * ran}/{3 * ran} trials" in line
    for table in (display.live_table(conductor), *display.arms_table(definition, folder).renderables):
        lines = shown(table, 80)
        assert max(map(len, lines)) <= 80
        assert not any("…" in one for one in lines)
