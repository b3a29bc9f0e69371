"""Whole sweeps of two identical arms (see `tests.bench.null.pipeline`): what they say of the methods, how often."""

from __future__ import annotations

import csv
import html
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

import trainables
from orchestrator.compare import answer
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.report import publish
from orchestrator.statistics.studies import Design
from orchestrator.storage.folder import SweepFolder
from tests.bench.null.pipeline import ARMS, said, sweep_text, swept, trained
from tests.bench.null.verdicts import many

pytestmark = pytest.mark.slow

FEW = Design(studies=6, configurations=3, tune=1, confirm=1)
SINGLE = Design(studies=1, configurations=3, tune=1, confirm=9)
SWEEPS = 6
TOO_MANY = int(binom.isf(0.005, SWEEPS, 0.05))
"""More false verdicts than this come about in one of 200 series where each has its 5 %."""
ON_METHODS = re.compile(rf"\b({'|'.join(ARMS)}) is (better|worse)|tuned with|The arms,")
FLAGS = ([], ["--baseline", ARMS[0]], ["--baseline", "none", "--margin", "0.0005"], ["--metric", "accuracy/val"])
FLAGS += (["--baseline", ARMS[1], "--margin", "0.9"],)


def test_repeated_searches_keep_their_promise_where_one_search_could_not() -> None:
    assert sum(one.settled for one in many("tpe", FEW, SWEEPS)) <= TOO_MANY
    alone = many("random", SINGLE, SWEEPS)
    assert {one.unit for one in alone} == {"seed"}
    assert sum(one.settled for one in alone) > TOO_MANY, "of configurations they say what they may not say of methods"


def a_false_verdict(root: Path, design: Design, effect: float = 0.0) -> SweepFolder:
    """A sweep that is settled, the first one there is."""
    number = next(n for n in range(30) if said("random", design, n, effect=effect).settled)
    return swept(root, sweep_text("random", design, number), trained(), number, {ARMS[0]: effect})


def compared(call: Callable[..., Any], folders: list[SweepFolder], tmp_path: Path) -> tuple[str, list[Any]]:
    """The text of `compare` and its tables with every flag; the JSON documents."""
    names, texts, documents = [f.sweep_id for f in folders], [], []
    for flags in FLAGS:
        if len(folders) > 1 and "--baseline" in flags:
            continue
        files = tmp_path / "pairs.csv", tmp_path / "pairs.tex"
        shown = call("compare", *names, *flags, "--csv", str(files[0]), "--latex", str(files[1]))
        assert shown.code == 0, shown.err
        verdicts = [row["A is"] for row in csv.DictReader(line for line in files[0].open() if line[0] != "#")]
        texts += [shown.out, *(f"{ARMS[0]} is {cell}" for cell in verdicts if "(configuration)" not in cell)]
        documents.append(call("compare", *names, *flags, "--json").document)
    return " ".join(" ".join(texts).split()), documents


def reported(call: Callable[..., Any], folder: SweepFolder) -> str:
    """The text of the report, of MLflow's note and of the other verbs."""
    page = Path(call("report", folder.sweep_id, "--no-tracking", "--json").document["report"]).read_text()
    texts = [html.unescape(re.sub(r"<[^>]+>", " ", page)), publish.verdict(Evidence(folder))]
    texts += [call(verb, folder.sweep_id).out for verb in ("best", "status", "verify")]
    return " ".join(" ".join(texts).split())


def test_one_search_never_says_anything_of_methods(call: Callable[..., Any], tmp_path: Path) -> None:
    """Neither with any flag, nor with more confirm seeds, nor when sweeps are compared with one another."""
    folder = a_false_verdict(tmp_path / "runs", SINGLE)
    text, documents = compared(call, [folder], tmp_path)
    for shown in (text, reported(call, folder)):
        assert "The configuration found for" in shown
        assert "One search each says nothing about the methods" in shown
        assert ON_METHODS.search(shown) is None
    assert {(d["unit"], d["studies"]) for d in documents} == {("seed", 1)}
    assert {p["unit"] for d in documents for p in d["pairs"]} == {"seed"}
    assert any(p["verdict"] in ("better", "worse") for p in documents[0]["pairs"]), json.dumps(documents[0])
    again = [swept(tmp_path / "runs", sweep_text("random", SINGLE, n), trained(), n, {}) for n in (100, 101)]
    text, documents = compared(call, again, tmp_path)
    assert ON_METHODS.search(text) is None
    assert {d["unit"] for d in documents} == {"seed"}


def test_several_searches_do(call: Callable[..., Any], tmp_path: Path) -> None:
    """The same scan finds what is said of methods where it may be said."""
    folder = a_false_verdict(tmp_path / "runs", FEW, effect=0.05)
    text, documents = compared(call, [folder], tmp_path)
    assert len(ON_METHODS.findall(text)) >= len(FLAGS)
    assert {d["unit"] for d in documents} == {"study"}
    assert ON_METHODS.search(publish.verdict(Evidence(folder)))
    (pair,) = answer.answer(Evidence(folder)).pairs
    said_of_methods = f"{ARMS[0]}, tuned with 3 trials, is better than {ARMS[1]}, tuned with 3 trials: "
    assert answer.sentence(pair, "accuracy/test").startswith(said_of_methods)


@pytest.mark.parametrize("name", ["tests.bench.null.task:Tabulated"])
def test_a_task_needs_no_constructor(name: str) -> None:
    assert trainables.parameters(name) == {}
