"""A verdict at equal gradient evaluations, and what it would be at equal seconds."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.compare import currencies
from orchestrator.compare.answer import answer, shown
from orchestrator.compare.evidence import Evidence
from orchestrator.definition import currency, sweep_file
from orchestrator.protocol import seal
from orchestrator.statistics.sentences import sentence
from orchestrator.storage.folder import SweepFolder
from orchestrator.trial.record import read_result, write_result
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import ran


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> SweepFolder:
    """Eight studies of sgd and of an arm that learns next to nothing; to be copied, not to be changed."""
    text = sweep_text(per_trial=40, trials=2, method="random").replace(
        "{tune: 1, confirm: 3}", "{studies: 8, tune: 1, confirm: 1}"
    )
    text = text.replace(
        "optimizer: adamw, parameters: {lr: {distribution: log_uniform_values, min: 0.01, max: 0.3}}",
        "optimizer: adamw, parameters: {lr: {distribution: log_uniform_values, min: 1e-6, max: 1e-5}}",
    )
    uncached = replace(sweep_file.loads(text), cache=False)
    return ran(text, tmp_path_factory.mktemp("original"), spec=uncached)[0]


def swept(original: SweepFolder, root: Path, seconds: dict[str, float]) -> Evidence:
    """The sweep; each arm's trials took so many seconds."""
    shutil.copytree(original.root, root, dirs_exist_ok=True)
    folder = SweepFolder(root, original.sweep_id)
    for path in (folder.path / "trials").glob("*/result.json"):
        arm = path.parent.name.partition("@")[0]
        result = read_result(path.parent)
        assert result is not None
        write_result(replace(result, seconds=seconds[arm]), path.parent)
    _witness_again(folder)
    return Evidence(folder)


def _witness_again(folder: SweepFolder) -> None:
    """The seconds were set by hand: the witness is written for these files."""
    path, chain, lines = folder.path / "witness.jsonl", "", []
    for line in map(json.loads, path.read_text().splitlines()):
        digest = seal.trial_digest(folder, line["trial_id"])
        chain = seal._link(chain, line["trial_id"], digest)
        lines.append(json.dumps({**line, "digest": digest, "chain": chain}))
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.slow
def test_equal_pace_gives_the_same_verdict_and_the_sentence_names_its_currency(
    original: SweepFolder, tmp_path: Path
) -> None:
    document = answer(swept(original, tmp_path, {"sgd": 2.0, "adamw": 2.0}))
    (pair,) = document.pairs
    assert pair.verdict in ("better", "worse")
    other = pair.at_equal_seconds
    assert other.verdict == pair.verdict
    assert other.difference == pytest.approx(pair.difference)
    assert other.interval == pytest.approx(pair.interval)
    said = sentence(shown(document)[0], document.metric)
    assert "at 40 gradient evaluations each" in said
    assert "at equal seconds" not in said


@pytest.mark.slow
def test_a_slow_winner_turns(original: SweepFolder, tmp_path: Path) -> None:
    """sgd takes a hundred times as long: by the seconds of a trial of adamw it has not begun to learn."""
    evidence = swept(original, tmp_path, {"sgd": 200.0, "adamw": 2.0})
    document = answer(evidence)
    assert document.pairs[0].at_equal_seconds is None, "no trial of sgd was evaluated by then"
    halved = answer(swept(original, tmp_path / "half", {"sgd": 8.0, "adamw": 2.0}))
    (pair,) = halved.pairs
    seconds = pair.at_equal_seconds
    assert seconds.seconds == pytest.approx(2.0)
    assert abs(seconds.difference) < abs(pair.difference)
    [turned] = shown(halved)
    turned = replace(turned, at_equal_seconds=replace(turned.at_equal_seconds, verdict="inconclusive"))
    assert "; at equal seconds: inconclusive (" in sentence(turned, halved.metric)


@pytest.mark.slow
def test_the_clock_of_one_machine_decides_nothing(original: SweepFolder, tmp_path: Path) -> None:
    """Identical arms take a few percent more or less, each of their trials alike: that is no difference in speed."""
    for slower in (1.9, 2.1):
        (pair,) = answer(swept(original, tmp_path / str(slower), {"sgd": slower, "adamw": 2.0})).pairs
        assert pair.at_equal_seconds.difference == pytest.approx(pair.difference)
        assert pair.at_equal_seconds.interval == pytest.approx(pair.interval)


@pytest.mark.slow
def test_the_first_evaluation_bounds_what_can_be_said(original: SweepFolder, tmp_path: Path) -> None:
    evidence = swept(original, tmp_path, {"sgd": 2.0, "adamw": 2.0})
    curve = evidence.curves[evidence.curves["name"] == "loss/val"].sort_values("seconds")
    one = curve[curve["trial_id"] == curve["trial_id"].iloc[0]]
    first = float(one["seconds"].iloc[0])
    assert currencies._value(one, first) == pytest.approx(float(one["value"].iloc[0]))
    assert currencies._value(one, first / 2) != currencies._value(one, first / 2), "nan before it"
    assert currencies._value(one, 1e9) == pytest.approx(float(one["value"].iloc[-1]))


@pytest.mark.parametrize(("given", "unit", "said"), [
    (1, "seconds", "1 second each"), (1.0, "grad_evals", "1 gradient evaluation each"), (2, "steps", "2 steps each"),
])  # fmt: skip
def test_one_of_a_unit_is_singular(given: float, unit: str, said: str) -> None:
    assert currency.spoken({"unit": unit, "per_trial": given}) == said
