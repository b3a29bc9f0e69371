"""What a sweep of scripts says: how far its verdict is proved, in words and in JSON, through every verb."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from orchestrator.compare import proof
from orchestrator.storage.folder import SweepFolder
from tests.orchestrator.test_program_ends import PROGRAMS, run
from tests.verbs import Called, called

TEXT = """
schema_version: 1
name: verdict
task:
  program: strange.py
  seed_arg: --seed
  budget_arg: --steps
  metrics: [{pattern: 'step=(?P<step>\\d+) loss=(?P<loss>\\S+)'}]
  env: {STRANGE_BLOCKS: "1"}
metric: {name: loss, goal: minimize}
arms:
  short: {parameters: {how: {values: [well]}}}
  long: {parameters: {how: {values: [gigabyte]}}}
method: {name: grid}
budget: {unit: steps, per_trial: 8}
seeds: {tune: 1, confirm: 6}
evaluations: 4
analysis: {waive: {GS120: a test of the machinery}}
"""
Verb = Callable[..., Called]


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    return run(TEXT, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def say(sweep: SweepFolder, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Verb:
    return lambda *words: called(monkeypatch, capfd, *words, "--root", str(sweep.root))


DECLARED = (
    "Pairing declared (the seed was passed on; initial weights and first batches were not observed), compute declared "
    "(the budget was passed on; steps were not counted)."
)


@pytest.mark.slow
def test_compare_says_what_is_proved(say: Verb) -> None:
    document = say("compare", "--json").document
    (pair,) = document["pairs"]
    assert (pair["proof"]["pairing"]["level"], pair["proof"]["compute"]["level"]) == ("declared", "declared")
    assert DECLARED in " ".join(say("compare").out.split())
    assert "at 8 steps each" in " ".join(say("compare").out.split())
    assert document["arms"]["short"]["grad_evals"] is None  # nobody counted


@pytest.mark.slow
def test_the_report_says_it_too(say: Verb, sweep: SweepFolder) -> None:
    assert say("report", "--no-tracking").code == 0
    page = (sweep.path / "report" / "report.html").read_text()
    assert DECLARED in page
    assert "strange.py" in page


def test_the_other_verbs(say: Verb, sweep: SweepFolder, tmp_path: Path) -> None:
    status = say("status", "--json").document
    assert (status["state"], status["script"]) == ("done", "strange.py")
    assert {arm: counts["done"] for arm, counts in status["arms"].items()} == {"short": 7, "long": 7}
    assert say("best", "--json").document["arms"]["short"]["parameters"] == {"how": "well"}
    assert say("table", "--by", "how").code == 0
    assert say("export", "-o", str(tmp_path)).code == 0
    trials = pd.read_parquet(tmp_path / "trials.parquet")
    assert trials["grad_evals"].isna().all()
    assert len(trials) == 14
    assert say("reconcile", "--no-tracking").code == 0
    verified = say("verify", "--json").document
    assert (verified["intact"], verified["changed_files"]) == (True, [])
    assert say("logs", "@last", "short-0000-s0").code == 0
    assert "steps" in say("metrics").out
    assert "grad evals" not in say("metrics").out


DOTTED = """
schema_version: 1
name: dotted
task: {program: any.py, metrics: [{jsonl: stdout}], prove: false}
metric: {name: loss, goal: minimize}
arms:
  one: {parameters: {task.k: 1, groups.g.lr: 1}}
  two: {parameters: {task.k: 2}}
