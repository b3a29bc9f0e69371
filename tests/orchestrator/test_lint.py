"""Fairness rules: one unfair file breaks exactly one rule, our own sweeps break none, results show the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator import runner
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.lint_results import breaches
from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.executors.debug import DebugExecutor
from orchestrator.protocol import lint
from orchestrator.tracking.base import NoTracker
from tests.orchestrator.sweep_files import sweep_text

HERE = Path(__file__).parent
UNFAIR = sorted((HERE / "unfair").glob("*.yaml"))
SWEEPS = sorted((HERE.parents[1] / "sweeps").glob("*.yaml"))
ON_RESULTS = {"GS103"}


@pytest.mark.parametrize("path", UNFAIR, ids=lambda p: p.stem)
def test_an_unfair_file_breaks_exactly_its_rule(path: Path) -> None:
    found = lint.lint(path.read_text(), str(path))
    assert [f.code for f in found] == [path.stem[:5]]
    assert found[0].line > 0
    assert found[0].title == lint.RULES[found[0].code]


def test_every_rule_has_its_file_and_its_page() -> None:
    assert {p.stem[:5] for p in UNFAIR} | ON_RESULTS == set(lint.RULES)
    page = (HERE.parents[1] / "sweeps" / "LINT.md").read_text()
    assert all(f"| {code} | {title}" in page for code, title in lint.RULES.items())
    assert len(lint.RULES) >= 14


@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_our_own_sweeps_are_fair(path: Path) -> None:
    assert [f"{f.code} {f.message}" for f in lint.lint(path.read_text(), str(path)) if not f.waived] == []


def test_an_optimum_at_the_edge_shows_in_the_results(tmp_path: Path) -> None:
    """The loss falls with lr all the way up to 0.02, so the best of ten lies at the top of 0.0001 ... 0.02."""
    text = sweep_text(confirm=6, trials=10, method="sobol", max_lr=0.02).replace("min: 0.01", "min: 0.0001", 1)
    definition = sweep_file.loads(text)
    folder = runner.open_folder(definition, text, tmp_path, {})
    with folder.hold():
        runner.run(definition, folder, DebugExecutor(), NoTracker())
    codes = {f.code: f for f in lint.lint(text, "x.yaml", breaches(Evidence(folder))) if f.code in ("GS103", "GS116")}
    assert set(codes) == {"GS103"}
    assert "upper edge" in codes["GS103"].message
    evidence = Evidence(folder)
    evidence.trials.loc[0, "data_digest"] = "other"
    assert "GS116" in {f.code for f in lint.lint(text, "x.yaml", breaches(evidence))}


def test_a_rule_may_be_broken_with_a_reason() -> None:
    text = (HERE / "unfair" / "GS104_three_seeds.yaml").read_text()
    found = lint.lint(f"{text}analysis: {{waive: {{GS104: the task is deterministic}}}}\n", "x.yaml")
    assert [(f.code, f.waived) for f in found] == [("GS104", "the task is deterministic")]
    with pytest.raises(SpecError, match="no fairness rule has this code; did you mean GS"):
        sweep_file.loads(f"{text}analysis: {{waive: {{GS1O4: x}}}}\n")


def test_an_invalid_file_stays_invalid() -> None:
    with pytest.raises(SpecError, match="did you mean sgd"):
        lint.lint(sweep_text().replace("optimizer: sgd", "optimizer: sdg"), "x.yaml")
