"""Every search method, on every kind of store, runs the contract of a study; listing one here is all that it takes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from orchestrator import runner
from orchestrator.definition import sweep_file
from orchestrator.scheduling.studies import open_arms
from orchestrator.search.base import Study
from tests.contracts import search_contract as contract
from tests.orchestrator.sweep_files import sweep_text

METHODS = ("grid", "random", "sobol", "tpe", "gp", "cmaes")
STORES = {"journal": "", "database": "sqlite:///{place}/studies.db"}
LISTED = [
    *(pytest.param(method, "", id=method) for method in METHODS),
    pytest.param("tpe", STORES["database"], id="tpe-database"),
]
every_search = pytest.mark.parametrize(("method", "store"), LISTED)


def opener(place: Path, method: str, store: str) -> Callable[[], Study]:
    """How a process opens the study of one arm."""
    definition = yaml.safe_load(sweep_text(method=method))
    lr = (
        {"values": [0.01, 0.3]} if method == "grid" else {"distribution": "log_uniform_values", "min": 0.01, "max": 0.3}
    )
    definition["arms"] = {"sgd": {"parameters": {"lr": lr, "momentum": {"values": [0.0, 0.5, 0.9]}}}, "adamw": {}}
    definition["budget"]["trials_per_arm"] = None if method == "grid" else 8
    definition["method"]["random_share"] = 0.5
    text = yaml.safe_dump(definition)
    spec = sweep_file.loads(text, "test.yaml")
    folder = runner.open_folder(spec, text, place, {})
    return lambda: open_arms(spec, folder, store.format(place=place) or None)["sgd"].study


@pytest.mark.slow
@every_search
def test_configurations_are_numbered_and_in_the_space(method: str, store: str, tmp_path: Path) -> None:
    study = opener(tmp_path, method, store)()
    contract.check_nothing_is_chosen_or_decided_at_first(study)
    contract.check_configurations_are_numbered_and_in_the_space(study)


@pytest.mark.slow
@every_search
def test_what_was_said_is_durable(method: str, store: str, tmp_path: Path) -> None:
    contract.check_what_was_said_is_durable(opener(tmp_path, method, store))


@every_search
def test_a_new_study_asks_the_same(method: str, store: str, tmp_path: Path) -> None:
    one, other = (opener(tmp_path / name, method, "")() for name in ("a", "b"))
    contract.check_a_new_study_asks_the_same(one, other)


@pytest.mark.slow
@every_search
def test_children_and_lessons(method: str, store: str, tmp_path: Path) -> None:
    contract.check_it_learns_only_what_lies_in_its_space(opener(tmp_path / "a", method, store)())
    (tmp_path / "b").mkdir()
    contract.check_a_child_is_added_once(opener(tmp_path / "b", method, store))


@pytest.mark.slow
@every_search
def test_an_unknown_number_raises(method: str, store: str, tmp_path: Path) -> None:
    contract.check_an_unknown_number_raises(opener(tmp_path, method, store)())