parameters: {training.lr: {values: [0.1, 0.2]}, task.width: {values: [1]}}
method: {name: grid}
budget: {unit: steps, per_trial: 2}
seeds: {tune: 1, confirm: 6}
"""


UNMOVED = "every configuration measured exactly the same: the script seems to read none of its parameters"


@pytest.mark.slow
def test_a_script_that_reads_nothing_is_told_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "any.py").write_text('for step in 1, 2:\n    print(\'{"step": %d, "loss": 1.5}\' % step)\n')
    (tmp_path / "deaf.yaml").write_text(DOTTED.replace("confirm: 6", "confirm: 2"))
    assert UNMOVED in called(monkeypatch, capfd, "run", "deaf.yaml", "--executor", "debug", "--no-tracking").err


@pytest.mark.slow
def test_an_arm_that_ends_early_is_told_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its script is not counted; its own reports show that it had half of the budget."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "any.py").write_text(
        "import json, sys\nfor step in (1, 2) if '--task.k=1' in sys.argv else (1,):\n"
        "    print(json.dumps({'step': step, 'loss': len(str(sys.argv))}))\nsys.stdout.write('{\"step\": 2, \"lo')\n"
    )
    (tmp_path / "early.yaml").write_text(DOTTED)
    assert called(monkeypatch, capfd, "run", "early.yaml", "--executor", "debug", "--no-tracking").code == 0
    [pair] = called(monkeypatch, capfd, "compare", "--json").document["pairs"]
    assert pair["proof"]["compute"]["reports"] == "one 2, two 1"
    said = " ".join(called(monkeypatch, capfd, "compare").out.split())
    assert "declared 2 steps each (their own reports end at one 2, two 1)" in said
    assert "at 2 steps each" not in said


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((8, 8), ""),
        ((7, 7), ""),
        ((8, 4), "a 8, b 4"),
        ((4, 4), "a 4, b 4"),
        ((24, 24), "a 24, b 24"),
        ((8, None), ""),
        ((None, None), ""),
    ],
)
def test_where_own_reports_end(ends: tuple[float | None, float | None], said: str) -> None:
    """Counted from zero, the last of eight steps is the seventh; where no step was stated, nothing is claimed."""
    shown = [{"budget": "given", **({} if end is None else {"told": end})} for end in ends]
    both = pd.DataFrame({"arm": ["a", "b"], "state": ["COMPLETE", "COMPLETE"], "proof": shown})
    assert proof.compute(both, "steps", 8.0).reports == said


@pytest.mark.slow
def test_names_of_our_sections_are_a_scripts_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As a script of Hydra's has them: sealed, compared and shown as any others."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "any.py").write_text(
        "import json, sys\nfor step in 1, 2:\n    print(json.dumps({'step': step, 'loss': len(str(sys.argv))}))\n"
    )
    (tmp_path / "dotted.yaml").write_text(DOTTED)
    done = called(monkeypatch, capfd, "run", "dotted.yaml", "--executor", "debug", "--no-tracking")
    assert done.code == 0, done.err
    assert UNMOVED not in done.err
    assert called(monkeypatch, capfd, "verify", "--json").document["problems"] == []
    assert "its own task" not in called(monkeypatch, capfd, "compare").out
    [pair] = called(monkeypatch, capfd, "compare", "--json").document["pairs"]
    assert not pair.get("own_task")
    for verb in ("report", "--no-tracking"), ("table", "--by", "training.lr"), ("best",), ("lint", "dotted.yaml"):
        assert called(monkeypatch, capfd, *verb).code in (0, 6)


@pytest.mark.slow
def test_json_has_no_number_that_is_not_finite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "any.py").write_text('print(\'{"step": 1, "loss": 1}\\n{"step": 2, "loss": NaN}\')\n')
    (tmp_path / "one.yaml").write_text(
        DOTTED.replace("  two: {parameters: {task.k: 2}}\n", "").replace("confirm: 6", "confirm: 0")
    )
    called(monkeypatch, capfd, "run", "one.yaml", "--executor", "debug", "--no-tracking")
    out = called(monkeypatch, capfd, "metrics", "@last", "one-0000-s0", "--json").out
    found = json.loads(out, parse_constant=pytest.fail)
    assert [p["metrics"]["loss"] for p in found["points"]] == [1, None]
    assert found["result"]["state"] == "DIVERGED"


@pytest.mark.slow
def test_a_sweep_whose_script_changed_is_not_made_larger(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Refused before it is noted: asked again with the change accepted, it grows once."""
    monkeypatch.chdir(tmp_path)
    debug = ("--executor", "debug", "--no-tracking")
    (tmp_path / "any.py").write_text('print(\'{"step": 2, "loss": 1}\')\n')
    (tmp_path / "one.yaml").write_text(
        DOTTED.replace("  two: {parameters: {task.k: 2}}\n", "").replace("confirm: 6", "confirm: 1")
    )
    called(monkeypatch, capfd, "run", "one.yaml", *debug)
    (tmp_path / "any.py").write_text('print(\'{"step": 2, "loss": 2}\')\n')
    refused = called(monkeypatch, capfd, "extend", "@last", "--seeds", "+1", *debug)
    assert (refused.code, "any.py changed" in refused.err) == (7, True)
    assert called(monkeypatch, capfd, "status", "--json").document["arms"]["one"]["waiting"] == 0
    grown = called(monkeypatch, capfd, "extend", "@last", "--seeds", "+1", "--accept-changed-code", *debug)
    assert grown.code == 0, grown.err
    assert called(monkeypatch, capfd, "status", "--json").document["arms"]["one"]["done"] == 2 + 2


