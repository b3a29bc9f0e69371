"""`sweeps/schema.json` tells the truth: what it accepts and refuses, by a validator that is not ours."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema.validators import validator_for

from orchestrator.definition.yaml12 import YamlError, parse
from tests.orchestrator.sweep_files import sweep_text

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "sweeps" / "schema.json").read_text())
VALIDATOR = validator_for(SCHEMA)(SCHEMA)
BAD = sorted((Path(__file__).parent / "bad").glob("*.yaml"))
OURS = sorted([*(ROOT / "sweeps").rglob("*.yaml"), *(ROOT / "k8s" / "examples").glob("*.sweep.yaml")])
FENCE = re.compile(r"```yaml\n(.*?)```", re.DOTALL)
BEYOND: dict[str, str] = {
    "names of optimizers, arguments, tasks, metrics, samplers and their kinds, which are in code": """
        group_key_null lr_null outcome_of_everything outcome_share_in_percent q_as_text readers_of_digits
        bad_task_value metric_is_a_column game_in_two_processes game_without_players group_gets_nothing group_key_of_all
        group_beside_a_wrong_kind
        group_key_refused group_key_unknown group_key_without_meaning group_matches_nothing group_mixed_by_a_rotation
        group_of_players list_refused list_where_a_number_is lr_as_text lr_negative mapping_where_a_number_is
        name_of_nobody name_of_two_sections noise_out_of_range not_an_optimizer objective_unknown objective_wrong_goal
        optimizer_module_missing optimizer_wants_closures optimizer_wants_second_derivatives outcome_of_a_parameter
        outcome_unknown_metric pbt_nothing_to_change percentage_of_an_argument players_without_a_game
        program_optimizer_refuses program_outcome_on_time program_unknown_optimizer radius_negative
        requirement_of_ours sampler_argument_refused sampler_argument_unknown sampler_is_none sampler_misspelt
        sampler_needs_an_argument sampler_no_module schedule_of_the_learning_rate schedule_of_what_cannot_change
        schedule_to_text schedule_value_refused shared_parameter_nobody_has task_bound_refused
        task_combination_refused task_fixed_at_a_fraction task_module_missing task_named_by_its_file task_scheduled
        task_share_as_text task_unknown_parameter
        task_value_a_fraction task_value_a_list task_value_as_text task_value_refused task_without_identity
        task_word_for_a_number task_word_for_a_size tokens_uncounted training_bad_share training_combination_refused
        training_percentage_of_a_number truth_value_as_text truth_value_for_a_number unknown_diagnostic
        unknown_hyperparameter unknown_metric unknown_optimizer unknown_optimizer_class unknown_report_metric
        method_of_wandb unknown_method unknown_task unknown_task_module unknown_task_parameter
        workers_apart_in_a_sweep wrong_goal pack_of_llqr pack_of_rounded_moments pack_of_a_game pack_of_dropout
        pack_in_fp16 continuous_range_of_whole_numbers
    """,
    "one value of the file beside another, or reckoned from several": """
        pack_above_max_concurrent
        condition_met_in_part condition_of_a_shared_parameter condition_on_a_continuous_range condition_outside_a_range
        looks_of_a_race training_accumulate_auto_searched
        training_accumulate_auto_shared
        arm_names_alike budget_below_a_step condition_never_met condition_on_unknown_task_parameter
        constraints_nobody_obeys grad_evals_below_confirm grid_larger_than_trials grid_over_a_range grid_too_large
        group_range_reversed min_above_max more_evaluations_than_gradients name_given_twice no_rung_before_the_end
        objective_is_the_metric outcome_twice pbt_of_two pbt_with_tpe prior_in_a_grid prior_no_value prior_outside
        processes_share_a_gpu program_no_group_of_it program_seed_twice q_too_wide requirement_twice
        schedule_backwards schedule_corner_backwards schedule_range_reversed seeds_overlap steps_below_the_evaluations
        steps_in_a_population steps_limit_below_confirm studies_deal_unevenly studies_lists_of_other_number
        seeds_too_many
        studies_seed_of_two_stages task_fixed_and_searched tokens_below_a_step training_fixed_and_searched
        training_warmup_beyond_budget training_warmup_too_long twin_name_taken when_circle when_missing_parent
    """,
    "expressions, whose grammar is beyond a pattern": """
        constraint_calls constraint_not_an_expression constraint_on_a_value_without_order constraint_on_a_word
        constraint_on_unknown_task_parameter constraint_unknown_name program_bad_pattern program_constraint
    """,
    "files of this machine": """
        program_no_executable program_no_such_file requirements_file_missing task_file_missing
    """,
    "NaN, which JSON does not have": """
        budget_nan list_with_nan values_with_nan
    """,
}
"""What a schema cannot say -> bad files whose fault is of that kind."""


def wrong(text: str) -> list[str]:
    return [f"{list(error.path)}: {error.message}" for error in VALIDATOR.iter_errors(parse(text).value)]


def snippets() -> list[Any]:
    """The whole sweep files in our documents."""
    files = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [(file.name, text) for file in files for text in FENCE.findall(file.read_text())]
    return [pytest.param(text, id=name) for name, text in found if "schema_version" in text]


def test_it_is_a_schema() -> None:
    validator_for(SCHEMA).check_schema(SCHEMA)
    assert SCHEMA["$schema"].startswith("https://json-schema.org/")


@pytest.mark.parametrize("path", OURS, ids=lambda p: p.stem)
def test_sweeps_of_ours_are_valid(path: Path) -> None:
    assert wrong(path.read_text()) == []


@pytest.mark.parametrize("text", snippets())
def test_documents_are_valid(text: str) -> None:
    assert wrong(text) == []


@pytest.mark.parametrize("path", BAD, ids=lambda p: p.stem)
def test_bad_files_fail_where_a_schema_can_say_it(path: Path) -> None:
    try:
        found = wrong(path.read_text())
    except YamlError:
        return
    beyond = [kind for kind, names in BEYOND.items() if path.stem in names.split()]
    assert bool(found) != bool(beyond), beyond


def test_kinds_name_bad_files_once() -> None:
    names = [name for kind in BEYOND.values() for name in kind.split()]
    assert len(names) == len(set(names))
    assert set(names) <= {path.stem for path in BAD}


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("wall_clock", ["90s", "1h30m", "1.5h", "2 min"], [90, "90", "1h30", "0s", "-3s", ""]),
        ("per_trial", [1, 40.0, 1e6], [0, -1, "40", True, float("inf")]),
        ("trials_per_arm", [1], [0, 1.5, "4"]),
    ],
)
def test_budgets(key: str, good: list[Any], bad: list[Any]) -> None:
    """Units, bounds and kinds, as ours has them."""
    document = parse(sweep_text()).value
    for value, right in [*((v, True) for v in good), *((v, False) for v in bad)]:
        document["budget"] = {"unit": "grad_evals", "per_trial": 40, "trials_per_arm": 4, key: value}
        assert VALIDATOR.is_valid(document) is right, value


@pytest.mark.parametrize(("unit", "right"), [("seconds", True), ("steps", False), (None, False)])
def test_only_seconds_are_written_as_a_time(unit: str | None, right: bool) -> None:
    document = parse(sweep_text()).value
    document["budget"] = {"per_trial": "1h30m", "trials_per_arm": 4, **({"unit": unit} if unit else {})}
    assert VALIDATOR.is_valid(document) is right


@pytest.mark.parametrize(
    ("given", "right"),
    [
        ("5%", True),
        ("99.5 %", True),
        (0.05, True),
        (3, True),
        ("100%", False),
        ("five", False),
        (-0.1, False),
    ],
)
def test_shares(given: Any, right: bool) -> None:
    assert VALIDATOR.is_valid({**parse(sweep_text()).value, "training": {"warmup": given}}) is right


def test_bundled_sweeps_name_it_for_editors() -> None:
    for path in sorted((ROOT / "sweeps").rglob("*.yaml")):
        name = re.match(r"# yaml-language-server: \$schema=(\S+)\n", path.read_text())
        assert name is not None, path
        assert (path.parent / name[1]).resolve() == ROOT / "sweeps" / "schema.json"
