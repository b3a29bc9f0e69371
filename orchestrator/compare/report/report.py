"""`geosweep report`: one HTML file that works offline and prints well, with its figures and tables next to it.

The page is self-contained: figures are embedded and nothing is loaded. report/ gets report.html, each figure as PNG
(and on request as SVG and PDF at paper size), and the tables as CSV and LaTeX, with their numbers in separate columns
(*-numbers.csv).
"""

from __future__ import annotations

import base64
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from orchestrator.compare import currencies, search_curves, tuning
from orchestrator.compare.answer import answer, shown
from orchestrator.compare.evidence import Evidence
from orchestrator.compare.figures import paper as vectors
from orchestrator.compare.figures.register import SECTIONS, all_figures, png
from orchestrator.compare.report import numbers, tables
from orchestrator.compare.report.page import Badge, Figure, page
from orchestrator.compare.report.paper import section
from orchestrator.definition.passwords import without_passwords
from orchestrator.protocol import controls, seal
from orchestrator.statistics.pairing import Refused
from orchestrator.statistics.sentences import headline, notes, sentence
from orchestrator.statistics.verdict import Pair, Verdict
from orchestrator.storage import whole
from orchestrator.trial import noticed

OF_STUDIES = ("noise", "studies")
"""Tables that a sweep with one study does not have."""
FIRST_SENTENCES, MOST_DIFF_LINES = 4, 2000


def build(evidence: Evidence, to: Path, *, paper: bool = False, vector: bool = False, charts: str = "") -> Path:
    """Write the report into the folder `to`; returns the path of report.html.

    `paper`: also write paper.tex, a section for LaTeX. `vector`: also write each figure as SVG and PDF. Nothing is
    written before all is made, so an earlier report there stays whole if this one does not come to its end.
    """
    files: dict[Path, str | bytes] = {}
    try:
        document, refused = answer(evidence), ""
    except Refused as reason:
        document, refused = None, str(reason)
    stamps = document.exploratory if document else seal.stamps(evidence.folder)
    drawn: dict[str, list[Figure]] = {key: [] for key in SECTIONS}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")  # a box, in a script without a font
        for one in all_figures(evidence):
            content = png(one.figure)
            files[to / "figures" / f"{one.name}.png"] = content
            if vector or paper:
                files |= vectors.drawn(one.figure, to / "figures" / one.name)
            embedded = base64.b64encode(content).decode()
            drawn[one.section].append(Figure(name=one.name, caption=one.caption, base64=embedded))
    written = {"arms": tables.arms(evidence), "tuning": tables.tuning(evidence)}
    if document:
        written |= {"pairs": tables.pairs(document), "noise": tables.noise(document)}
    written["studies"] = tables.studies(evidence)
    units = f"in {evidence.studies} paired studies" if evidence.studies > 1 else "on paired confirm seeds"
    units = f"({evidence.imported})" if evidence.imported else units
    caption = f"{evidence.definition['name']}: {evidence.reported} {units}"
    for name, rows in written.items():
        if not rows and name in OF_STUDIES:
            continue
        files[to / f"{name}.csv"] = tables.as_csv(rows, stamps)
        files[to / f"{name}.tex"] = tables.as_latex(rows, caption, stamps)
    exact = {"arms": numbers.arms(evidence), "pairs": numbers.pairs(document) if document else []}
    for name, found in exact.items():
        if found:
            files[numbers.beside(to / f"{name}.csv")] = tables.as_csv(numbers.stamped(found, stamps))
    context = {
        **_top(evidence, document, refused, stamps, written["arms"]),
        "charts": charts,
        "titles": SECTIONS,
        "drawn": drawn,
        "refused": refused,
        "document": document,
        "pairs": written.get("pairs", []),
        "noise": written.get("noise", []),
        "studies": written["studies"],
        "notes": notes(document) if document else [],
        **_tuning(evidence, written["tuning"]),
        **_provenance(evidence),
    }
    if paper:
        every = (figure for found in drawn.values() for figure in found)
        files[to / "paper.tex"] = section(context, every, caption, stamps)
    files[to / "report.html"] = page(context)
    whole.write(files, outdated=_earlier(to))
    return to / "report.html"


def _earlier(to: Path) -> list[Path]:
    """What an earlier report may have left in the folder: figures, the section for LaTeX."""
    figures = (to / "figures").glob("*") if (to / "figures").is_dir() else ()
    return [to / "paper.tex", *(old for old in figures if old.suffix in (".png", ".svg", ".pdf"))]


def _top(
    evidence: Evidence,
    document: Verdict | None,
    refused: str,
    stamps: Sequence[str],
    arms: Sequence[Mapping[str, str]],
) -> dict[str, Any]:
    settled = document is not None and any(p.verdict != "inconclusive" for p in document.pairs)
    task = ", ".join(f"{k} {v}" for k, v in evidence.definition["task"]["parameters"].items() if v is not None)
    return {
        "sweep_id": evidence.sweep_id,
        "question": evidence.description or f"How do the arms of {evidence.definition['name']} compare?",
        "verdict": "refused" if document is None else "settled" if settled else "open",
        "headline": headline(document, refused),
        "sentences": [sentence(p, document.metric) for p in _first(document, arms)] if document else [],
        "facts": _facts_line(evidence, task),
        "imported": bool(evidence.imported),
        "badges": _badges(evidence, stamps),
        "arms": arms,
        "cut": tables.cut(evidence),
    }