def test_before_it_runs(say: Verb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = PROGRAMS / "verdict.yaml"
    monkeypatch.chdir(PROGRAMS)
    (tmp_path / file.name).write_text(TEXT)
    plan = say("plan", str(tmp_path / file.name), "--json").document
    assert plan["arms"]["long"] == {"trials": 7, "steps": 8, "grad_evals_per_trial": None, "grad_evals": None}
    assert (plan["script"], plan["total_grad_evals"]) == ("strange.py", None)
    assert plan["notes"] == ["strange.py is a script: its cost is not known in advance."]
    assert say("lint", str(tmp_path / file.name)).code == 0


def test_a_script_that_changed_is_named(say: Verb, sweep: SweepFolder, tmp_path: Path) -> None:
    for path in PROGRAMS.glob("*.py"):
        (tmp_path / path.name).write_text(path.read_text() + ("\n# changed\n" if path.name == "strange.py" else ""))
    resolved = sweep.path / "resolved.json"
    before = resolved.read_text()
    try:
        resolved.write_text(before.replace(str(PROGRAMS.resolve()), str(tmp_path)))
        assert say("verify", "--json").document["changed_files"] == ["program/strange.py"]
    finally:
        resolved.write_text(before)


def trials(**changes: Any) -> pd.DataFrame:
    """Two arms on two seeds: what their processes showed."""
    given = {"seed": True, "budget": "given", "batches": 16, "grad_evals": 40.0, "steps": 40}
    rows = [
        {"arm": arm, "study": 1, "seed": seed, "stage": "confirm", "init_digest": f"w{seed}", "data_digest": f"d{seed}",
         "proof": given}
        for arm in "ab" for seed in (1000, 1001)
    ]  # fmt: skip
    frame = pd.DataFrame(rows)
    for column, values in changes.items():
        frame[column] = values
    return frame


PAIR = [("a", "b")]


@pytest.mark.parametrize(("frame", "unit", "pairing", "compute"), [
    (trials(), "grad_evals", "proved", "proved"),
    (trials(), "steps", "proved", "proved"),
    (trials(), "epochs", "proved", "declared"),
    (trials(), "seconds", "proved", "proved"),
    (trials(init_digest=["w1", "w2", "v1", "v2"]), "steps", "declared", "proved"),
    (trials(data_digest=""), "steps", "declared", "proved"),
    (trials(proof=[{"seed": False, "budget": "", "batches": 0, "grad_evals": None, "steps": None}] * 4, init_digest="",
            data_digest=""), "steps", "unknown", "unknown"),
])  # fmt: skip
def test_levels(frame: pd.DataFrame, unit: str, pairing: str, compute: str) -> None:
    (found,) = proof.of_pairs(frame, PAIR, {"unit": unit, "per_trial": 40})
    assert (found.pairing.level, found.compute.level) == (pairing, compute)


def test_weights_that_differ_and_unequal_gradients_are_named() -> None:
    counted = [{"seed": True, "budget": "given", "batches": 1, "grad_evals": n, "steps": 9} for n in (9, 9, 18, 18)]
    (found,) = proof.of_pairs(
        trials(init_digest=["w1", "w2", "v1", "v2"], proof=counted), PAIR, {"unit": "steps", "per_trial": 9}
    )
    assert found.pairing.why == "the seed was passed on; initial weights differ between the arms"
    assert found.compute.why == "steps were counted; gradient evaluations were a 9, b 18"


@pytest.mark.parametrize(("unit", "why"), [
    ("grad_evals", "gradient evaluations were counted"),
    ("steps", "steps were counted; gradient evaluations were a 9, b 18"),
    ("tokens", "tokens were counted; gradient evaluations were a 9, b 18"),
    ("seconds", "by the clock; gradient evaluations were a 9, b 18"),
])  # fmt: skip
def test_built_in_training_names_unequal_gradients_too(unit: str, why: str) -> None:
    """Equal steps are half the compute for one of these arms: 'proved' must not say that gradients were equal."""
    frame = trials(state="COMPLETE", proof=[{}] * 4, grad_evals=[9.0, 9.0, 18.0, 18.0])
    (found,) = proof.of_pairs(frame, PAIR, {"unit": unit, "per_trial": 9})
    assert (found.compute.level, found.compute.why) == ("proved", why)


def test_a_count_that_is_not_the_budget_is_named() -> None:
    (found,) = proof.of_pairs(trials(), PAIR, {"unit": "grad_evals", "per_trial": 20})
    assert found.compute.why == "gradient evaluations were counted, 40 where 20 were given"
