"""Fairness rules: one unfair file breaks exactly one rule, our own sweeps break none, results show the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.compare.evidence import Evidence
from orchestrator.compare.lint_results import breaches
from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.protocol import lint
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept

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


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda p: p.stem)
def test_our_own_sweeps_are_fair(path: Path) -> None:
    assert [f"{f.code} {f.message}" for f in lint.lint(path.read_text(), str(path)) if not f.waived] == []


@pytest.mark.slow
def test_an_optimum_at_the_edge_shows_in_the_results(tmp_path: Path) -> None:
    """The loss falls with lr all the way up to 0.02, so the best of ten lies at the top of 0.0001 ... 0.02."""
    text = sweep_text(confirm=6, trials=10, method="sobol", max_lr=0.02).replace("min: 0.01", "min: 0.0001", 1)
    folder = swept(text, tmp_path)
    codes = {f.code: f for f in lint.lint(text, "x.yaml", breaches(Evidence(folder))) if f.code in ("GS103", "GS116")}
    assert set(codes) == {"GS103"}
    assert "upper edge" in codes["GS103"].message
    evidence = Evidence(folder)
    evidence.trials.loc[0, "data_digest"] = "other"
    assert "GS116" in {f.code for f in lint.lint(text, "x.yaml", breaches(evidence))}


def test_a_rule_may_be_broken_with_a_reason() -> None:
    text = (HERE / "unfair" / "GS104_three_studies.yaml").read_text()
    found = lint.lint(f"{text}analysis: {{waive: {{GS104: the task is deterministic}}}}\n", "x.yaml")
    assert [(f.code, f.waived) for f in found] == [("GS104", "the task is deterministic")]
    with pytest.raises(SpecError, match="no fairness rule has this code; did you mean GS"):
        sweep_file.loads(f"{text}analysis: {{waive: {{GS1O4: x}}}}\n")


COMPARED = """
schema_version: 1
name: compared
task: {{name: {task}}}
metric: {{name: {metric}}}
arms:
{arms}
method: {{name: random}}
budget: {{per_trial: 320, trials_per_arm: 8}}
seeds: {{confirm: 9}}
"""
RATE = "lr: {distribution: log_uniform_values, min: 0.01, max: 0.3}"


def said(code: str, *arms: str, task: str = "digits", metric: str = "accuracy/val, goal: maximize") -> list[str]:
    """What the rule says of arms, each `optimizer` or `optimizer: more parameters` beside a learning rate."""
    rows = []
    for number, arm in enumerate(arms):
        optimizer, _, more = arm.partition(": ")
        given = ", ".join(filter(None, ["" if more.startswith("rate:") else RATE, more]))
        rows.append(f"  arm{number}: {{optimizer: {optimizer}, parameters: {{{given}}}}}")
    text = COMPARED.format(task=task, metric=metric, arms="\n".join(rows))
    return [f.message for f in lint.lint(text, "x.yaml") if f.code == code]


@pytest.mark.parametrize(
    "arms, contained",
    [
        (["sgd", "rotated(sgd): rotation: layer"], []),
        (["adamw", "rotated(sgd): rotation: layer"], ["rotated(sgd) contains sgd (rotation: identity)"]),
        (["adamw", "rotated(adamw): rotation: layer"], []),
        (["sgd", "rotated(adamw): rotation: layer"], ["rotated(adamw) contains adamw (rotation: identity)"]),
        (["rotated_adamw", "rotated_adamw: rotation: layer"], []),
        (["sgd", "friendly_sam"], ["friendly_sam contains sam (mean_weight: 0)"]),
        (["sgd", "friendly_sam: mean_weight: {values: [0, 1]}"], []),
        (["sgd", "sam", "friendly_sam"], []),
        (["adamw", "sam"], ["sam contains sgd (sam_radius: 0)"]),
        (["adamw", "sam: base: adamw"], []),
        (["adamw", "sam: base: {values: [adamw, sgd]}"], []),
        (["sgd", "llqr", "llqr_sam"], ["llqr_sam contains sam (ema_rate: 0)"]),
        (["sgd", "sam", "llqr_sam"], ["llqr_sam contains llqr (sam_radius: 0)"]),
        (["sgd", "sam", "llqr", "llqr_sam"], []),
        (["sgd", "sam", "llqr", "llqr_sam: direction: friendly"], ["llqr_sam contains friendly_sam (ema_rate: 0)"]),
        (["adamw", "tests.tasks.Signed: rate: 0.1"], ["tests.tasks.Signed contains sgd (sign_weight: 0)"]),
        (["sgd", "tests.tasks.Signed: rate: 0.1"], []),
    ],
)
def test_what_an_optimizer_contains_has_to_be_there(arms: list[str], contained: list[str]) -> None:
    assert [message.split(", which")[0] for message in said("GS114", *arms)] == contained


def test_the_learning_rate_is_the_hyperparameter_that_the_optimizer_declares() -> None:
    assert "does not tune rate;" in said("GS115", "sgd", "tests.tasks.Signed: rate: 0.1")[0]
    ranged = "tests.tasks.Signed: rate: {min: 0.001, max: 0.5}"
    assert said("GS115", "sgd", ranged) == []
    assert said("GS118", "sgd", ranged)[0].startswith("rate from 0.001 to 0.5 on a linear scale")


def test_theory_chooses_the_learning_rate_of_a_tuned_game() -> None:
    text = COMPARED.format(
        task="bilinear", metric="residual/log10, goal: minimize", arms=f"  gda: {{parameters: {{{RATE}}}}}\n"
        "  tuned: {optimizer: tuned_game, parameters: {probes: {values: [8, 16]}}}",
    )  # fmt: skip
    assert "GS115" not in {f.code for f in lint.lint(text, "x.yaml")}


@pytest.mark.parametrize(
    "arm, plain",
    [
        ("llqr: ema_rate: {values: [0, 0.5]}", True),
        ("llqr_sam: ema_rate: {values: [0, 0.5]}", False),  # that is sam
        ("llqr_sam: ema_rate: {values: [0, 0.5]}, sam_radius: {values: [0, 0.1]}", True),
        ("rotated(torch.optim.RMSprop): rotation: identity", False),
        ("rotated(adamw): rotation: identity", True),
    ],
)
def test_a_space_that_holds_a_plain_optimizer_has_its_reference(arm: str, plain: bool) -> None:
    assert (said("GS111", "muon", arm) == []) is plain


def test_an_invalid_file_stays_invalid() -> None:
    with pytest.raises(SpecError, match="did you mean sgd"):
        lint.lint(sweep_text().replace("optimizer: sgd", "optimizer: sdg"), "x.yaml")


def test_a_guess_for_all_does_not_hide_that_of_one() -> None:
    text = (HERE / "unfair" / "GS121_one_guess.yaml").read_text()
    shared = text + "parameters: {weight_decay: {min: 0.0, max: 0.1, prior: 0.01}}\n"
    (found,) = [f for f in lint.lint(shared, "x.yaml") if f.code == "GS121"]
    assert "sgd not lr" in found.message
    own = shared.replace("  adamw:", "  sam:").replace("max: 0.3}}}", "max: 0.3, prior: 0.03}}}")
    own = own.replace(
        "prior: 0.03}}}\nmethod", "prior: 0.03}, sam_radius: {min: 0.01, max: 0.1, prior: 0.05}}}\nmethod"
    )
    assert not [f for f in lint.lint(own, "x.yaml") if f.code == "GS121"]
