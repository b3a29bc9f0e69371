"""What every search promises (`search.base.Study`); each one runs all of it in tests/orchestrator/test_searches.py."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestrator.definition.states import ConfigurationState
from orchestrator.search.base import Study

Open = Callable[[], Study]
"""The same study, as a process that begins anew opens it."""
FINITE = 6
"""Configurations that the space of a finite search has."""


def check_configurations_are_numbered_and_in_the_space(study: Study) -> None:
    asked = [study.ask() for _ in range(FINITE)]
    assert [one.number for one in asked] == list(range(FINITE))
    assert [(one.number, dict(one.parameters)) for one in study.configurations()] == [
        (one.number, dict(one.parameters)) for one in asked
    ]
    for one in asked:
        assert 0.01 <= one.parameters["lr"] <= 0.3
        assert one.parameters["momentum"] in (0.0, 0.5, 0.9)
        assert set(one.parameters) == {"lr", "momentum"}


def check_what_was_said_is_durable(open_study: Open) -> None:
    """Asked, told, chosen and decided: another process finds it all."""
    study = open_study()
    asked = [study.ask() for _ in range(4)]
    for evaluation, value in ((1, 0.9), (2, 0.8)):
        study.report(0, evaluation, value)
    study.tell(0, ConfigurationState.COMPLETE, [0.5])
    study.tell(1, ConfigurationState.PRUNED, [0.7])
    study.tell(2, ConfigurationState.FAIL)
    study.choose(0)
    study.decide(2)
    again = open_study()
    found = again.configurations()
    assert [dict(one.parameters) for one in found] == [dict(one.parameters) for one in asked]
    assert [one.state for one in found] == [
        ConfigurationState.COMPLETE,
        ConfigurationState.PRUNED,
        ConfigurationState.FAIL,
        ConfigurationState.RUNNING,
    ]
    assert found[0].value == 0.5
    assert (again.chosen(), again.decided()) == (0, 2)
    assert again.ask().number == 4


def check_nothing_is_chosen_or_decided_at_first(study: Study) -> None:
    assert study.chosen() is None
    assert study.decided() == 0
    assert list(study.configurations()) == []


def check_a_new_study_asks_the_same(one: Study, other: Study) -> None:
    """The first configurations are a function of the sweep file."""
    assert [dict(one.ask().parameters) for _ in range(3)] == [dict(other.ask().parameters) for _ in range(3)]


def check_a_child_is_added_once(open_study: Open) -> None:
    """A driver that died after adding it adds the same one again."""
    study = open_study()
    study.ask()
    study.ask()
    child = study.add({"lr": 0.1, "momentum": 0.9}, [(2, {"lr": 0.2, "momentum": 0.9})], replaces=1)
    assert child.number == 2
    found = open_study().configurations()[2]
    assert dict(found.parameters) == {"lr": 0.1, "momentum": 0.9}
    assert found.replaces == 1
    assert [(end, dict(before)) for end, before in found.lineage] == [(2, {"lr": 0.2, "momentum": 0.9})]


def check_it_learns_only_what_lies_in_its_space(study: Study) -> None:
    inside = ({"lr": 0.3, "momentum": 0.5}, [0.4])
    outside = ({"lr": 7.0, "momentum": 0.5}, [0.1])
    foreign = ({"lr": 0.3, "temperature": 0.5}, [0.1])
    assert study.learn("earlier-1", [inside, outside, foreign]) == 1
    asked = study.ask()
    assert [one.number for one in study.configurations()] == [asked.number], "what was learned is nobody's trial"


def check_an_unknown_number_raises(study: Study) -> None:
    with pytest.raises(Exception):  # noqa: B017  whichever; it must not pass in silence
        study.tell(99, ConfigurationState.COMPLETE, [0.5])
