"""Trial ids: every arm's name comes back as it was, beside configuration, seed and study."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from orchestrator.definition import sweep_file
from orchestrator.definition.errors import SpecError
from orchestrator.trial.trial_id import TrialId
from tests.orchestrator.sweep_files import sweep_text

ARMS = st.text(min_size=1).filter(lambda name: not set("@/") & set(name))
COUNTS = st.integers(min_value=0, max_value=10**7)


@pytest.mark.slow
@given(ARMS, COUNTS, COUNTS, st.none() | st.integers(min_value=1, max_value=999))
@example("adamw-small", 3, 1000, None)
@example("sam-sgd", 0, 0, 2)
@example("sgd-s2", 12, 7, 1)
@example("x-0001-s3", 2, 5, None)
@example("rotated(sgd)", 10000, 0, None)
def test_ids_come_back_as_they_were(arm: str, number: int, seed: int, study: int | None) -> None:
    made = TrialId(arm, number, seed, study)
    assert TrialId.parse(str(made)) == made


def test_one_study_leaves_the_ids_of_earlier_versions() -> None:
    assert str(TrialId("adamw", 3, 1000)) == "adamw-0003-s1000"
    assert str(TrialId("adamw", 3, 1000, study=2)) == "adamw@2-0003-s1000"


NO_IDS = ("", "sgd", "sgd-3-s0", "sgd-0003-s01", "sgd-00003-s0", "@2-0003-s0", "a@0-0003-s0", "a/b-0003-s0")


@pytest.mark.parametrize("text", NO_IDS)
def test_what_no_trial_is_called_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a trial id"):
        TrialId.parse(text)


def swept(arm: str) -> list[str]:
    definition = yaml.safe_load(sweep_text())
    definition["arms"] = {arm: {"optimizer": "sgd"}, "adamw": None}
    return list(sweep_file.loads(yaml.safe_dump(definition), "test.yaml").arms)


@pytest.mark.parametrize("arm", ["adamw-small", "sam-sgd", "sgd-s2", "x-0001-s3"])
def test_arms_may_have_dashes(arm: str) -> None:
    assert arm in swept(arm)


@pytest.mark.parametrize("arm", ["sgd@2", "a/b", ""])
def test_arms_that_no_id_can_hold_are_refused(arm: str) -> None:
    with pytest.raises(SpecError, match="must not be empty or contain @ or /"):
        swept(arm)
