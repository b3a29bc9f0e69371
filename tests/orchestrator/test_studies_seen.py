"""What people see of several studies: evidence, tables, figures, report; and what one study never says."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from scipy import stats

from orchestrator.compare import across, profiles, search_curves, tuning
from orchestrator.compare.answer import answer, shown
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures.answer import banded
from orchestrator.compare.figures.register import all_figures
from orchestrator.compare.lint_results import breaches
from orchestrator.compare.report import tables
from orchestrator.compare.report.publish import curve, verdict
from orchestrator.compare.report.report import build
from orchestrator.definition import model, sweep_file
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import headline, notes, sentence
from tests.orchestrator.sweep_files import sweep_text
from tests.swept import swept

pytestmark = pytest.mark.slow

STUDIES, TRIALS, CONFIRM, STEPS = 6, 4, 2, 4


def evidence_of(
    root: Path, *more: str, studies: int = STUDIES, confirm: int = CONFIRM, slow_adamw: bool = False, **changes: Any
) -> Evidence:
    """A sweep that really ran, in this process."""
    seeds = f"seeds: {{studies: {studies}, tune: 1, confirm: {confirm}}}"
    text = sweep_text(**{"per_trial": STEPS, "trials": TRIALS, "method": "random", **changes})
    text = "\n".join([text.replace("seeds: {tune: 1, confirm: 3}", seeds), *more])
    if slow_adamw:
        text = text.replace("min: 0.01, max: 0.3}}}\nmethod", "min: 1e-9, max: 1e-8}}}\nmethod")
    if changes.get("method") == "grid":
        text = re.sub(r"{distribution: log_uniform_values, .*?}", "{values: [0.001, 0.002, 0.01]}", text)
    return Evidence(swept(text, root))


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """sgd, adamw and the twin of sgd in six studies."""
    return evidence_of(tmp_path_factory.mktemp("seen"), "analysis: {baseline: sgd, twin: true}")


@pytest.fixture(scope="module")
def page(seen: Evidence, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(seen, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """One study an arm, whose configurations differ far beyond their seeds."""
    root = tmp_path_factory.mktemp("alone")
    return evidence_of(root, "analysis: {baseline: sgd, twin: true}", studies=1, confirm=7, max_lr=0.02)


def test_every_study_has_its_own_configurations_and_choice(seen: Evidence) -> None:
    frame, chosen = seen.configurations["adamw"], seen.chosen("adamw")
    assert list(frame.groupby("study").size()) == [TRIALS] * STUDIES
    assert frame["random"].all()
    for study, given in chosen.items():
        own = frame[frame["study"] == study]
        assert given["lr"] == own.loc[own["value"].idxmin(), "param.lr"]
    assert list(chosen) == list(range(1, STUDIES + 1))
    assert len({given["lr"] for given in chosen.values()}) == STUDIES


def test_only_the_first_of_each_study_are_random_in_an_adaptive_search(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, studies=2, confirm=1, method="tpe")
    drawn = evidence.configurations["sgd"]
    assert [list(group["random"]) for _, group in drawn.groupby("study")] == [[True, True, False, False]] * 2
    assert len(search_curves.random_values(evidence, "sgd")) == 4
    assert search_curves.most_random(evidence, "sgd") == 2
    assert {study: set(given) for study, given in evidence.chosen("sgd").items()} == {1: {"lr"}, 2: {"lr"}}


def test_a_study_counts_once(seen: Evidence) -> None:
    units, values = seen.units("loss/val"), seen.confirmed("loss/val")
    assert {arm: [len(v) for v in found.values()] for arm, found in units.items()} == {
        arm: [CONFIRM] * STUDIES for arm in seen.arms
    }
    rows = seen.trials[(seen.trials["stage"] == "confirm") & (seen.trials["arm"] == "sgd")]
    assert values["sgd"] == pytest.approx(list(rows.groupby("study")["loss/val"].mean()))
    pair = answer(seen).pairs[0]
    assert (pair.n, pair.unit) == (STUDIES, "study")
    assert pair.difference == pytest.approx(np.mean(np.subtract(values["adamw"], values["sgd"])))
    last = [value for name, value, step in curve(seen, "sgd") if name == "loss/val" and step == STEPS]
    assert last == [pytest.approx(np.mean(values["sgd"]))]


def test_what_a_search_says_is_said_of_each_study(seen: Evidence) -> None:
    frame, found = seen.configurations["sgd"], tuning.summary(seen)["sgd"]
    best = frame.groupby("study")["value"].min()
    assert found.best_tune == pytest.approx(best.mean())
    assert found.optimism == pytest.approx(np.mean(seen.confirmed("loss/val")["sgd"]) - best.mean())
    assert found.tunability["peak"] == pytest.approx(
        search_curves.curves(seen)[0]["sgd"].mean[TRIALS - 1]
    )  # what one study can spend, not all of them together
    assert len(search_curves.curves(seen)[0]["sgd"].trials) == TRIALS * STUDIES
    near = frame[frame["value"] <= 1.05 * frame["study"].map(best)]["param.lr"]
    assert found.widths["lr"] == pytest.approx(np.log10(near.max() / near.min()))
    rungs = tuning.rungs(seen)
    assert {(r.trials, r.studies) for r in rungs} == {(TRIALS, STUDIES)}
    assert all(1 <= r.winner_stood <= TRIALS and 0 <= r.survived <= STUDIES for r in rungs)
    assert f"{TRIALS} in each of {STUDIES} studies" in tables.rungs(rungs)[0]["trials"]


def test_edges_say_in_how_many_studies(seen: Evidence) -> None:
    for arm in seen.arms:
        chosen = {study: given["lr"] for study, given in seen.chosen(arm).items()}
        shares = {study: tuning.position(seen.parameters[arm]["lr"], lr) for study, lr in chosen.items()}
        upper = tuple(study for study, share in shares.items() if share > 0.95)
        found = {e.where: e for e in tuning.edges(seen, arm)}
        assert ("upper" in found) == bool(upper)
        if upper:
            assert found["upper"].at == upper
            assert str(found["upper"]) == f"upper in {len(upper)} of {STUDIES} studies"
    assert any(tuning.edges(seen, arm) for arm in seen.arms), "nothing was tested"


def test_one_study_in_many_at_an_edge_is_chance() -> None:
    def doubtful(at: int, studies: int) -> bool:
        return tuning.Edge(parameter="lr", where="upper", at=tuple(range(1, at + 1)), studies=studies).is_doubtful

    assert [doubtful(1, 1), doubtful(1, 2), doubtful(1, 8), doubtful(2, 8), doubtful(2, 12), doubtful(3, 12)] == [
        True, False, False, True, False, True,
    ]  # fmt: skip


def test_lint_counts_studies_at_an_edge(tmp_path: Path) -> None:
    evidence = evidence_of(tmp_path, studies=3, confirm=1, method="grid", max_failed=0)
    edges = {arm: tuning.edges(evidence, arm) for arm in evidence.arms}
    found = [message for code, _, message in breaches(evidence) if code == "GS103"]
    assert len(found) == sum(e.is_doubtful for one in edges.values() for e in one) > 0
    assert all(re.search(r"lies at the upper edge of its range in [23] of 3 studies", message) for message in found)


def test_the_twin_is_beside_the_comparisons_and_none_of_them(seen: Evidence) -> None:
    document = answer(seen)
    json.dumps(document.document())
    assert [(p.a, p.b) for p in document.pairs] == [("adamw", "sgd")]
    twin = document.twin
    assert (twin.a, twin.b, twin.n) == ("sgd-twin", "sgd", STUDIES)
    assert (twin.p_holm, document.pairs[0].p_holm) == (twin.p, document.pairs[0].p)
    line = next(note for note in notes(document) if "twin" in note)
    assert "an identical copy of sgd tuned independently, differs from it by" in line
    assert line.endswith("this is what no difference looks like here.")
    assert "twin" not in headline(document)
    assert {p.a for p in answer(seen, baseline="none").pairs} | {p.b for p in answer(seen, baseline="none").pairs} == {
        "adamw",
        "sgd",
    }
    with pytest.raises(Refused, match="baseline 'sgd-twin' has no confirm trials; available: adamw, sgd"):
        answer(seen, baseline="sgd-twin")
    assert seen.ranked()[-1] == "sgd-twin"
    spec = sweep_file.load(seen.folder.path / "sweep.yaml")
    assert (len(spec.arms), model.comparisons(spec)) == (3, 1)
    free = replace(spec, analysis=replace(spec.analysis, baseline=None, twin=False))
    assert model.comparisons(free) == 3
    last = tables.pairs(document)[-1]
    assert (last["A"], last["p Holm"], last["A is"]) == ("sgd-twin", "-", "twin: shows what no difference looks like")
    for rows in (tables.arms(seen), tables.tuning(seen)):
        assert [row["arm"] for row in rows][-1] == "sgd-twin"


def test_the_twin_alone_is_compared_with_nothing(tmp_path: Path) -> None:
    text = "analysis: {baseline: sgd, twin: true}"
    definition = sweep_text(per_trial=STEPS, trials=2, method="random", confirm=6)
    one_arm = "\n".join(line for line in [*definition.splitlines(), text] if not line.startswith("  adamw"))
    alone = Evidence(swept(one_arm, tmp_path))
    document = answer(alone)
    assert document.pairs == []
    assert document.twin.a == "sgd-twin"
    assert headline(document) == "Nothing is compared: there is the baseline and its twin."
    assert "Nothing is compared" in build(alone, tmp_path / "report").read_text()


def test_no_other_verb_compares_a_twin(seen: Evidence) -> None:
    root = seen.folder.root  # where the trials of the others are already
    other = evidence_of(root, "analysis: {baseline: sgd}", name="other")
    document = across.answer([seen, other])
    assert not any("twin" in arm for p in document.pairs for arm in (p.a, p.b))
    assert document.unit == "study"
    assert "sgd-twin" not in profiles.document([seen, other], "sgd")["arms"]
    fewer = evidence_of(root, "analysis: {baseline: sgd}", name="fewer", studies=2)
    with pytest.raises(Refused, match="have different numbers of studies: 6 and 2"):
        across.answer([seen, fewer])


def test_tables_of_studies(seen: Evidence) -> None:
    document = answer(seen)
    rows = tables.studies(seen)
    assert len(rows) == 3 * STUDIES
    assert {(row["confirm seeds"], row["state"]) for row in rows} == {(str(CONFIRM), "complete")}
    assert tables.arms(seen)[0]["studies"] == str(STUDIES)
    assert re.fullmatch(r"lr [\d.]+ \([\d.]+ to [\d.]+\)", tables.arms(seen)[0]["chosen"])
    for row in tables.noise(document):
        shares = [int(row[f"share of {of}"].rstrip("%")) for of in ("search", "training seeds")]
        assert min(shares) >= 0
        assert sum(shares) in (99, 100, 101)
    assert tables.caption(document) == "loss/val, minimize, paired over 6 studies"
    low = replace(document, pairs=[replace(p, confidence=0.9) for p in document.pairs], twin=None)
    assert "A − B [90 %]" in tables.pairs(low)[0]
    assert all(0 <= float(x) <= 1 for x in re.findall(r"[\d.]+", tables.pairs(document)[0]["P(A ahead)"]))


def test_figures_of_studies(seen: Evidence) -> None:
    drawn = {one.name: one for one in all_figures(seen)}
    assert {"verdict", "chosen", "noise", "learning-curves", "expected-best", "sensitivity-sgd-twin"} <= set(drawn)
    arms, differences = drawn["verdict"].figure.axes
    assert [t.get_text() for t in arms.get_yticklabels()][-1] == "sgd-twin"
    assert [t.get_text() for t in differences.get_yticklabels()] == ["adamw −\nsgd", "sgd-twin −\nsgd"]
    dots = [len(c.get_offsets()) for c in arms.collections if isinstance(c, PathCollection)]
    assert dots.count(1) == 3 * STUDIES, "one large dot a study"
    assert dots.count(CONFIRM) == 3 * STUDIES, "its confirm seeds beside it"
    axis = drawn["chosen"].figure.axes[0]
    assert [len(c.get_offsets()) for c in axis.collections] == [STUDIES] * 3
    diamonds = [line for line in drawn["sensitivity-sgd"].figure.axes[0].lines if line.get_marker() == "D"]
    assert len(diamonds) == STUDIES
    drawn["expected-best"].figure.draw_without_rendering()
    tried = drawn["expected-best"].figure.axes[0]
    given = seen.definition["budget"]["per_trial"] * len(seen.definition["seeds"]["tune"]) / STUDIES
    assert tried.child_axes[0].get_xlim() == pytest.approx([given * n for n in tried.get_xlim()])
    bars = drawn["noise"].figure.axes[0].patches
    assert [bars[i].get_width() + bars[i + 1].get_width() for i in (0, 2)] == pytest.approx([1.0, 1.0])


def test_bands_are_over_studies() -> None:
    rows = [
        {"trial_id": f"t{study}-{seed}", "study": study, "step": step, "seconds": step, "value": study + seed * step}
        for study in (1, 2) for seed in (0, 1) for step in (1.0, 2.0, 3.0)
    ]  # fmt: skip
    found = banded(pd.DataFrame(rows))
    assert found is not None
    x, time, mean, low, high = found
    assert list(x) == list(time) == [1, 2, 3]
    assert list(mean) == [2, 2.5, 3]  # of studies 1 and 2, each with half the step
    assert (high - low) / 2 == pytest.approx([stats.t.ppf(0.975, 1) / 2] * 3)


def test_the_report_of_studies(seen: Evidence, page: Path) -> None:
    text, document = page.read_text(), answer(seen)
    assert headline(document) in text
    assert f"{STUDIES} paired studies, {CONFIRM} confirm seeds each" in text
    for note in notes(document):
        assert text.count(note) == 1
    for part in (
        "Where the noise comes from",
        "twin: shows what no difference looks like",
        "every study: its choice and result",
    ):
        assert part in text
    with (page.parent / "studies.csv").open(encoding="utf-8") as rows:
        assert [row["study"] for row in csv.DictReader(rows) if row["arm"] == "sgd"] == list("123456")
    assert "in 6 paired studies" in (page.parent / "pairs.tex").read_text()
    assert (page.parent / "noise.csv").exists()
    said = verdict(seen)
    assert headline(document) in said
    assert "this is what no difference looks like here" in said


def test_studies_that_failed_or_diverged_are_named(tmp_path: Path) -> None:
    broken = evidence_of(tmp_path / "failed", studies=3, confirm=1, fail_at=2, fail_seed=1, max_failed=100, trials=2)
    states = {(row["arm"], row["study"]): row["state"] for row in tables.studies(broken)}
    assert states["sgd", "2"] == "failed: every trial"
    assert states["sgd", "1"] == "complete"
    text = build(broken, tmp_path / "report").read_text()
    assert "No verdict: study 2 of arm adamw, study 2 of arm sgd: no confirm trials" in text or (
        "No verdict: study 2 of arm adamw: no confirm trials" in text
    )
    assert "failed: every trial" in text


def test_an_arm_that_a_race_stopped_is_shown_with_its_studies(tmp_path: Path) -> None:
    """Of adamw, which learns nothing at these rates, only the studies up to the first look are there."""
    raced = evidence_of(tmp_path, "racing: {level: 0.3, looks: 1}", trials=2, slow_adamw=True)
    studies = {arm: len(values) for arm, values in raced.confirmed("loss/val").items()}
    assert studies["adamw"] < studies["sgd"] == STUDIES
    rows = [row["state"] for row in tables.studies(raced) if row["arm"] == "adamw"]
    assert rows == ["complete"] * studies["adamw"] + ["not begun"] * (STUDIES - studies["adamw"])
    document = answer(raced)
    assert document.pairs[0].n == studies["adamw"]
    page = build(raced, tmp_path / "report")
    assert "adamw was stopped" in page.read_text()
    assert {drawn.stem for drawn in (page.parent / "figures").iterdir()} >= {"verdict", "chosen", "noise"}


def test_what_diverged_is_drawn_at_the_rim(seen: Evidence) -> None:
    broken = Evidence(seen.folder)
    trials = broken.trials
    diverged = (trials["arm"] == "adamw") & (trials["study"] == 3) & (trials["stage"] == "confirm")
    trials.loc[diverged, "loss/val"], trials.loc[diverged, "state"] = 1e4, "DIVERGED"
    assert "Study 3 of arm adamw diverged entirely." in notes(answer(broken))
    drawn = next(one for one in all_figures(broken) if one.name == "verdict")
    for ax in drawn.figure.axes:
        assert max(map(abs, ax.get_xlim())) < 100
        assert sum(line.get_marker() == "x" for line in ax.lines) == 1


LAST_WORDS = re.compile(r"\b(better|worse|wins|winner|superior|outperforms)\b")
ALLOWED = re.compile(r"no configuration is shown to be better|final winner|[Tt]he winner would")


def test_one_study_never_says_that_a_method_is_better(alone: Evidence, tmp_path: Path) -> None:
    """V8: whatever is asked, in every text that a person reads."""
    texts, settled = list[str](), 0
    for more in ({}, {"baseline": "none"}, {"margin": 1e-6}, {"margin": 0.5}, {"baseline": "adamw"}):
        document = answer(alone, **more)
        assert (document.unit, document.studies) == ("seed", 1)
        settled += any(p.verdict in ("better", "worse") for p in document.pairs)
        texts += [headline(document), *notes(document), *(sentence(p, "loss/val") for p in shown(document))]
        texts += [row["A is"] for row in tables.pairs(document) if "(configuration)" not in row["A is"]]
        assert any("One search each says nothing about the methods" in note for note in notes(document))
    assert settled, "no verdict was reached, so that nothing was tested"
    texts.append(verdict(alone))
    for one in all_figures(alone):
        texts.append(one.caption)
        texts += [t.get_text() for ax in one.figure.axes for t in (ax.title, ax.xaxis.label, *ax.texts)
                  if "(configuration)" not in t.get_text()]  # fmt: skip
    page = build(alone, tmp_path / "report").read_text()
    parts = re.split(r"<style>.*?</style>|<[^>]*>", page[: page.index("Provenance</h2>")], flags=re.DOTALL)
    texts += [" ".join(part.split()) for part in parts if "(configuration)" not in part]
    for text in texts:
        assert not LAST_WORDS.search(ALLOWED.sub("", text)), text


def test_a_twin_of_one_study_is_a_configuration_too(alone: Evidence) -> None:
    line = next(note for note in notes(answer(alone)) if "identical copy" in note)
    assert line.startswith(
        "The configuration found for sgd-twin, an identical copy of sgd tuned independently, differs "
    )
