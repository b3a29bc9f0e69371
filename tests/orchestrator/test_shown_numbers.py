"""Numbers as people read them: shares stay in their range, edges of lists are judged by chance, files for papers."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from orchestrator.compare.answer import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures import paper as vectors
from orchestrator.compare.figures.style import panels
from orchestrator.compare.report import numbers, tables
from orchestrator.compare.report.report import build
from orchestrator.compare.tuning import Edge
from orchestrator.definition.states import Goal
from orchestrator.statistics.comparison import compare_values
from orchestrator.statistics.intervals import (
    SHARE,
    UNBOUNDED,
    bounds_of,
    cut_words,
    mean_interval,
    span_of,
    summarize,
)
from orchestrator.statistics.slowdown import relative, slowdown
from orchestrator.statistics.unpaired import compare_unpaired
from tests.orchestrator.test_import import imported, rows

PERCENT = (0.0, 100.0)


@pytest.mark.parametrize("metric, values, declared, bounds", [
    ("accuracy/val", [0.9, 1.0], None, SHARE),
    ("val_acc", [0.2], None, SHARE),
    ("test.accuracy", [91.2, 99.0], None, PERCENT),
    ("accuracy/val", [0.4, 99.0], None, PERCENT),
    ("accuracy/val", [-1e4, 0.9], None, UNBOUNDED),  # what stands for a diverged trial is no accuracy
    ("accuracy/val", [math.nan, 0.9], None, SHARE),
    ("loss/val", [0.5], None, UNBOUNDED),
    ("accurate", [0.5], None, UNBOUNDED),
    ("quality", [0.5], (0.0, 2.0), (0.0, 2.0)),
    ("accuracy/val", [], None, SHARE),
])  # fmt: skip
def test_the_range_of_a_metric(metric: str, values: list[float], declared: Any, bounds: tuple[float, float]) -> None:
    assert bounds_of(metric, values, declared) == bounds


@pytest.mark.parametrize("bounds", [SHARE, PERCENT])
def test_an_interval_within_its_range_covers_as_often(bounds: tuple[float, float]) -> None:
    """Of accuracies near the top: what is cut off holds no true mean."""
    rng, size = np.random.default_rng(3), bounds[1]
    draws, truth = size * rng.beta(20, 0.8, (4000, 6)), size * 20 / 20.8
    free = [mean_interval(row) for row in draws]
    cut = [mean_interval(row, bounds=bounds) for row in draws]
    assert [low <= truth <= high for low, high in cut] == [low <= truth <= high for low, high in free]
    assert all(bounds[0] <= low <= high <= bounds[1] for low, high in cut)
    assert any(high > bounds[1] for _, high in free)


def test_what_was_cut_is_said() -> None:
    s = summarize([0.98, 1.0, 0.7], bounds=SHARE)
    assert s.hi == 1.0
    assert cut_words("accuracy/val", SHARE, [(s.lo, s.hi)]) == "clipped to the range of accuracy/val (at 1)"
    assert cut_words("accuracy/val", SHARE, [(0.2, 0.4), (None, None), (1.0, 1.0)]) == ""


@pytest.mark.parametrize("compare", [compare_values, compare_unpaired])
def test_no_difference_of_shares_is_beyond_one(compare: Any) -> None:
    values = {"a": np.array([1.0, 1.0, 0.1, 1.0]), "b": np.array([0.0, 0.1, 0.0, 1.0])}
    free = compare(values, goal=Goal.MAXIMIZE, unit="seed")[0]
    [pair] = compare(values, goal=Goal.MAXIMIZE, unit="seed", span=span_of(SHARE))
    assert free.interval[1] > 1 == pair.interval[1]
    assert pair.interval[0] == free.interval[0]
    assert (pair.verdict, pair.p, pair.difference) == (free.verdict, free.p, free.difference)


def test_a_slowdown_is_never_below_all_of_the_time() -> None:
    fast = [(10.0 * i, 2.0 ** (-i)) for i in range(1, 11)]
    slow = [(20.0 * i, 2.0 ** (-i)) for i in range(1, 6)]
    found = slowdown(fast, slow)
    assert found is not None
    assert relative(found) == pytest.approx(-0.5)  # half as long
    assert relative(0.16) == 0.16
    assert all(-1 < relative(-(10.0**k)) < 0 for k in range(-3, 9))


@pytest.mark.parametrize("at, studies, values, doubtful", [
    (1, 1, 3, False),  # two of three values are ends
    (1, 1, 5, True),
    (3, 8, 3, False),  # by chance
    (6, 8, 3, True),
    (8, 8, 2, True),
    (2, 8, 20, True),  # a range: as before
])  # fmt: skip
def test_ends_of_lists_are_doubtful_beyond_chance(at: int, studies: int, values: int, doubtful: bool) -> None:
    one = Edge(parameter="p", where="upper", at=tuple(range(at)), studies=studies, chance=1 / values)
    assert one.is_doubtful is doubtful


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Evidence:
    """Imported runs with configurations, of which the first two seeds choose."""
    lines = ["optimizer,lr,seed,accuracy"]
    for arm in ("fast", "slow"):
        for lr in (0.1, 0.2, 0.3, 0.4, 0.5):
            lines += [f"{arm},{lr},{seed},{0.9 + lr / 100 + seed / 1000 + len(arm) / 1e4:.5f}" for seed in range(9)]
    made = imported(tmp_path_factory.mktemp("others"), lines, tune_seeds=["0", "1"])
    return Evidence(made.folder)


@pytest.mark.slow
def test_a_report_of_imported_runs_speaks_of_no_search(others: Evidence, tmp_path: Path) -> None:
    page = build(others, tmp_path, vector=False).read_text()
    own = re.sub(r"base64,[^\"]*", "", page[: page.index("Provenance</h2>")])
    captions = " ".join(re.findall(r"<figcaption>(.*?)</figcaption>", own, re.DOTALL))
    assert captions
    for words in ("of the search", "drawn at random", "confirm seed", "in the search", "expected best value"):
        assert words not in captions.lower()
        assert words not in " ".join(re.findall(r"<th>(.*?)</th>", own)).lower()
    assert "expected-best" not in own.replace("Expected-best curve refused", "")
    assert tables.tuning(others)[0]["tunability early / uniform / peak"] == "-"


@pytest.mark.slow
def test_a_report_without_searches_has_no_section_of_them(tmp_path: Path) -> None:
    made = imported(tmp_path, rows())
    page = build(Evidence(made.folder), tmp_path / "report", vector=False).read_text()
    assert "Optimism gap" not in page


@pytest.mark.slow
def test_numbers_stand_in_columns_of_their_own(others: Evidence, tmp_path: Path) -> None:
    build(others, tmp_path, vector=False)
    document = answer(others)
    pairs = pd.read_csv(tmp_path / "pairs-numbers.csv")
    [p] = document.pairs
    assert list(pairs[["estimate", "low", "high", "n"]].iloc[0]) == pytest.approx([p.difference, *p.interval, p.n])
    assert pairs["exploratory"].iloc[0] == "; ".join(document.exploratory)
    arms = pd.read_csv(tmp_path / "arms-numbers.csv")
    values = others.confirmed(others.reported)["fast"]
    row = arms[(arms["arm"] == "fast") & (arms["metric"] == others.reported)].iloc[0]
    assert row["estimate"] == pytest.approx(np.mean(values))
    assert (row["n"], row["unit"]) == (len(values), "seed")
    assert row["low"] <= row["estimate"] <= row["high"] <= 1
    assert numbers.beside(Path("a/pairs.csv")) == Path("a/pairs-numbers.csv")


@pytest.mark.slow
def test_a_section_for_latex_holds_every_figure_and_balances(others: Evidence, tmp_path: Path) -> None:
    build(others, tmp_path, paper=True)
    text = (tmp_path / "paper.tex").read_text()
    figures = {path.stem for path in (tmp_path / "figures").glob("*.png")}
    assert {path.stem for path in (tmp_path / "figures").glob("*.pdf")} == figures
    assert {path.stem for path in (tmp_path / "figures").glob("*.svg")} == figures
    assert set(re.findall(r"\{\\geosweeppath/figures/([\w-]+)\.pdf\}", text)) == figures
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    for name in ("table", "tabular", "figure", "itemize"):
        assert text.count(f"\\begin{{{name}}}") == text.count(f"\\end{{{name}}}")
    assert text.count("\\toprule") == 2
    assert text.count("height=0.75\\textheight,keepaspectratio") == len(figures), "none runs off its page"
    assert not re.search(r"(?<![\w$])-\d", text), "no line ends between a minus and its number"
    assert not re.search(r"(?<!\\)[&#_%](?!.*\\\\)", text.split("\n", 1)[1].replace("{%\n", "{\n")), "unescaped"
    assert (tmp_path / "report.html").read_text().count("data:image/svg") == 0


@pytest.mark.slow
def test_vectors_are_as_wide_as_text_and_the_same_each_time(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        figure, axes = panels(1, 2, height=3)
        axes[0, 0].plot([1, 2], [3, 4])
        axes[0, 0].set_title("Arms")
        found.append(list(vectors.drawn(figure, tmp_path / name).values()))
    assert found[0] == found[1]
    width = re.search(rb'width="([\d.]+)pt"', found[0][0])
    assert width is not None
    assert float(width[1]) == pytest.approx(72 * vectors.TEXT_WIDTH, rel=0.01)
    assert b"/Type3" not in found[0][1]


@pytest.mark.slow
def test_a_report_says_which_intervals_were_cut(tmp_path: Path) -> None:
    lines = ["optimizer,seed,accuracy", *(f"{arm},{s},{0.2 if s == 3 else 1.0}" for arm in "ab" for s in range(6))]
    evidence = Evidence(imported(tmp_path, lines).folder)
    assert tables.cut(evidence) == "Intervals are clipped to the range of accuracy (at 1)."
    assert tables.cut(evidence) in build(evidence, tmp_path / "report", vector=False).read_text()
