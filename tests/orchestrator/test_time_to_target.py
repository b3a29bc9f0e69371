"""Time to target of a single sweep: by hand from its own curves, in both currencies, over seeds and over studies."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import orchestrator.cli.compare  # noqa: F401
from orchestrator.cli.app import app
from orchestrator.compare import time_to_target
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.profiles import time_to
from orchestrator.definition.states import Goal
from orchestrator.statistics.pairing import Refused
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept

pytestmark = pytest.mark.slow


def evidence_of(root: Path, studies: int = 1, confirm: int = 6) -> Evidence:
    seeds = f"seeds: {{studies: {studies}, tune: 1, confirm: {confirm}}}"
    text = sweep_text(trials=2, method="random", per_trial=8).replace("seeds: {tune: 1, confirm: 3}", seeds)
    return Evidence(swept(text, root))


@pytest.mark.parametrize("studies, confirm", [(1, 6), (3, 2)])
def test_quartiles_over_units(tmp_path: Path, studies: int, confirm: int) -> None:
    evidence = evidence_of(tmp_path, studies, confirm)
    document = time_to_target.document(evidence)
    assert document["reference"] == "sgd"
    trials = [t for t in evidence.records if t.job.stage == "confirm"]
    unit = {t.trial_id: t.job.study if studies > 1 else t.job.seed for t in trials}
    finals: dict[int, list[float]] = {}
    for t in trials:
        if t.job.arm == "sgd":
            finals.setdefault(unit[t.trial_id], []).append(t.result.metrics["loss/val"])
    assert len(finals) == document["arms"]["sgd"]["units"] == (3 if studies > 1 else 6)
    target = float(np.median([np.mean(values) for values in finals.values()]))
    assert document["target"] == pytest.approx(target)
    for arm, row in document["arms"].items():
        here = evidence.curves[(evidence.curves["arm"] == arm) & (evidence.curves["name"] == "loss/val")]
        times, paces = [], []
        for one in finals:
            ids = [t.trial_id for t in trials if t.job.arm == arm and unit[t.trial_id] == one]
            values = [here[here["trial_id"] == i].sort_values("step")["value"].to_numpy() for i in ids]
            steps = sorted(set(here[here["trial_id"].isin(ids)]["step"]))
            times.append(time_to(steps, list(np.mean(values, axis=0)), target, Goal.MINIMIZE))
            paces += [t.result.seconds / t.result.grad_evals for t in trials if t.trial_id in ids]
        times.sort()
        assert row["reached"] == sum(map(math.isfinite, times))
        ends = [times[math.ceil(q * len(times)) - 1] for q in (0.25, 0.5, 0.75)]
        assert row["grad_evals"] == [pytest.approx(t) if math.isfinite(t) else None for t in ends]
        for gradients, seconds in zip(row["grad_evals"], row["seconds"], strict=True):
            assert (gradients is None) == (seconds is None)
            if seconds is not None:
                assert gradients * min(paces) * 0.99 <= seconds <= gradients * max(paces) * 1.01
    assert document["arms"]["sgd"]["reached"] >= document["arms"]["sgd"]["units"] / 2, "it sets the target itself"


def test_what_an_arm_misses_has_no_cost(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path)
    evidence.curves.loc[evidence.curves["arm"] == "adamw", "value"] = 99.0
    document = time_to_target.document(evidence, "sgd")
    assert document["arms"]["adamw"] == {
        "units": 6, "reached": 0, "grad_evals": [None] * 3, "seconds": [None] * 3
    }  # fmt: skip
    rows = time_to_target.rows(document)
    assert [row["arm"] for row in rows] == ["sgd", "adamw"]
    assert rows[1]["reached"] == "0 of 6 seeds"
    assert rows[1]["seconds [quartiles]"] == "∞ [∞, ∞]"
    with pytest.raises(Refused, match="no reference arm 'sam'"):
        time_to_target.document(evidence, "sam")


def test_the_verb_takes_one_sweep(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, 3, 2)
    given = ["profile", evidence.sweep_id, "--root", str(tmp_path), "--reference", "adamw"]
    found = CliRunner().invoke(app, [*given, "--json", "-o", str(tmp_path / "out")])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["schema"] == "geosweep/time-to-target/1"
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"time-to-target.csv", "time-to-target.tex"}
    shown = CliRunner().invoke(app, given)
    assert shown.exit_code == 0
    assert "where adamw ends at the median" in " ".join(shown.stdout.split())
    assert "of 3 studies" in shown.stdout
