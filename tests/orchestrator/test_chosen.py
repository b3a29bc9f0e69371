"""What studies chose, in words."""

from __future__ import annotations

from orchestrator.definition.states import Stage
from orchestrator.results.chosen import ArmChoice, Choice, chosen_words, ranges
from orchestrator.statistics.intervals import SHARE, UNBOUNDED, bounds_of


def test_numbers_have_a_range_and_words_are_counted() -> None:
    found = ranges(
        [
            {"lr": 0.31, "rotation": "identity", "interval": 50, "nesterov": True, "batch": 64},
            {"lr": 0.8812, "rotation": "output", "interval": 20, "nesterov": True, "batch": 64, "radius": 0.1},
            {"lr": 0.52, "rotation": "identity", "interval": 1000, "nesterov": False, "batch": 64, "radius": 0.3},
        ]
    )
    assert found == {
        "lr": "0.31 to 0.881 (median 0.52)",
        "rotation": "identity (2), output (1)",
        "interval": "20 to 1000 (median 50)",
        "nesterov": "True (2), False (1)",
        "batch": "64",
        "radius": "0.1 to 0.3 (median 0.2), in 2 of 3",
    }


def test_one_study_or_none_has_no_range() -> None:
    assert ranges([{"lr": 0.3, "rotation": "output"}]) == {"lr": "0.3", "rotation": "output"}
    assert ranges([]) == ranges([{}]) == {}


def test_only_studies_of_the_same_stage_are_counted() -> None:
    """The third one is still searching."""
    stages = ((Stage.CONFIRM, 0.1), (Stage.CONFIRM, 0.2), (Stage.TUNE, 9.0))
    studies = {i: Choice(value=0.5, stage=stage, parameters={"lr": lr}) for i, (stage, lr) in enumerate(stages)}
    best = ArmChoice(value=0.5, stage=Stage.CONFIRM, parameters={"lr": 0.1}, study=0, studies=studies)
    assert chosen_words(best) == "lr 0.1 to 0.2 (median 0.15), 2 studies"
    assert chosen_words(ArmChoice(value=0.5, parameters={"lr": 0.12345, "interval": 50})) == "lr 0.123, interval 50"
    assert chosen_words(ArmChoice(value=0.5, parameters={})) == "no hyperparameter"


def test_only_shares_are_bounded() -> None:
    assert bounds_of("accuracy/test") == SHARE
    assert bounds_of("loss/val") == bounds_of("cost/accuracy") == bounds_of("loss/dice") == UNBOUNDED
