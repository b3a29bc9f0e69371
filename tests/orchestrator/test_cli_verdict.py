"""`compare`, `report`, `verify`, `lint`, `profile` and `plan --effect` as a user calls them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.orchestrator.sweep_files import sweep_text

pytestmark = pytest.mark.slow


def write(path: Path, more: str = "", **changes: Any) -> str:
    path.write_text(f"{sweep_text(**{'trials': 2, 'confirm': 6, 'per_trial': 4, **changes})}{more}\n")
    return str(path)


def test_the_way_from_a_sweep_to_a_verdict(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml", more="analysis: {baseline: sgd, margin: 0.5}")
    assert call("run", file, "--executor", "debug", "--no-tracking").code == 0
    plain = call("compare", "@last", "--csv", str(tmp_path / "t.csv"), "--latex", str(tmp_path / "t.tex"))
    assert plain.code == 0, plain.err
    assert "adamw" in plain.out
    assert "exploratory" not in plain.out
    assert (tmp_path / "t.csv").read_text().startswith("A,B,n")
    assert "\\toprule" in (tmp_path / "t.tex").read_text()
    document = call("compare", "--json").document
    assert (document["baseline"], document["margin"], document["exploratory"]) == ("sgd", 0.5, [])
    other = call("compare", "--baseline", "none", "--csv", str(tmp_path / "t.csv"))
    assert "exploratory: baseline None was requested, but sgd was declared" in other.out
    assert (tmp_path / "t.csv").read_text().startswith("# exploratory: baseline None")
    assert "intact: every trial" in call("verify").out
    untracked = call("report", "--json")
    assert untracked.code == 0
    assert Path(untracked.document["report"]).read_text().startswith("<!doctype html>")
    assert "MLflow" not in untracked.err


def test_a_changed_sweep_is_refused_everywhere(call: Any, tmp_path: Path) -> None:
    call("run", write(tmp_path / "fit.yaml", trials=1), "--executor", "debug", "--no-tracking")
    path = next((tmp_path / "runs").glob("fit-*/trials/sgd-*-s1000/result.json"))
    path.write_text(path.read_text().replace('"seconds"', '"sekonds"'))
    assert call("verify").code == 7
    assert not call("verify", "--json").document["intact"]
    refused = call("compare")
    assert refused.code == 6
    assert "changed after the fact" in refused.err


def test_what_changed_after_the_seal_is_stamped_in_every_table(call: Any, tmp_path: Path) -> None:
    debug = ("--executor", "debug", "--no-tracking")
    declared, target = "\nanalysis: {baseline: sgd, margin: 0.5}", str(tmp_path / "out")
    assert "exploratory" not in call("run", write(tmp_path / "fit.yaml", more=declared), *debug).out
    tables = [("best",), ("best", "--pareto"), ("status",), ("table", "--by", "lr"), ("compare",), ("verify",)]
    tables += [("export", "-o", target)]
    for words in tables:
        assert call(*words, "--json").document["exploratory"] == [], words
    assert "exploratory" not in pq.read_table(f"{target}/trials.parquet").column_names
    changed = write(tmp_path / "fit.yaml", more=declared.replace("0.5", "0.1"))
    reason = "analysis changed after the seal"
    for words in [("run", changed, *debug), *tables]:
        assert f"exploratory: {reason}" in call(*words).out, words
        assert reason in call(*words, "--json").document["exploratory"][0], words
    assert reason in pq.read_table(f"{target}/trials.parquet").column("exploratory")[0].as_py()
    assert reason in json.loads(pq.read_table(f"{target}/metrics.parquet").schema.metadata[b"geosweep.exploratory"])[0]
    told = call("report", "--no-tracking", "--json").document
    assert reason in told["exploratory"][0]
    report = Path(told["report"])
    for name in ("report.html", "arms.csv", "pairs.csv", "tuning.csv", "arms.tex", "pairs.tex", "tuning.tex"):
        assert reason in report.with_name(name).read_text(), name


def test_lint_and_its_exit_codes(call: Any, tmp_path: Path) -> None:
    unfair = call("lint", write(tmp_path / "fit.yaml", confirm=3), "--json")
    assert unfair.code == 6
    assert [f["code"] for f in unfair.document["files"][0]["findings"]] == ["GS104", "GS120"]
    assert "GS104 fewer than six studies or confirm seeds" in call("lint", str(tmp_path / "fit.yaml")).out
    waived = write(
        tmp_path / "w.yaml", confirm=3, more="analysis: {waive: {GS104: a demonstration, GS120: a demonstration}}"
    )
    assert call("lint", waived).code == 0
    assert "waived: a demonstration" in call("lint", waived).out
    assert call("lint", "none.yaml").code == 3


def test_plan_tells_power_seeds_and_time(call: Any, tmp_path: Path) -> None:
    file = write(tmp_path / "fit.yaml")
    unknown = call("plan", file, "--effect", "0.01", "--no-calibrate")
    assert "No earlier sweep of this task shows the spread" in unknown.out
    given = call("plan", file, "--effect", "0.01", "--sd", "0.01", "--json").document
    assert given["power"]["seeds_needed"] in (10, 11)
    assert 0.3 < given["power"]["power"] < 0.6  # notes: .38 to .52 for one standard deviation and six seeds
    times = given["forecast"]["seconds"]
    assert 0 < times["p10"] < times["p50"] < times["p90"]
    call("run", file, "--executor", "debug", "--no-tracking")
    earlier = call("plan", file, "--effect", "0.01", "--no-calibrate", "--json").document["power"]
    assert earlier["sd_from"].startswith("fit-")
    assert earlier["sd"] > 0
    assert call("plan", file, "--effect", "0").code == 2


def test_profile_of_several_tasks_and_of_one(call: Any, tmp_path: Path) -> None:
    for name in ("one", "two"):
        call("run", write(tmp_path / f"{name}.yaml", name=name, trials=1), "--executor", "debug", "--no-tracking")
    done = call("profile", "one", "two", "-o", str(tmp_path / "out"))
    assert done.code == 0, done.err
    assert "needs 6" in done.out
    endings = ("png", "svg", "pdf", "csv", "tex")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {f"profile.{ending}" for ending in endings}
    both = call("compare", "one", "two", "--json").document
    assert len(both["pairs"]) == 6
    alone = call("profile", "one", "--json").document
    assert alone["schema"] == "geosweep/time-to-target/1"
    assert call("profile", "one", "--reference", "nobody").code == 6