def _facts_line(evidence: Evidence, task: str) -> str:
    """`digits (noise 0.4) · 480 gradient evaluations per trial · 9 paired confirm seeds`."""
    amount = currencies.amount(evidence)
    given = "given to each trial" if evidence.is_program else "per trial"
    each = f"{amount} {given}" if amount else "cost per trial unknown"
    imported = evidence.resolved.imported
    what = f"imported from {imported.source}" if imported else f"{evidence.task} ({task})"
    return f"{what} · {each} · {_design(evidence)}"


def _design(evidence: Evidence) -> str:
    """`8 paired studies, 2 confirm seeds each`."""
    if evidence.imported:
        unit = "studies" if evidence.studies > 1 else "seeds"
        return f"{unit} of others' runs, {evidence.imported}"
    confirm, studies = len(evidence.definition["seeds"]["confirm"]), evidence.studies
    if studies == 1:
        return f"{confirm} paired confirm seeds"
    each = confirm // studies
    return f"{studies} paired studies, {each} confirm seed{'s' if each != 1 else ''} each"


def _badges(evidence: Evidence, stamps: Sequence[str]) -> list[Badge]:
    badges = [Badge(kind="warn", text=f"exploratory: {stamp}") for stamp in stamps]
    sealed = seal.sealed_hash(evidence.folder)
    if sealed and not stamps:
        badges.append(Badge(kind="good", text=f"sealed before the first trial: {sealed[:12]}"))
    waived = evidence.analysis.waive
    badges += [Badge(kind="warn", text=f"{code} waived: {why}") for code, why in waived.items()]
    rows = controls.read(evidence.folder)
    if rows and controls.failed(evidence.folder):
        badges.append(Badge(kind="bad", text="a control failed"))
    elif rows:
        badges.append(Badge(kind="good", text=f"{len(rows)} controls passed"))
    return badges


def _first(document: Verdict, arms: Sequence[Mapping[str, str]]) -> list[Pair]:
    """The comparisons of the leading arm, settled ones first."""
    top = arms[0]["arm"] if arms else ""
    chosen = sorted(shown(document), key=lambda p: (p.verdict == "inconclusive", top not in (p.a, p.b)))
    return [*chosen[:FIRST_SENTENCES]]


def _tuning(evidence: Evidence, rows: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The search of each arm, and what pruning did or would have done."""
    if evidence.imported and not any(len(evidence.configurations[arm]) for arm in evidence.arms):
        return {"tuning": [], "edges": [], "no_curve": "", "kills": [], "rungs": []}
    edges = {arm: [e for e in tuning.edges(evidence, arm) if e.is_doubtful] for arm in evidence.arms}
    return {
        "tuning": rows,
        "edges": [f"{arm}: {', '.join(map(_edge, found))}" for arm, found in edges.items() if found],
        "no_curve": search_curves.curves(evidence)[1],
        "kills": tables.kills(tuning.kills(evidence)),
        "rungs": tables.rungs(tuning.rungs(evidence)),
    }


def _edge(edge: tuning.Edge) -> str:
    return f"{edge.parameter} {edge}" if edge.studies > 1 else edge.parameter


def _provenance(evidence: Evidence) -> dict[str, Any]:
    trials = evidence.trials
    known: dict[str, Any] = dict(evidence.resolved.provenance)
    diff = evidence.folder.path / "uncommitted.diff"
    return {
        "provenance": {
            "sweep": evidence.sweep_id,
            "seal": seal.sealed_hash(evidence.folder) or "not sealed",
            **known,
            **{name.replace("_", " "): ", ".join(sorted(found)) for name, found in _facts(evidence).items()},
            **_streams(evidence),
            **({"reused": again[0]} if (again := noticed.reused_words(noticed.reused(evidence.records))) else {}),
            "trial time": f"{trials['seconds'].sum():,.0f} s over {len(trials)} trials",
            "wall clock": f"{evidence.folder.seconds():,.0f} s",
        },
        "diff": diff.read_text(encoding="utf-8").splitlines() if diff.exists() else [],
        "most_diff_lines": MOST_DIFF_LINES,
        "sweep_file": without_passwords(evidence.folder.text()),
    }


def _streams(evidence: Evidence) -> dict[str, str]:
    """The data that trials were trained on, and how much; for imported results, their source."""
    trials = evidence.trials
    if told := evidence.resolved.imported:
        return {
            "imported from": f"{told.source} ({told.kind}), {told.imported_at}",
            "pairing": evidence.imported,
        }
    return {
        "data (digest over all seeds)": seal.digest(sorted(set(trials["data_digest"])))[:16],
        "initial weights (digest over all seeds)": seal.digest(sorted(set(trials["init_digest"])))[:16],
        "gradient evaluations": f"{trials['grad_evals'].sum():,.0f}",
    }


def _facts(evidence: Evidence) -> dict[str, set[str]]:
    """What the task reports about its data, such as a corpus hash; trials of one sweep should agree."""
    found: dict[str, set[str]] = {}
    for trial in evidence.records:
        for name, value in trial.result.facts.items():
            found.setdefault(name, set()).add(str(value))
    return found
