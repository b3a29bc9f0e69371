"""From a table of studies to a document and its sentences."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.definition.racing import Raced
from orchestrator.statistics.comparison import compare
from orchestrator.statistics.pairing import IN_GRAD_EVALS, Refused
from orchestrator.statistics.same_task import Choice
from orchestrator.statistics.sentences import headline, notes, sentence, too_few

QUESTION: dict[str, Any] = {"metric": "m", "goal": "maximize"}


def table(
    arms: dict[str, float], *, studies: int = 8, confirm: int = 2, search: int = 6, spread: float = 0.001
) -> pd.DataFrame:
    """Trials of so many studies: arm -> mean; seeds are all distinct and the same for every arm."""
    rng, rows = np.random.default_rng(0), []
    for arm, mean in arms.items():
        for study in range(1, studies + 1):
            for stage, number in (("tune", search), ("confirm", confirm)):
                for i in range(number):
                    seed = study if stage == "tune" else 1000 + 10 * study + i
                    rows.append({
                        "sweep_id": "s-1", "arm": arm, "study": study, "stage": stage, "seed": seed,
                        "trial_id": f"{arm}-{study}-{stage}-{i}", "state": "COMPLETE", "grad_evals": 100.0,
                        "parameters": json.dumps({"lr": i if stage == "tune" else 0}),
                        "init_digest": f"i{seed}", "data_digest": f"d{seed}", "m": mean + spread * rng.normal(),
                    })  # fmt: skip
    return pd.DataFrame(rows)


def where(t: pd.DataFrame, **of: Any) -> pd.Series:
    found = pd.Series(True, index=t.index)
    for column, value in of.items():
        found &= t[column] == value
    return found


def test_the_unit_of_several_studies_is_the_study() -> None:
    t = table({"sgd": 0.8, "sam": 0.9})
    document = compare(t, **QUESTION)
    json.dumps(document.document())
    pair = document.pairs[0]
    assert (document.unit, pair.unit, pair.n, document.studies) == ("study", "study", 8, 8)
    confirm = t[t["stage"] == "confirm"].groupby(["arm", "study"])["m"].mean()
    assert pair.difference == pytest.approx((confirm["sam"] - confirm["sgd"]).mean(), abs=1e-12)
    assert pair.p == 2 / 2**8
    assert pair.components is not None
    assert (pair.searched, pair.study_trials) == ({"sam": 6, "sgd": 6}, 8)
    found = sentence(pair, "m")
    assert found.startswith("sam, tuned with 6 trials, is better than sgd, tuned with 6 trials: +0.1")
    assert found.endswith("ahead in 100% of 8 studies.")
    assert headline(document) == "sam is better than sgd, each tuned with 6 trials, in 8 studies."
    assert notes(document) == []


@pytest.mark.slow
def test_one_search_an_arm_says_nothing_about_methods() -> None:
    """V8: whatever is asked, and however many confirm seeds there are."""
    t = table({"sgd": 0.8, "sam": 0.9}, studies=1, confirm=12)
    for given in (t, t.drop(columns="study")):
        for more in ({}, {"baseline": "sgd"}, {"margin": 0.01}, {"margin": 0.5}, {"alpha": 0.2}, {"goal": "minimize"}):
            document = compare(given, **{**QUESTION, **more})
            assert (document.unit, document.studies) == ("seed", 1)
            said = [sentence(p, "m") for p in document.pairs]
            for text in [*said, headline(document), *notes(document)]:
                assert "is better than" not in text
                assert "is worse than" not in text
                assert "tuned with" not in text
            assert all("configuration" in text for text in said)
            assert "One search each says nothing about the methods" in notes(document)[-1]
            assert "`seeds: {studies: 8}` takes 126 more trials per arm." in notes(document)[-1]  # 7 (6 + 12)


@pytest.mark.parametrize("studies", [2, 3, 5])
@pytest.mark.parametrize("margin", [0.0, 0.5])
def test_below_six_studies_nothing_is_settled_and_nothing_refused(studies: int, margin: float) -> None:
    document = compare(table({"sgd": 0.8, "sam": 0.9}, studies=studies), **QUESTION, margin=margin)
    assert document.pairs[0].verdict == "inconclusive"
    assert document.notes == [too_few(document)]
    assert f"{studies} studies cannot settle 1 comparison" in too_few(document)
    assert "Plan 6 studies or more (1 + log2(1 / 0.05))." in too_few(document)


def test_seven_studies_for_three_comparisons() -> None:
    arms = {"a": 0.8, "b": 0.9, "c": 1.0}
    assert {p.verdict for p in compare(table(arms, studies=6), **QUESTION).pairs} == {"inconclusive"}
    assert "inconclusive" not in {p.verdict for p in compare(table(arms, studies=7), **QUESTION).pairs}


def test_open_questions_say_what_settles_them() -> None:
    document = compare(table({"sgd": 0.8, "sam": 0.801}, spread=0.002), **QUESTION)
    pair = document.pairs[0]
    assert pair.verdict == "inconclusive"
    assert pair.settles.cheapest in ("studies", "confirm")
    assert pair.settles.trials > 0
    assert "trials per arm) might settle it" in sentence(pair, "m")
    assert "the search makes up" in sentence(pair, "m")
    assert pair.more_seeds is None


def test_equivalent_studies() -> None:
    pair = compare(table({"sgd": 0.8, "sam": 0.8001}), **QUESTION, margin=0.01).pairs[0]
    assert pair.verdict == "equivalent"
    assert pair.p_equivalent < 0.05
    assert "sam, tuned with 6 trials, and sgd, tuned with 6 trials, are equivalent within" in sentence(pair, "m")


def test_ragged_confirm_seeds_are_paired_by_study_and_seed() -> None:
    t = table({"sgd": 0.8, "sam": 0.9}, confirm=3)
    short = where(t, stage="confirm", study=4) & t["trial_id"].str.endswith("-2")
    document = compare(t[~short], **QUESTION)
    assert document.seeds_of == {"sam": 23, "sgd": 23}
    assert document.pairs[0].components.confirm == pytest.approx(8 / (7 / 3 + 1 / 2))


def test_a_study_with_failed_trials_is_named() -> None:
    t = table({"sgd": 0.8, "sam": 0.9})
    failed = where(t, trial_id="sam-3-confirm-0")
    t.loc[failed, "state"] = "FAILED"
    with pytest.raises(Refused, match=r"1 confirm trials failed of study 3 of arm sam \(sam-3-confirm-0\)"):
        compare(t, **QUESTION)
    with pytest.raises(Refused, match="study 3: arms sam and sgd have different confirm seeds"):
        compare(t[~failed], **QUESTION)
    t.loc[where(t, trial_id="sgd-2-tune-1"), "state"] = "FAILED"
    t.loc[failed, "state"] = "COMPLETE"
    document = compare(t, **QUESTION)
    assert document.notes == ["study 2 of arm sgd: 1 of 6 trials of its search failed."]


def test_a_study_without_confirm_trials_is_named_and_not_dropped() -> None:
    t = table({"sgd": 0.8, "sam": 0.9})
    gone = where(t, stage="confirm", study=5, arm="sam")
    with pytest.raises(Refused, match="study 5 of arm sam: no confirm trials"):
        compare(t[~gone], **QUESTION)
    with pytest.raises(Refused, match="study 5 of arm sam: no confirm trials"):
        compare(t[~where(t, stage="confirm", study=5)], **QUESTION)


def test_an_arm_that_found_nothing_is_named() -> None:
    t = table({"sgd": 0.8, "sam": 0.9, "adamw": 0.7})
    document = compare(t[~where(t, arm="adamw", stage="confirm")], **QUESTION)
    assert document.notes == ["arm adamw has no confirm trials and is not compared."]


def test_diverged_trials_count_with_the_worst_value() -> None:
    t = table({"sgd": 0.8, "sam": 0.9})
    t.loc[where(t, stage="confirm", study=2, arm="sam"), ["state", "m"]] = ["DIVERGED", 0.0]
    t.loc[where(t, trial_id="sam-4-confirm-0"), ["state", "m"]] = ["DIVERGED", 0.0]
    document = compare(t, **QUESTION)
    assert list(document.diverged) == [("sam", 2)]
    assert document.pairs[0].n == 8
    assert document.pairs[0].outperforms == 6 / 8  # behind in study 2 and, by the mean, in study 4
    assert "Study 2 of arm sam diverged entirely." in notes(document)
    assert "3 of 16 confirm trials of arm sam diverged; each counts as m 0." in notes(compare(t, **QUESTION))


def test_an_arm_that_overran_its_budget_is_named() -> None:
    """Its steps cost more than its optimizer declares: not what whole steps leave over."""
    t = table({"sgd": 0.8, "search": 0.9})
    t.loc[t["arm"] == "search", "grad_evals"] = 110.0
    given = replace(IN_GRAD_EVALS, given=100.0, left=lambda: {"sgd": 1.0, "search": 1.0})
    with pytest.raises(
        Refused, match=r"search 110, sgd 100 .*; search spent more than the 100 given: a step must cost"
    ):
        compare(t, **QUESTION, parity=given)
    t.loc[t["arm"] == "search", "grad_evals"] = 90.0
    with pytest.raises(Refused, match=r"search 90, sgd 100 \(gradient evaluations\)$"):
        compare(t, **QUESTION, parity=given)


def test_pairing_is_proved_for_every_study() -> None:
    t = table({"sgd": 0.8, "sam": 0.9})
    t.loc[where(t, trial_id="sam-7-confirm-1"), "init_digest"] = "other"
    with pytest.raises(Refused, match="seed 1071 is not paired: init_digest"):
        compare(t, **QUESTION)
    other = table({"sgd": 0.8, "sam": 0.9})
    other.loc[where(other, trial_id="sam-7-confirm-1"), "seed"] = 1060
    with pytest.raises(Refused, match="a confirm seed twice"):
        compare(other, **QUESTION)


def test_an_arm_that_a_race_stopped_has_the_first_studies() -> None:
    t = table({"base": 0.8, "bad": 0.5, "good": 0.9})
    dropped = where(t, arm="bad", stage="confirm") & (t["study"] > 6)
    lost = {"against": "base", "p": 0.01, "below": 0.02, "reason": "behind base after 6 studies"}
    race = Raced.of({"looks": [6], "taken": 1, "stopped": {"bad": {"arm": "bad", "seeds": 12, "studies": 6, **lost}}})
    document = compare(t[~dropped], **QUESTION, race=race)
    assert {(p.a, p.b): p.n for p in document.pairs} == {
        ("bad", "base"): 6, ("bad", "good"): 6, ("base", "good"): 8,
    }  # fmt: skip
    assert "looks at 6 studies" in " ".join(notes(document))


def test_p_and_interval_that_disagree_are_told() -> None:
    """An outlier among eight studies: the sign-flip test sees eight of one sign, the t interval a large spread."""
    t = table({"sgd": 0.8, "sam": 0.801}, confirm=1, spread=0.0)
    t.loc[where(t, stage="confirm", arm="sam", study=3), "m"] = 0.9
    pair = compare(t, **QUESTION).pairs[0]
    assert (pair.verdict, pair.alone) == ("inconclusive", "p")
    assert pair.p_holm < 0.05
    assert "p is below 0.05, but the interval does not exclude zero" in sentence(pair, "m")
    margin = compare(t, **QUESTION, margin=0.0005).pairs[0]
    assert "but the interval does not exclude the margin" in sentence(margin, "m")
    many = compare(table({"a": 0.8, "b": 0.9, "c": 1.0}, studies=6), **QUESTION).pairs
    assert {p.alone for p in many} == {"interval"}
    assert "the interval excludes zero, but p after Holm is not below 0.05" in sentence(many[0], "m")
    near = compare(table({"a": 0.8, "b": 0.8}, studies=5, confirm=1), **QUESTION, margin=0.5).pairs[0]
    assert (near.verdict, near.alone) == ("inconclusive", "equivalence")
    assert "the interval lies inside the margin" in sentence(near, "m")
    open_ = compare(table({"sgd": 0.8, "sam": 0.8}, spread=0.002), **QUESTION).pairs[0]
    assert (open_.verdict, open_.alone) == ("inconclusive", None)


def test_the_twin_is_not_in_the_family() -> None:
    """Six studies settle one comparison and not three."""
    t = table({"sgd": 0.8, "sam": 0.9, "sgd-twin": 0.8}, studies=6)
    document = compare(t, **QUESTION, twin=("sgd-twin", "sgd"))
    without = compare(t[t["arm"] != "sgd-twin"], **QUESTION)
    assert document.pairs == without.pairs
    assert document.pairs[0].verdict == "better"
    assert without.twin is None
    twin = document.twin
    assert (twin.a, twin.b, twin.p_holm) == ("sgd-twin", "sgd", twin.p)
    assert [p.alone for p in compare(t, **QUESTION).pairs].count("interval") == 2


def test_arms_with_one_task_are_compared_beside_those_with_another() -> None:
    """As the file gives them: what each arm found by its own search groups no arms."""
    noise = {"a": 0.0, "b": 0.4, "c": 0.4}
    rows = [
        {"sweep_id": "s", "arm": arm, "study": 1, "stage": "confirm", "trial_id": f"{arm}-{seed}", "seed": seed,
         "state": "COMPLETE", "parameters": json.dumps({"task.noise": value}), "grad_evals": 8.0,
         "init_digest": f"w{seed}", "data_digest": f"d{seed}{value}", "loss": value + 0.1 * seed + 0.01 * ord(arm)}
        for arm, value in noise.items() for seed in range(6)
    ]  # fmt: skip
    asked: dict[str, Any] = {"metric": "loss", "goal": "minimize", "choice": Choice()}
    document = compare(pd.DataFrame(rows), **asked)
    assert [(p.a, p.b) for p in document.pairs] == [("b", "c")]
    assert document.notes[0].startswith("Only arms with the same task are compared (a; b, c): task.noise is 0.0 in a")
    with pytest.raises(Refused, match=r"no arm has the task of a, the baseline"):
        compare(pd.DataFrame(rows), **asked, baseline="a")
    with pytest.raises(Refused, match=r"not paired: task.noise is 0.0 in a, 0.4 in b"):
        compare(pd.DataFrame([row for row in rows if row["arm"] != "c"]), **asked)
    searched = {**asked, "choice": Choice(searched=frozenset({"task.noise"}))}
    with pytest.raises(Refused, match=r"chosen by each arm from the same space"):
        compare(pd.DataFrame(rows), **searched)
